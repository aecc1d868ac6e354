package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
)

// wide uploads a block of n series up{job="0000"}, …, each with one chunk of so many bytes.
func wide(t *testing.T, bkt *bucket.Memory, n, size int) *block.Entry {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	w, err := chunks.NewWriter(filepath.Join(dir, block.ChunksDir))
	check(err)
	iw, err := index.NewWriter(t.Context(), filepath.Join(dir, block.IndexFile))
	check(err)
	symbols := []string{"__name__", "job", "up"}
	for i := range n {
		symbols = append(symbols, fmt.Sprintf("v%04d", i))
	}
	for _, s := range symbols {
		check(iw.AddSymbol(s))
	}
	rnd := rand.New(rand.NewSource(2))
	for i, job := range symbols[3:] {
		c := rawChunk{encoding: chunkenc.EncXOR, data: make([]byte, size)}
		rnd.Read(c.data)
		metas := []chunks.Meta{c.writable(0)}
		check(w.WriteChunks(metas...))
		check(iw.AddSeries(storage.SeriesRef(i), labels.FromStrings("__name__", "up", "job", job), metas...))
	}
	check(errors.Join(w.Close(), iw.Close()))
	meta := entry(t, "a@0-1/raw").Meta
	meta.MaxTime = 1000
	meta.Thanos.Labels = nil
	return upload(t, bkt, dir, meta)
}

// tapped calls before each read of chunks, which goes on if that returns nil.
type tapped struct {
	bucket.Reader
	before func(ctx context.Context, off int64) error
}

func (b *tapped) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	if strings.Contains(name, "/chunks/") {
		if err := b.before(ctx, off); err != nil {
			return nil, err
		}
	}
	return b.Reader.GetRange(ctx, name, off, length)
}

// As many spans of goodSpan as are read side by side fit into the window of such a request, and a block has more of them.
const (
	wideRequest = 4*sideBySide*goodSpan/3 + 64<<10
	wideSeries  = 360
	wideChunk   = 32 << 10
)

func uncached(o *Options) {
	o.RequestBytes, o.Cache.MemoryBytes, o.Cache.DiskBytes = wideRequest, 0, 0
}

func TestSpansOfAFewBlocksAreReadSideBySideAndComeInOrder(t *testing.T) {
	bkt := bucket.NewMemory()
	e := wide(t, bkt, wideSeries, wideChunk)
	want, _, err := series.Collect(open(t, bkt, nil, e).Series(t.Context(), selectUp(0, 999)))
	if err != nil || len(want) != wideSeries {
		t.Fatalf("%d series (%v), want %d", len(want), err, wideSeries)
	}
	// The first read does not go on before three more have begun.
	const together = 4
	var mu sync.Mutex
	begun := 0
	all := make(chan struct{})
	m := &metered{Reader: &tapped{bkt, func(ctx context.Context, off int64) error {
		mu.Lock()
		if begun++; begun == together {
			close(all)
		}
		mu.Unlock()
		if off > chunks.SegmentHeaderSize {
			return nil
		}
		select {
		case <-all:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}}
	g := open(t, m, uncached, e)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	set := g.Series(ctx, selectUp(0, 999))
	set.(storeapi.Reclaimable).Reclaim()
	n, taken := 0, int64(0)
	for ; set.Next(); n++ {
		got := set.At()
		if !labels.Equal(got.Labels, want[n].Labels) || len(got.Chunks) != 1 || !bytes.Equal(got.Chunks[0].Data, want[n].Chunks[0].Data) {
			t.Fatalf("series %d is %s, want %s with its chunk", n, got.Labels, want[n].Labels)
		}
		// What was read and is not handed out yet is within the budget, but for what came twice.
		reads := &set.(*answer).request.stats.chunks.reads
		most := wideRequest*3/4 + goodSpan*(1+2*(reads.Hedges.Load()+reads.Retries.Load()))
		if ahead := m.bytes.Load() - taken; ahead > most {
			t.Fatalf("%d bytes are held at series %d, want %d at most", ahead, n, most)
		}
		taken += wideChunk
		set.(storeapi.Reclaimable).Reclaim()
	}
	if set.Err() != nil || n != wideSeries {
		t.Errorf("%d series (%v), want %d", n, set.Err(), wideSeries)
	}
	// Spans neither overlap nor leave out what is between them.
	needed := set.(storeapi.Counted).Stats().Total().Needed
	if needed < wideSeries*wideChunk || needed > wideSeries*wideChunk*103/100 {
		t.Errorf("%d bytes were needed, of chunks with %d", needed, wideSeries*wideChunk)
	}
}

func TestAReaderThatStopsEndsAllReads(t *testing.T) {
	bkt := bucket.NewMemory()
	e := wide(t, bkt, wideSeries, wideChunk)
	var reading atomic.Int64
	hanging := make(chan struct{}, 64)
	g := open(t, &tapped{bkt, func(ctx context.Context, off int64) error {
		if off <= chunks.SegmentHeaderSize {
			return nil
		}
		reading.Add(1)
		defer reading.Add(-1)
		hanging <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}}, uncached, e)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	set := g.Series(ctx, selectUp(0, 999))
	if !set.Next() {
		t.Fatal(set.Err())
	}
	for range 3 {
		select {
		case <-hanging:
		case <-ctx.Done():
			t.Fatal("no three reads side by side")
		}
	}
	cancel()
	for set.Next() {
	}
	if !errors.Is(set.Err(), context.Canceled) {
		t.Errorf("error is %v, want %v", set.Err(), context.Canceled)
	}
	if err := g.Close(); err != nil { // waits for all goroutines of the request
		t.Error(err)
	}
	if n := reading.Load(); n != 0 {
		t.Errorf("%d reads go on", n)
	}
}

func TestAnErrorInTheMiddleComesInItsTurn(t *testing.T) {
	bkt := bucket.NewMemory()
	e := wide(t, bkt, wideSeries, wideChunk)
	broken := errors.New("broken")
	middle := e.Objects["chunks/000001"] / 2
	g := open(t, &tapped{bkt, func(_ context.Context, off int64) error {
		if off >= middle {
			return broken
		}
		return nil
	}}, uncached, e)
	for name, tc := range map[string]struct {
		partial  storeapi.PartialResponse
		warnings int
		err      error
	}{
		"all or nothing": {storeapi.Abort, 0, broken},
		"what there is":  {storeapi.Warn, 1, nil},
	} {
		t.Run(name, func(t *testing.T) {
			req := selectUp(0, 999)
			req.Partial = tc.partial
			got, warnings, err := series.Collect(g.Series(t.Context(), req))
			if !errors.Is(err, tc.err) || len(warnings) != tc.warnings {
				t.Errorf("error %v and warnings %v, want %v and %d", err, warnings, tc.err, tc.warnings)
			}
			if tc.err == nil && (len(got) < wideSeries/4 || len(got) > wideSeries*3/4) {
				t.Errorf("%d series before the error, want about half of %d", len(got), wideSeries)
			}
			for i, s := range got {
				if want := fmt.Sprintf("v%04d", i); s.Labels.Get("job") != want {
					t.Fatalf("series %d is %s, want that of %s", i, s.Labels, want)
				}
			}
		})
	}
}
