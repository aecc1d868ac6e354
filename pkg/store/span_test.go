package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
)

// noise is a block of n series whose samples hardly compress.
func noise(n int, from int64) blocktest.Spec {
	rnd := rand.New(rand.NewSource(from))
	s := blocktest.Spec{Labels: map[string]string{"cluster": "eu"}, MinTime: from, MaxTime: from + hour}
	for i := range n {
		values := make([]float64, 240)
		for j := range values {
			values[j] = rnd.Float64()
		}
		s.Series = append(s.Series, blocktest.Floats(labels.FromStrings("__name__", "up", "job", fmt.Sprintf("%04d", i)), from, 15_000, values...))
	}
	return s
}

// metered counts the reads of chunks and their bytes.
type metered struct {
	bucket.Reader
	reads, bytes atomic.Int64
}

func (m *metered) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	if strings.Contains(name, "/chunks/") {
		m.reads.Add(1)
	}
	rc, err := m.Reader.GetRange(ctx, name, off, length)
	return readerFunc{rc, func(p []byte) (int, error) {
		n, err := rc.Read(p)
		if strings.Contains(name, "/chunks/") {
			m.bytes.Add(int64(n))
		}
		return n, err
	}}, err
}

func TestChunksAreReadNoFurtherThanTwoSpansAhead(t *testing.T) {
	bkt := bucket.NewMemory()
	entries := make([]*block.Entry, 4)
	var all int64
	for i := range entries {
		entries[i] = add(t, bkt, noise(500, int64(i)*hour))
		all += entries[i].Objects["chunks/000001"]
	}
	m := &metered{Reader: bkt}
	g := open(t, m, func(o *Options) { o.RequestBytes, o.Cache.MemoryBytes, o.Cache.DiskBytes = minRequestBytes, 0, 0 }, entries...)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	set := g.Series(ctx, selectUp(0, 4*hour))
	if !set.Next() {
		t.Fatal(set.Err())
	}
	// Nothing beyond can be on its way: the second span waits for its reader.
	var budget float64 = minRequestBytes
	most := int64(spansPart*budget) + 64<<10
	if got := m.bytes.Load(); got > most || all < 3*most {
		t.Errorf("%d of %d bytes were read for the first series, want %d at most", got, all, most)
	}
	rest, warnings, err := series.Collect(set)
	if err != nil || len(warnings) > 0 || len(rest) != 499 {
		t.Fatalf("%d more series (%v, %v), want 499", len(rest), warnings, err)
	}
	if got := m.bytes.Load(); got < all*9/10 || got > all*11/10 {
		t.Errorf("%d bytes were read of %d", got, all)
	}
	// Some forty spans: where the chunks follow each other, one answer serves several.
	if got := m.reads.Load(); got > 24 {
		t.Errorf("%d reads of chunks, want one for some spans of a block", got)
	}
	stats := set.(storeapi.Counted).Stats()
	if len(stats.Blocks) != 4 || stats.Touched != 2000 || stats.Series != 500 || stats.Total().Fetched < all*9/10 || stats.Total().Requests < 8 || stats.Chunks < 2000 {
		t.Errorf("statistics are %+v", stats)
	}
}

func TestMemoryIsUsedAgainOnlyAfterItWasReclaimed(t *testing.T) {
	bkt := bucket.NewMemory()
	var entries []*block.Entry
	for i := range int64(3) {
		entries = append(entries, add(t, bkt, noise(200, i*hour)))
	}
	g := open(t, bkt, func(o *Options) { o.RequestBytes, o.Cache.MemoryBytes, o.Cache.DiskBytes = minRequestBytes, 0, 0 }, entries...)
	want, _, err := series.Collect(g.Series(t.Context(), selectUp(0, 3*hour)))
	if err != nil || len(want) != 200 {
		t.Fatalf("%d series (%v), want 200", len(want), err)
	}
	set := g.Series(t.Context(), selectUp(0, 4*hour))
	set.(storeapi.Reclaimable).Reclaim()
	for i := 0; set.Next(); i++ {
		got := set.At()
		if !labels.Equal(got.Labels, want[i].Labels) || !slices.EqualFunc(got.Chunks, want[i].Chunks, func(a, b series.Chunk) bool {
			return a.MinTime == b.MinTime && bytes.Equal(a.Data, b.Data)
		}) {
			t.Fatalf("series %d is %s with other chunks than %s has", i, got.Labels, want[i].Labels)
		}
		if i%3 == 0 {
			set.(storeapi.Reclaimable).Reclaim()
		}
	}
	if set.Err() != nil {
		t.Error(set.Err())
	}
	if left := len(set.(*answer).request.left); left > 3*len(entries) {
		t.Errorf("%d buffers wait for being used again, want a few", left)
	}
}

func TestRequestsWaitForMemoryAndNeverForMore(t *testing.T) {
	bkt := bucket.NewMemory()
	g := open(t, bkt, func(o *Options) { o.RequestBytes, o.MemoryBytes = 4*minRequestBytes, 2*minRequestBytes },
		add(t, bkt, noise(300, 0)), add(t, bkt, noise(300, hour)))
	first, end := context.WithCancel(t.Context())
	defer end()
	a, b := g.Series(first, selectUp(0, 2*hour)), g.Series(first, selectUp(0, 2*hour))
	late, cancel := context.WithCancel(t.Context())
	waited := make(chan error, 1)
	go func() {
		_, _, err := series.Collect(g.Series(late, selectUp(0, hour)))
		waited <- err
	}()
	// Both have the least that there is, and come to their end with it, in turns.
	n := 0
	for a.Next() && b.Next() {
		n++
	}
	if n != 300 || a.Err() != nil || b.Err() != nil {
		t.Errorf("%d series (%v, %v), want 300", n, a.Err(), b.Err())
	}
	select {
	case err := <-waited:
		t.Errorf("a request without memory left did not wait: %v", err)
	default:
	}
	cancel()
	if err := <-waited; !errors.Is(err, context.Canceled) {
		t.Errorf("a request without memory left: error is %v, want %v", err, context.Canceled)
	}
	end()
	if got, err := ask(t, g, selectUp(0, 2*hour)); err != nil || strings.Count(got, " 480") != 300 {
		t.Errorf("after them: %d series (%v), want 300", strings.Count(got, " 480"), err)
	}
}

func TestAShareGrowsByWhatIsFree(t *testing.T) {
	b := newBudget(Options{RequestBytes: 16 << 20, MemoryBytes: 24 << 20, MaxConcurrency: 3})
	wide := func() bool { return false }
	one, err := b.enter(t.Context(), 4<<20, wide)
	if err != nil {
		t.Fatal(err)
	}
	if !one.grow(12<<20) || one.size() != 12<<20 {
		t.Errorf("share is %d, want 12 MiB", one.size())
	}
	if one.grow(17<<20) || one.size() != 16<<20 {
		t.Errorf("share is %d, want 16 MiB and to be told that more may not be", one.size())
	}
	two, err := b.enter(t.Context(), 4<<20, wide)
	if err != nil {
		t.Fatal(err)
	}
	if two.grow(9<<20) || two.size() != 4<<20 {
		t.Errorf("share is %d, want 4 MiB while another has 16 of 24", two.size())
	}
	one.leave()
	one.leave() // again changes nothing
	if one.grow(17<<20) || !two.grow(16<<20) {
		t.Error("memory that was given back is not free")
	}
	two.leave()
	if !b.free.TryAcquire(24 << 20) {
		t.Error("not all memory came back")
	}
}
