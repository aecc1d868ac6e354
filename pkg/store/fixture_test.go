package store

import (
	"bytes"
	"context"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"
	"go.uber.org/goleak"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/storeapi"
	"github.com/varve-io/varve/pkg/storeapi/storeapitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// upload puts a block's directory into a bucket.
func upload(t testing.TB, bkt objstore.Bucket, dir string, meta *block.Meta) *block.Entry {
	t.Helper()
	e := &block.Entry{Meta: meta, Objects: map[string]int64{}}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		e.Objects[filepath.ToSlash(rel)] = int64(len(content))
		return bkt.Upload(context.Background(), block.ObjectName(meta.ULID, filepath.ToSlash(rel)), bytes.NewReader(content))
	})
	if err != nil {
		t.Fatalf("upload block %s: %v", meta.ULID, err)
	}
	e.ETags = etags(t, bkt, meta.ULID)
	return e
}

// etags are the versions of a block's objects, as a listing shows them.
func etags(t testing.TB, bkt bucket.Reader, id ulid.ULID) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := bucket.List(context.Background(), bkt, id.String(), "", func(o bucket.Object) error {
		_, rel, _ := block.ParseName(o.Name)
		all[rel] = o.ETag
		return nil
	})
	if err != nil {
		t.Fatalf("list block %s: %v", id, err)
	}
	return all
}

// add builds a block and uploads it.
func add(t testing.TB, bkt objstore.Bucket, s blocktest.Spec) *block.Entry {
	t.Helper()
	dir, meta := blocktest.Dir(t, s)
	return upload(t, bkt, dir, meta)
}

// open starts a gateway over blocks of a bucket. change may alter its options.
func open(t testing.TB, bkt bucket.Reader, change func(*Options), entries ...*block.Entry) *Gateway {
	t.Helper()
	o := Defaults()
	o.Dir = t.TempDir()
	if change != nil {
		change(&o)
	}
	g, err := New(bkt, o, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatalf("new gateway: %v", err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Errorf("close gateway: %v", err)
		}
	})
	syncBlocks(t, g, entries...)
	return g
}

func syncBlocks(t testing.TB, g *Gateway, entries ...*block.Entry) {
	t.Helper()
	set := &block.Set{Blocks: append([]*block.Entry(nil), entries...)}
	block.Sort(set.Blocks)
	if err := g.Sync(t.Context(), set); err != nil {
		t.Fatalf("sync: %v", err)
	}
}

func TestGatewayIsAStore(t *testing.T) {
	t.Run("over one block", func(t *testing.T) {
		storeapitest.Run(t, func(t *testing.T, f storeapitest.Fixture) storeapi.Store {
			t.Helper()
			bkt := bucket.NewMemory()
			return open(t, bkt, nil, add(t, bkt, f.Block()))
		})
	})
	t.Run("over a block for each half hour, with the least memory", func(t *testing.T) {
		storeapitest.Run(t, func(t *testing.T, f storeapitest.Fixture) storeapi.Store {
			t.Helper()
			bkt := bucket.NewMemory()
			return open(t, bkt, func(o *Options) { o.RequestBytes, o.Cache.MemoryBytes = minRequestBytes, 0 }, cut(t, bkt, f, hour/2)...)
		})
	})
	t.Run("over two replicas", func(t *testing.T) {
		storeapitest.RunReplicas(t, func(t *testing.T, fs []storeapitest.Fixture) storeapi.Store {
			t.Helper()
			bkt := bucket.NewMemory()
			return open(t, bkt, nil, add(t, bkt, fs[0].Block()), add(t, bkt, fs[1].Block()))
		})
	})
}

// cut makes one block for each span of so many milliseconds.
func cut(t testing.TB, bkt *bucket.Memory, f storeapitest.Fixture, length int64) []*block.Entry {
	t.Helper()
	var entries []*block.Entry
	for begin := storeapitest.Begin; begin <= storeapitest.End; begin += length {
		s := blocktest.Spec{Labels: f.External.Map(), Chunks: blocktest.WithStart, MinTime: begin, MaxTime: begin + length}
		for _, in := range f.Series {
			out := blocktest.Series{Labels: in.Labels}
			for _, p := range in.Samples {
				if p.T >= begin && p.T < begin+length {
					out.Samples = append(out.Samples, p)
				}
			}
			if len(out.Samples) > 0 {
				s.Series = append(s.Series, out)
			}
		}
		entries = append(entries, add(t, bkt, s))
	}
	if len(entries) < 2 {
		t.Fatalf("one block of %d ms is no cut", length)
	}
	return entries
}
