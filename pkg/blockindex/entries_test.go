package blockindex_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/blockindex"
)

// smallWindow is a small part of the entries of these tests.
const smallWindow = 16 << 10

// readAhead returns a reader of all series of x that reads ahead.
func readAhead(t *testing.T, x *blockindex.Index) *blockindex.SeriesReader {
	t.Helper()
	s, err := x.Select(t.Context())
	check(t, err)
	r := x.Series(s)
	r.Window(smallWindow)
	r.ReadAhead()
	return r
}

func next(t *testing.T, r *blockindex.SeriesReader, e *blockindex.Entry) bool {
	t.Helper()
	return r.Next(t.Context(), math.MinInt64, math.MaxInt64, e)
}

func TestEntriesThatWereReadAheadAreTheSame(t *testing.T) {
	all := randomSeries(3000, 9) // long ones among them, which are read twice
	x, src := open(t, writeIndex(t, all))
	r := readAhead(t, x)
	defer r.Close()
	src.reset()
	var e blockindex.Entry
	for _, want := range all {
		if len(want.chunks) == 0 {
			continue
		}
		if !next(t, r, &e) || !labels.Equal(e.Labels, want.labels) || len(e.Chunks) != len(want.chunks) {
			t.Fatalf("got %s with %d chunks, want %s with %d (%v)", e.Labels, len(e.Chunks), want.labels, len(want.chunks), r.Err())
		}
		for i, c := range e.Chunks {
			if uint64(c.Ref) != uint64(want.chunks[i].Ref) {
				t.Fatalf("%s: chunk %d is %v, want %v", e.Labels, i, c, want.chunks[i])
			}
		}
	}
	if next(t, r, &e) || r.Err() != nil {
		t.Errorf("at the end: %s (%v)", e.Labels, r.Err())
	}
	if rounds := src.rounds.Load(); rounds < 5 {
		t.Errorf("%d reads: the window is not small", rounds)
	}
}

func TestAnErrorOfWhatIsReadAheadComesInItsTurn(t *testing.T) {
	x, src := open(t, writeIndex(t, clusterSeries(200)))
	r := readAhead(t, x)
	defer r.Close()
	var e blockindex.Entry
	if !next(t, r, &e) {
		t.Fatal(r.Err())
	}
	src.broken.Store(math.MaxInt32) // what is read ahead by now is one window, or nothing
	n := 1
	for next(t, r, &e) {
		n++
	}
	if !errors.Is(r.Err(), errBroken) || n < 10 || n > 200 {
		t.Errorf("after %d series: error is %v, want %v", n, r.Err(), errBroken)
	}
}

// hanging answers so many reads, and the others when their context ends.
type hanging struct {
	*memory
	answers int64
	hangs   chan struct{} // gets a token for each of the others
}

func (h *hanging) Read(ctx context.Context, ranges ...blockindex.Range) error {
	if h.rounds.Load() < h.answers {
		return h.memory.Read(ctx, ranges...)
	}
	h.hangs <- struct{}{}
	<-ctx.Done()
	return context.Cause(ctx)
}

func TestCloseEndsWhatIsReadAhead(t *testing.T) {
	_, src := open(t, writeIndex(t, clusterSeries(200)))
	h := &hanging{src, math.MaxInt64, make(chan struct{}, 1)}
	x, err := directories(t, t.TempDir(), 1<<20).Open(t.Context(), "x", h, 0)
	check(t, err)
	r := readAhead(t, x)
	h.answers = src.rounds.Load() + 1
	var e blockindex.Entry
	for range 10 { // the entries at hand come although the others hang
		if !next(t, r, &e) {
			t.Fatal(r.Err())
		}
	}
	select {
	case <-h.hangs:
	case <-time.After(30 * time.Second):
		t.Fatal("nothing is read ahead")
	}
	r.Close()
	r.Close()
}
