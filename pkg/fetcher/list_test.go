package fetcher

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/bucket/buckettest"
)

// paged is a bucket that counts the pages that a listing of S3 would take.
type paged struct {
	*bucket.Memory
	pages, lists, gets atomic.Int64
}

func (b *paged) List(ctx context.Context, prefix, after string, fn func(bucket.Object) error) error {
	b.lists.Add(1)
	n := 0
	defer func() { b.pages.Add(int64(n/pageSize) + 1) }() // a full page is followed by another
	return b.Memory.List(ctx, prefix, after, func(o bucket.Object) error {
		err := fn(o)
		if err == nil {
			n++
		}
		return err
	})
}

func (b *paged) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	b.gets.Add(1)
	return b.Memory.Get(ctx, name)
}

// idAt is the n-th ULID of a time in milliseconds.
func idAt(t *testing.T, ms uint64, n int) ulid.ULID {
	t.Helper()
	var id ulid.ULID
	if err := id.SetTime(ms); err != nil {
		t.Fatal(err)
	}
	if err := id.SetEntropy(fmt.Appendf(nil, "%010d", n)); err != nil {
		t.Fatal(err)
	}
	return id
}

// lay writes the three objects of a block that nobody will read more of than its meta.json.
func lay(t *testing.T, b objstore.Bucket, id ulid.ULID) {
	t.Helper()
	m := block.Meta{ULID: id, MaxTime: 7_200_000, Version: 1}
	m.Compaction.Level, m.Compaction.Sources = 1, []ulid.ULID{id}
	m.Thanos.Labels = map[string]string{"cluster": "eu", "replica": "a"}
	m.Thanos.SegmentFiles = []string{"000001"}
	m.Thanos.Files = []block.File{{RelPath: block.SegmentFile(1), SizeBytes: 1}, {RelPath: block.IndexFile, SizeBytes: 1}, {RelPath: block.MetaFile}}
	data, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{block.SegmentName(id, 1): "c", block.IndexName(id): "i", block.MetaName(id): string(data)} {
		if err := b.Upload(t.Context(), name, strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
	}
}

func idsOf(set *block.Set) []ulid.ULID {
	var ids []ulid.ULID
	for _, e := range set.Blocks {
		ids = append(ids, e.Meta.ULID)
	}
	return block.SortedIDs(ids)
}

func TestLongListingsSeeEveryObjectOnceInFewPages(t *testing.T) {
	now := uint64(time.Now().UnixMilli())
	const year = 365 * 24 * 3600 * 1000
	for name, tc := range map[string]struct {
		blocks int
		at     func(i int) uint64 // when the i-th block was made
		others []string           // objects that are not of blocks
	}{
		"less than a page":         {blocks: 300, at: func(i int) uint64 { return now - uint64(i) }},
		"a page and no more":       {blocks: 333, at: func(i int) uint64 { return now - uint64(i) }, others: []string{"x"}},
		"evenly over a year":       {blocks: 2500, at: func(i int) uint64 { return now - year + uint64(i)*year/2500 }},
		"all in one millisecond":   {blocks: 1500, at: func(int) uint64 { return now - year }},
		"all but one long ago":     {blocks: 1500, at: func(i int) uint64 { return now - year*uint64(1-i/1499) }},
		"after now":                {blocks: 1500, at: func(i int) uint64 { return now + uint64(i) }},
		"random times":             {blocks: 1500, at: func(int) uint64 { return now - rand.Uint64N(2*year) }},
		"behind a page of others":  {blocks: 1500, at: func(i int) uint64 { return now - uint64(i)*year/1500 }, others: numbered("000/", 1500)},
		"in front of many others":  {blocks: 400, at: func(i int) uint64 { return now - uint64(i) }, others: numbered("debug/", 3000)},
		"with objects like blocks": {blocks: 700, at: func(i int) uint64 { return now - uint64(i) }, others: []string{idAt(t, now, 5).String(), idAt(t, now-300, 1).String()}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := &paged{Memory: bucket.NewMemory()}
			var want []ulid.ULID
			for i := range tc.blocks {
				want = append(want, idAt(t, tc.at(i), i))
				lay(t, b, want[i])
			}
			for _, name := range tc.others {
				if err := b.Upload(t.Context(), name, strings.NewReader("")); err != nil {
					t.Fatal(err)
				}
			}
			f := newFetcher(b, "")
			objects := 3*tc.blocks + len(tc.others)
			most := int64((objects+pageSize-1)/pageSize + spans)
			for _, look := range []string{"first", "second"} {
				b.pages.Store(0)
				b.lists.Store(0)
				set := fetch(t, f)
				if got := idsOf(set); !slices.Equal(got, block.SortedIDs(want)) {
					t.Errorf("%s look: got %d blocks, want %d", look, len(got), len(want))
				}
				for _, e := range set.Blocks {
					if len(e.Objects) != 3 {
						t.Fatalf("%s look: objects of %s: got %v, want 3", look, e.Meta.ULID, e.Objects)
					}
				}
				if got := b.pages.Load(); got > most {
					t.Errorf("%s look: got %d pages, want at most %d for %d objects", look, got, most, objects)
				}
				if got := b.lists.Load(); objects < pageSize && got != 1 {
					t.Errorf("%s look: got %d listings of what fits a page", look, got)
				}
			}
			if got := b.gets.Load(); got != int64(tc.blocks) {
				t.Errorf("got %d reads in two looks, want one a block: %d", got, tc.blocks)
			}
		})
	}
}

