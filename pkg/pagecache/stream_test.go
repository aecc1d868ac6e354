package pagecache

import (
	"context"
	"fmt"
	"io"
	"math/rand"
	"net/http/httptrace"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// readAll reads ranges through a stream and compares them with the content.
func (f *fakeBucket) readAll(t testing.TB, s *Stream, ranges ...Range) {
	t.Helper()
	for i := range ranges {
		ranges[i].Object = f.object()
	}
	sameBytes(t, s, f.content, ranges)
}

// until is an object that will be read up to a place.
func until(end int64) func(Object, int64) int64 {
	return func(Object, int64) int64 { return end }
}

func TestAStreamReadsManyStepsFromOneAnswer(t *testing.T) {
	f := newFake(64 * pageSize)
	c := newCache(t, f, testOptions(0))
	const begin, end = 3, 2_600_003
	s := c.Stream(until(end))
	defer s.Close()
	for at := int64(begin); at < end; at += 100_000 {
		f.readAll(t, s, Range{Off: at, Len: 50_000}, Range{Off: at + 50_000, Len: 50_000})
	}
	if requests, got := f.took(); requests != 1 || got != end-begin {
		t.Errorf("%d requests for %d bytes, want one for %d", requests, got, end-begin)
	}
	if s.Flows() {
		t.Error("an answer that was read to its end goes on")
	}
	// Backwards, and far ahead, a step asks by itself.
	f.readAll(t, s, Range{Off: 0, Len: 10})
	f.readAll(t, s, Range{Off: 50 * pageSize, Len: 10}, Range{Off: 60 * pageSize, Len: 10})
	if requests, _ := f.took(); requests < 2 {
		t.Errorf("%d requests, want more", requests)
	}
}

func TestALongAnswerIsBounded(t *testing.T) {
	f := newFake(96 * pageSize)
	o := testOptions(0)
	o.PartBytes = minPart // 16 pages
	c := newCache(t, f, o)
	s := c.Stream(until(96 * pageSize))
	defer s.Close()
	for at := int64(0); at < 96*pageSize; at += pageSize {
		f.readAll(t, s, Range{Off: at, Len: pageSize})
	}
	if requests, got := f.took(); requests != 3 || got != 96*pageSize {
		t.Errorf("%d requests for %d bytes, want 3 for all", requests, got)
	}
}

// TestStreamsBringTheSameBytes reads random steps, in order and not, over caches of all
// kinds, with answers that break in their middle.
func TestStreamsBringTheSameBytes(t *testing.T) {
	for name, o := range map[string]Options{
		"nothing is kept": testOptions(0),
		"in memory":       testOptions(1 << 20),
		"on disk":         diskOptions(filepath.Join(t.TempDir(), "pages")),
	} {
		t.Run(name, func(t *testing.T) {
			f := &breaking{fakeBucket: newFake(64 * pageSize)}
			c := newCache(t, f, o)
			c.fetcher.pace.credit = -1e9
			for seed := range int64(8) {
				f.every.Store(seed % 4 * 700_000)
				rnd := rand.New(rand.NewSource(seed))
				s := c.Stream(func(_ Object, off int64) int64 { return off + rnd.Int63n(20*pageSize) })
				for at := int64(0); at < 60*pageSize; {
					var ranges []Range
					for range 1 + rnd.Intn(5) {
						n := 1 + rnd.Int63n(pageSize)
						ranges = append(ranges, Range{Off: at, Len: n})
						if at += n; rnd.Intn(3) == 0 {
							at += rnd.Int63n(3 * pageSize)
						}
						at = min(at, 62*pageSize)
					}
					f.readAll(t, s, ranges...)
					if rnd.Intn(20) == 0 {
						at = max(0, at-10*pageSize)
					}
				}
				s.Close()
			}
		})
	}
}

// breaking breaks an answer after so many bytes, if that is not 0, but never at once.
type breaking struct {
	*fakeBucket
	every atomic.Int64
}

func (b *breaking) GetRange(ctx context.Context, o Object, off, length int64) (io.ReadCloser, error) {
	rc, err := b.fakeBucket.GetRange(ctx, o, off, length)
	if every := b.every.Load(); err == nil && every > 0 && length > every {
		return io.NopCloser(io.MultiReader(io.LimitReader(rc, every), errReader{io.ErrUnexpectedEOF})), nil
	}
	return rc, err
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func TestAStreamEndsWithItsRequest(t *testing.T) {
	f := newFake(64 * pageSize)
	c := newCache(t, f, testOptions(0))
	s := c.Stream(until(40 * pageSize))
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := s.ReadRanges(ctx, []Range{{Object: f.object(), Len: 10}}); err != nil {
		t.Fatal(err)
	}
	if !s.Flows() {
		t.Fatal("no answer goes on")
	}
	flow := s.flow
	cancel()
	if flow.ctx.Err() == nil {
		t.Error("the answer outlives the request")
	}
	s.Close()
	s.Close()
}

// TestAHedgeOfAStepLeavesTheAnswer lets an answer stall in its second step, which a second
// request then brings.
func TestAHedgeOfAStepLeavesTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(64 * pageSize)
		b := &stalling{fakeBucket: f, after: 10_000}
		c := newCache(t, b, testOptions(0))
		s := c.Stream(until(40 * pageSize))
		defer s.Close()
		f.readAll(t, s, Range{Off: 0, Len: 5_000})
		f.readAll(t, s, Range{Off: 5_000, Len: 50_000})
		f.readAll(t, s, Range{Off: 55_000, Len: 50_000})
		if b.stalled.Load() != 1 {
			t.Errorf("%d answers stalled, want the first", b.stalled.Load())
		}
		if hedges := testutil.ToFloat64(c.metrics.hedgesWon); hedges != 1 {
			t.Errorf("%v hedges won, want 1", hedges)
		}
	})
}

