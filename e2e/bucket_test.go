package e2e

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/varve-io/varve/e2e/history"
)

// blocks reads the meta.json of every complete block without a deletion mark,
// sorted by ULID.
func blocks(ctx context.Context, t *testing.T, b history.Bucket) []metaOf {
	t.Helper()
	keys := must(b.Keys(ctx))(t)
	var out []metaOf
	for _, key := range keys {
		id, file, _ := strings.Cut(key, "/")
		if file != "meta.json" || slices.Contains(keys, id+"/deletion-mark.json") {
			continue
		}
		var m metaOf
		if err := json.Unmarshal(must(b.Get(ctx, key))(t), &m); err != nil {
			t.Fatalf("read %s: %v", key, err)
		}
		out = append(out, m)
	}
	return out
}

// atResolution keeps the blocks of one resolution in milliseconds.
func atResolution(metas []metaOf, resolution int64) []metaOf {
	return slices.DeleteFunc(slices.Clone(metas), func(m metaOf) bool {
		return m.Thanos.Downsample.Resolution != resolution
	})
}