func numbered(prefix string, n int) []string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("%s%06d", prefix, i))
	}
	return names
}

func TestKnownBlocksShareTheListingOut(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	var known []ulid.ULID
	for i := range 100 { // ever more of them
		known = append(known, idAt(t, uint64(now.UnixMilli()-int64(1e9)/int64(i+1)), i))
	}
	got := cut(block.MetaName(known[19]), known, now)
	want := []string{known[39].String(), known[59].String(), known[79].String()}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestABlockTakesLittleMemory(t *testing.T) {
	const blocks, most = 3000, 2 << 10
	b := bucket.NewMemory()
	for i := range blocks {
		lay(t, b, idAt(t, uint64(1_700_000_000_000+i*7_200_000), i))
	}
	f := newFetcher(b, "")
	before := heap()
	fetch(t, f)
	set := fetch(t, f) // the second look must not add to the first
	each := (heap() - before) / blocks
	t.Logf("%d bytes a block", each)
	if each > most {
		t.Errorf("got %d bytes a block, want at most %d", each, most)
	}
	runtime.KeepAlive(set)
	runtime.KeepAlive(f)
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestRequestsToAServer counts what a real S3 server is asked.
func TestRequestsToAServer(t *testing.T) {
	endpoint, _, _ := buckettest.StartS3(t)
	var lists, reads, others atomic.Int64
	target, err := url.Parse("http://" + endpoint)
	if err != nil {
		t.Fatal(err)
	}
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host // the signature covers it
	}}
	counting := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodGet && r.URL.Query().Has("list-type"):
			lists.Add(1)
		case r.Method == http.MethodGet:
			reads.Add(1)
		default:
			others.Add(1)
		}
		forward.ServeHTTP(w, r)
	}))
	defer counting.Close()
	open := func(yaml string) objstore.Bucket {
		b, err := bucket.Open(t.Context(), bucket.Options{Config: yaml}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() })
		return b
	}
	yaml := buckettest.CreateBucket(t, endpoint, "blocks")
	writer := open(yaml)
	const blocks = 360
	for i := range blocks {
		lay(t, writer, idAt(t, uint64(time.Now().UnixMilli()-int64(i)*7_200_000), i))
	}
	reader := open(strings.ReplaceAll(yaml, endpoint, strings.TrimPrefix(counting.URL, "http://")))
	if err := bucket.Check(t.Context(), reader); err != nil { // as every start does
		t.Fatal(err)
	}
	others.Store(0) // it may look for the bucket itself
	const most = (3*blocks+pageSize-1)/pageSize + 4
	dir := t.TempDir()
	look := func(what string, f *Fetcher, wantReads int64) {
		t.Helper()
		if got := len(fetch(t, f).Blocks); got != blocks {
			t.Errorf("%s: got %d blocks, want %d", what, got, blocks)
		}
		if got := lists.Swap(0); got > most {
			t.Errorf("%s: got %d listing requests, want at most %d", what, got, most)
		}
		if got := reads.Swap(0); got != wantReads {
			t.Errorf("%s: got %d reads, want %d", what, got, wantReads)
		}
		if got := others.Swap(0); got > 0 {
			t.Errorf("%s: got %d other requests, want none", what, got)
		}
	}
	f := newFetcher(reader, dir)
	look("start", f, blocks)
	look("second look", f, 0)
	id := idAt(t, uint64(time.Now().UnixMilli()), 0)
	if err := writer.Upload(t.Context(), block.MarkName(id, block.DeletionMark), strings.NewReader(mark(id, block.DeletionMark, 1))); err != nil {
		t.Fatal(err)
	}
	look("a new mark", f, 1)
	look("restart", newFetcher(reader, dir), 0)
}