// stalling lets the first answer stall after so many bytes, until its request ends.
type stalling struct {
	*fakeBucket
	after   int64
	stalled atomic.Int64
}

func (b *stalling) GetRange(ctx context.Context, o Object, off, length int64) (io.ReadCloser, error) {
	rc, err := b.fakeBucket.GetRange(ctx, o, off, length)
	if err != nil || b.requests.Load() > 1 {
		return rc, err
	}
	return io.NopCloser(io.MultiReader(io.LimitReader(rc, b.after), stalls{ctx, b})), nil
}

type stalls struct {
	ctx context.Context //nolint:containedctx // of the request that it belongs to
	b   *stalling
}

func (s stalls) Read([]byte) (int, error) {
	s.b.stalled.Add(1)
	<-s.ctx.Done()
	return 0, fmt.Errorf("read on: %w", context.Cause(s.ctx))
}

func TestRetriesOfTheClientDoNotMakeTheBucketSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(64 * pageSize)
		f.wait = func(ctx context.Context) error {
			trace := httptrace.ContextClientTrace(ctx)
			for _, pause := range []time.Duration{3 * time.Second, 10 * time.Millisecond} { // a refusal, an answer
				trace.GetConn("bucket:443")
				time.Sleep(pause) //nolint:forbidigo // of the time of this test's bubble
			}
			return nil
		}
		c := newCache(t, f, testOptions(0))
		for i := range int64(50) {
			mustRead(t, c, f, i*pageSize, 1000)
		}
		if got := testutil.ToFloat64(c.metrics.firstByte); got > 0.012 {
			t.Errorf("the first byte is learned to take %v s, want 0.01", got)
		}
	})
}

// TestWaitingAnswersMakeRoom has a client with four connections, and streams that hold all.
func TestWaitingAnswersMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(64 * pageSize)
		b := &narrow{fakeBucket: f, free: make(chan struct{}, 4)}
		c := newCache(t, b, testOptions(0))
		var all []*Stream
		for range cap(b.free) {
			s := c.Stream(until(40 * pageSize))
			defer s.Close()
			f.readAll(t, s, Range{Off: 0, Len: 10})
			all = append(all, s)
		}
		mustRead(t, c, f, 50*pageSize, 10) // hangs until there is a connection
		synctest.Wait()                    // for the other answers to be given up
		for _, s := range all {
			f.readAll(t, s, Range{Off: 10, Len: 1000})
			if s.Flows() {
				t.Error("another long answer was asked for")
			}
		}
		time.Sleep(2 * firstWithout) //nolint:forbidigo // of the time of this test's bubble
		f.readAll(t, all[0], Range{Off: 2000, Len: 1000})
		if !all[0].Flows() {
			t.Error("there are no long answers any more")
		}
	})
}

// narrow answers as long as connections are free.
type narrow struct {
	*fakeBucket
	free chan struct{}
}

func (b *narrow) GetRange(ctx context.Context, o Object, off, length int64) (io.ReadCloser, error) {
	select {
	case b.free <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for a connection: %w", context.Cause(ctx))
	}
	rc, err := b.fakeBucket.GetRange(ctx, o, off, length)
	return &connection{Reader: rc, end: sync.OnceFunc(func() { <-b.free })}, err
}

type connection struct {
	io.Reader
	end func()
}

func (c *connection) Close() error {
	c.end()
	return nil
}
