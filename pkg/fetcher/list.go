package fetcher

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/bucket"
)

// directory is what the listing says of one block.
type directory struct {
	// small are meta.json and marks by relative name: what has to be read.
	small   map[string]bucket.Object
	objects map[string]int64
	newest  time.Time
}

// list looks at the whole bucket, once, and forgets what is no part of a block.
func list(ctx context.Context, bkt bucket.Reader) (map[ulid.ULID]*directory, error) {
	dirs := map[ulid.ULID]*directory{}
	err := bucket.List(ctx, bkt, "", "", func(o bucket.Object) error {
		id, rel, ok := block.ParseName(o.Name)
		if !ok {
			return nil
		}
		dir := dirs[id]
		if dir == nil {
			dir = &directory{small: map[string]bucket.Object{}, objects: map[string]int64{}}
			dirs[id] = dir
		}
		dir.objects[rel] = o.Size
		if o.LastModified.After(dir.newest) {
			dir.newest = o.LastModified
		}
		if rel == block.MetaFile || slices.Contains(block.MarkKinds(), block.MarkKind(rel)) {
			dir.small[rel] = o
		}
		return nil
	})
	return dirs, err
}

// version tells two contents of one object name apart.
func version(o bucket.Object) string {
	return fmt.Sprintf("%s %d %d", o.ETag, o.Size, o.LastModified.UnixNano())
}

// sortSet brings a set into its order.
func sortSet(set *block.Set) {
	block.Sort(set.Blocks)
	slices.SortFunc(set.Partial, func(a, b block.Partial) int { return cmp.Compare(a.ID.String(), b.ID.String()) })
	slices.SortFunc(set.Unreadable, func(a, b block.Unreadable) int { return cmp.Compare(a.ID.String(), b.ID.String()) })
}
