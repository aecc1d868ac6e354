package store

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/bucket/buckettest"
	"github.com/varve-io/varve/pkg/fetcher"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
	"github.com/varve-io/varve/pkg/storeapi/storeapitest"
)

// anew writes the objects of a block anew, with as many series of the same labels and
// other values, so that only their versions tell old from new bytes.
func anew(t *testing.T, bkt objstore.Bucket, was *block.Entry, spec blocktest.Spec) *block.Entry {
	t.Helper()
	for _, s := range spec.Series {
		for i := range s.Samples {
			s.Samples[i].V = -s.Samples[i].V
		}
	}
	dir, meta := blocktest.Dir(t, spec)
	meta.ULID = was.Meta.ULID
	if err := os.Remove(filepath.Join(dir, block.MetaFile)); err != nil { // it stays as it is
		t.Fatal(err)
	}
	is := upload(t, bkt, dir, meta)
	is.Version = was.Version + "+"
	return is
}

// gatedBucket answers reads of parts once it is open.
type gatedBucket struct {
	*bucket.Memory
	open chan struct{}
}

func (g *gatedBucket) GetRangeIfMatch(ctx context.Context, name, etag string, off, length int64) (io.ReadCloser, error) {
	<-g.open
	return g.Memory.GetRangeIfMatch(ctx, name, etag, off, length)
}

// verdict says in words what an answer is made of.
func verdict(t *testing.T, set series.Set) string {
	t.Helper()
	got, warnings, err := series.Collect(set)
	if err != nil {
		t.Fatalf("series: %v", err)
	}
	found := map[bool]int{}
	for _, s := range got {
		for _, c := range s.Chunks {
			for _, p := range storeapitest.Decode(t, c) {
				found[p.V < 0]++
			}
		}
	}
	return fmt.Sprintf("%d old samples, %d new ones, %d warnings", found[false], found[true], len(warnings))
}

func TestABlockWrittenAnewUnderARequestIsPlannedOnceMore(t *testing.T) {
	for name, tc := range map[string]struct {
		indexed bool // whether the index was read before
		synced  bool // whether the gateway knows of the new objects when it meets them
		want    string
	}{
		"before its index is read, known":       {false, true, "0 old samples, 4800 new ones, 0 warnings"},
		"before its index is read, not known":   {false, false, "0 old samples, 0 new ones, 1 warnings"},
		"before its chunks are read, known":     {true, true, "0 old samples, 4800 new ones, 0 warnings"},
		"before its chunks are read, not known": {true, false, "0 old samples, 0 new ones, 1 warnings"},
	} {
		t.Run(name, func(t *testing.T) {
			bkt := bucket.NewMemory()
			was := add(t, bkt, noise(20, 0))
			gate := &gatedBucket{Memory: bkt, open: make(chan struct{})}
			g := open(t, gate, nil, was)
			if tc.indexed {
				close(gate.open)
				req := selectUp(0, hour)
				req.SkipChunks = true
				mustAsk(t, g, req)
				gate.open = make(chan struct{})
			}
			set := g.Series(t.Context(), selectUp(0, hour))
			is := anew(t, bkt, was, noise(20, 0))
			if tc.synced {
				syncBlocks(t, g, is)
			}
			close(gate.open)
			if got := verdict(t, set); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

// TestARealServerRefusesOldVersions writes a block anew behind the back of a gateway.
func TestARealServerRefusesOldVersions(t *testing.T) {
	endpoint, _, _ := buckettest.StartS3(t)
	o := bucket.Options{Config: buckettest.CreateBucket(t, endpoint, "versions")}
	bkt, err := bucket.Open(t.Context(), o, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bkt.Close(); err != nil {
			t.Error(err)
		}
	})
	blocks := fetcher.New(bkt, fetcher.Defaults(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	look := func() []*block.Entry {
		t.Helper()
		set, err := blocks.Fetch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return set.Blocks
	}
	was := add(t, bkt, noise(20, 0))
	g := open(t, bkt, nil, look()...)
	req := selectUp(0, hour)
	req.SkipChunks = true
	mustAsk(t, g, req)

	anew(t, bkt, was, noise(20, 0))
	if got, want := verdict(t, g.Series(t.Context(), selectUp(0, hour))), "0 old samples, 0 new ones, 1 warnings"; got != want {
		t.Errorf("with the old listing: got %s, want %s", got, want)
	}
	syncBlocks(t, g, look()...)
	if got, want := verdict(t, g.Series(t.Context(), selectUp(0, hour))), "0 old samples, 4800 new ones, 0 warnings"; got != want {
		t.Errorf("with the new listing: got %s, want %s", got, want)
	}
}

// doubleTongued lists other ETags than it answers with.
type doubleTongued struct{ *bucket.Memory }

func (d doubleTongued) List(ctx context.Context, prefix, after string, fn func(bucket.Object) error) error {
	return d.Memory.List(ctx, prefix, after, func(o bucket.Object) error {
		o.ETag = "listed-" + o.ETag
		return fn(o)
	})
}

func TestABucketThatListsOtherETagsIsReadAllTheSame(t *testing.T) {
	bkt := bucket.NewMemory()
	entry := add(t, bkt, noise(20, 0))
	entry.ETags = etags(t, doubleTongued{bkt}, entry.Meta.ULID)
	var log bytes.Buffer
	opts := Defaults()
	opts.Dir = t.TempDir()
	g, err := New(doubleTongued{bkt}, opts, slog.New(slog.NewTextHandler(&log, nil)), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	syncBlocks(t, g, entry)
	if got, want := verdict(t, g.Series(t.Context(), selectUp(0, hour))), "4800 old samples, 0 new ones, 0 warnings"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "other ETags"); n != 1 {
		t.Errorf("%d log lines of it, want 1:\n%s", n, log.String())
	}
}

func TestLabelsOfABlockThatVanishedComeFromWhatItBecame(t *testing.T) {
	bkt := bucket.NewMemory()
	first, second := add(t, bkt, ups(3, 0, hour, 1)), add(t, bkt, ups(3, hour, 2*hour, 1))
	merged := add(t, bkt, ups(3, 0, 2*hour, 2))
	merged.Meta.Compaction.Sources = block.SortedIDs([]ulid.ULID{first.Meta.ULID, second.Meta.ULID})
	for _, partial := range []storeapi.PartialResponse{storeapi.Warn, storeapi.Abort} {
		deleted := &deletedBucket{Reader: bkt, prefix: first.Meta.ULID.String()}
		g := open(t, deleted, nil, first, second)
		deleted.seen = sync.OnceFunc(func() { syncBlocks(t, g, merged) })
		got, warnings, err := g.LabelValues(t.Context(), "job", &storeapi.LabelsRequest{MaxTime: 2 * hour, Matchers: selectUp(0, 0).Matchers, Partial: partial})
		if err != nil || len(warnings) > 0 || !slices.Equal(got, []string{"0000", "0001", "0002"}) {
			t.Errorf("values: %q, %v, %v", got, warnings, err)
		}
	}
}

// deletedBucket has no objects of a block, which who reads them learns from seen.
type deletedBucket struct {
	bucket.Reader
	prefix string
	seen   func()
}

func (d *deletedBucket) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	if strings.HasPrefix(name, d.prefix) {
		d.seen()
		return nil, fmt.Errorf("read %s: %w", name, bucket.ErrNotFound)
	}
	return d.Reader.GetRange(ctx, name, off, length)
}
