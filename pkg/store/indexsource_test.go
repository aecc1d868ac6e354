package store

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/varve-io/varve/pkg/bucket"
)

// A block whose page directory is on disk costs a narrow query one read of
// postings, one of series entries and one of chunks.
func TestANarrowQueryReadsAnIndexTwice(t *testing.T) {
	bkt := bucket.NewMemory()
	e := add(t, bkt, ups(50, 0, hour, 1))
	counted := &reading{Reader: bkt}
	dir := t.TempDir()
	for i, want := range []struct{ index, chunks int64 }{{4, 1}, {2, 1}, {0, 0}} {
		if i == 1 { // without what the cache has
			if err := os.RemoveAll(filepath.Join(dir, "pages")); err != nil {
				t.Fatal(err)
			}
		}
		g := open(t, counted, func(o *Options) { o.Dir = dir }, e)
		counted.index.Store(0)
		counted.chunks.Store(0)
		if got := mustAsk(t, g, selectUp(0, hour)); strings.Count(got, " 240\n") != 50 {
			t.Errorf("start %d: got %q", i, got)
		}
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
		if index, chunks := counted.index.Load(), counted.chunks.Load(); index > want.index || chunks > want.chunks {
			t.Errorf("start %d: %d requests for the index and %d for chunks, want at most %d and %d", i, index, chunks, want.index, want.chunks)
		}
	}
}

// reading counts range requests.
type reading struct {
	bucket.Reader
	index, chunks atomic.Int64
}

func (r *reading) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	if strings.HasSuffix(name, "/index") {
		r.index.Add(1)
	} else {
		r.chunks.Add(1)
	}
	return r.Reader.GetRange(ctx, name, off, length)
}
