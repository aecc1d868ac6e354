package pagecache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/varve-io/varve/pkg/bucket"
)

// pause passes time, which is virtual in these tests.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// remote is a bucket that is far away: content comes after first, at bandwidth
// bytes a second, unless misfortune does something else to the n-th request.
type remote struct {
	content   []byte
	first     time.Duration
	bandwidth int64
	// misfortune may wait, and may return an error, or how many bytes the answer lacks.
	misfortune func(ctx context.Context, n int64) (lacks int64, err error)

	requests, flying, mostFlying atomic.Int64
}

func (r *remote) GetRange(ctx context.Context, _ Object, off, length int64) (io.ReadCloser, error) {
	n := r.requests.Add(1)
	flying := r.flying.Add(1)
	for most := r.mostFlying.Load(); flying > most && !r.mostFlying.CompareAndSwap(most, flying); most = r.mostFlying.Load() {
	}
	body, err := r.answer(ctx, n, off, length)
	if err != nil {
		r.flying.Add(-1)
		return nil, err
	}
	return body, nil
}

func (r *remote) answer(ctx context.Context, n, off, length int64) (io.ReadCloser, error) {
	if err := pause(ctx, r.first); err != nil {
		return nil, err
	}
	if r.misfortune != nil {
		lacks, err := r.misfortune(ctx, n)
		if err != nil {
			return nil, err
		}
		length = max(0, length-lacks)
	}
	return &slowBody{ctx: ctx, rest: bytes.NewReader(r.content[min(off, int64(len(r.content))):min(off+length, int64(len(r.content)))]), r: r}, nil
}

// slowBody comes in pieces of 64 KiB.
type slowBody struct {
	ctx  context.Context //nolint:containedctx // that of the request, as in an HTTP body
	rest *bytes.Reader
	r    *remote
}

func (b *slowBody) Read(p []byte) (int, error) {
	n, err := b.rest.Read(p[:min(len(p), 64<<10)])
	if err := pause(b.ctx, time.Duration(int64(n)*int64(time.Second)/b.r.bandwidth)); err != nil {
		return 0, err
	}
	return n, err
}

func (b *slowBody) Close() error {
	b.r.flying.Add(-1)
	return nil
}

func newRemote(size int) *remote {
	return &remote{content: newFake(size).content, first: 20 * time.Millisecond, bandwidth: 90e6}
}

func (r *remote) object(name string) Object {
	return Object{Name: name, Size: int64(len(r.content))}
}

func (r *remote) mustRead(t *testing.T, c *Cache, ranges ...Range) {
	t.Helper()
	sameBytes(t, c, r.content, ranges)
}

// sameBytes reads ranges through a cache, or a stream of one, and compares them with the content.
func sameBytes(t testing.TB, from interface {
	ReadRanges(ctx context.Context, ranges []Range) (*Lease, error)
}, content []byte, ranges []Range,
) {
	t.Helper()
	lease, err := from.ReadRanges(t.Context(), ranges)
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Release()
	for _, r := range ranges {
		if !bytes.Equal(r.Bytes, content[r.Off:r.Off+r.Len]) {
			t.Fatalf("%d bytes at %d: other bytes", r.Len, r.Off)
		}
	}
}

func (r *remote) page(i int) Range {
	return Range{Object: r.object(fmt.Sprint("object ", i)), Off: 5, Len: 1000}
}

// faults are those of the issue: refused, hanging and truncated requests.
func faults(ctx context.Context, rnd *rand.Rand, mu *sync.Mutex) (lacks int64, err error) {
	mu.Lock()
	dice, part := rnd.Intn(100), 1+rnd.Int63n(1000)
	mu.Unlock()
	switch {
	case dice < 5:
		return 0, fmt.Errorf("503: %w", bucket.ErrThrottled)
	case dice < 6:
		<-ctx.Done()
		return 0, ctx.Err()
	case dice < 7:
		return part, nil
	}
	return 0, nil
}

func TestFaultsOfBucketAndDiskNeverChangeAnswers(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := newRemote(60 * pageSize)
		var mu sync.Mutex
		rnd := rand.New(rand.NewSource(3))
		r.misfortune = func(ctx context.Context, _ int64) (int64, error) { return faults(ctx, rnd, &mu) }
		o := diskOptions(dir)
		o.MemoryBytes = 8 * pageSize // so that the disk is read
		c := newCache(t, r, o)
		var wg sync.WaitGroup
		for seed := range int64(4) {
			wg.Go(func() {
				rnd := rand.New(rand.NewSource(seed))
				for range 80 {
					ranges := randomRanges(rnd, r.object(""))
					r.mustRead(t, c, ranges...)
				}
			})
		}
		wg.Go(func() {
			rnd := rand.New(rand.NewSource(9))
			for range 40 {
				_ = pause(t.Context(), 100*time.Millisecond)
				for _, path := range segmentFiles(t, dir) {
					flipBits(t, rnd, path)
				}
			}
		})
		wg.Wait()
		for name, n := range map[string]float64{
			"retries": testutil.ToFloat64(c.metrics.retries), "throttled": testutil.ToFloat64(c.metrics.throttled),
			"hedges": testutil.ToFloat64(c.metrics.hedges), "from disk": testutil.ToFloat64(c.metrics.disk),
			"corrupt": testutil.ToFloat64(c.metrics.diskCorrupt),
		} {
			if n == 0 {
				t.Errorf("the test saw no %s", name)
			}
		}
	})
}

// flipBits changes a file in place.
func flipBits(t *testing.T, rnd *rand.Rand, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return // it has left meanwhile
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Error(err)
		return
	}
	for range 1 + info.Size()/100_000 {
		at := rnd.Int63n(info.Size())
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, at); err != nil {
			continue
		}
		b[0] ^= 1 << rnd.Intn(8)
		if _, err := f.WriteAt(b, at); err != nil {
			t.Error(err)
		}
	}
}

func TestALateAnswerIsOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote(pageSize)
		r.misfortune = func(ctx context.Context, n int64) (int64, error) {
			if n%50 == 0 {
				<-ctx.Done()
				return 0, ctx.Err()
			}
			return 0, nil
		}
		o := testOptions(0)
		o.Patience = 24 * time.Hour
		c := newCache(t, r, o)
		start := time.Now()
		for i := range 500 {
			r.mustRead(t, c, r.page(i))
		}
		if took := time.Since(start); took > time.Hour {
			t.Errorf("500 reads took %s: nobody overtook those that hang", took)
		}
		if n := testutil.ToFloat64(c.metrics.hedgesWon); n < 5 {
			t.Errorf("%v hedges won, want one for each that hangs", n)
		}
	})
}

func TestHedgesAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote(pageSize)
		r.misfortune = func(ctx context.Context, n int64) (int64, error) {
			return 0, pause(ctx, time.Duration(n%3)*time.Second) // most answers are late
		}
		c := newCache(t, r, testOptions(0))
		const reads = 400
		for i := range reads {
			r.mustRead(t, c, r.page(i))
		}
		if n := testutil.ToFloat64(c.metrics.hedges); n > reads*hedgeShare+hedgeBurst {
			t.Errorf("%v of %d requests were hedged", n, reads)
		}
	})
}

func TestAHangEndsByPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote(pageSize)
		r.misfortune = func(ctx context.Context, _ int64) (int64, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		}
		o := testOptions(0)
		o.Attempts = 2
		c := newCache(t, r, o)
		_, err := c.ReadRanges(t.Context(), []Range{r.page(1)})
		if !errors.Is(err, errHangs) {
			t.Errorf("error is %v, want %v", err, errHangs)
		}
	})
}

func TestThrottlingLowersConcurrencyUntilItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote(pageSize)
		const most = 5
		var open atomic.Bool
		r.misfortune = func(context.Context, int64) (int64, error) {
			if r.flying.Load() > most && !open.Load() {
				return 0, fmt.Errorf("SlowDown: %w", bucket.ErrThrottled)
			}
			return 0, nil
		}
		o := testOptions(0)
		o.Concurrency, o.Attempts = 64, 20
		c := newCache(t, r, o)
		read := func() {
			ranges := make([]Range, 64)
			for i := range ranges {
				ranges[i] = r.page(i)
			}
			r.mustRead(t, c, ranges...)
		}
		read()
		for range 5 {
			r.mostFlying.Store(0)
			read()
		}
		if n := r.mostFlying.Load(); n > 3*most {
			t.Errorf("%d requests in flight at a bucket that stands %d", n, most)
		}
		open.Store(true)
		for range 100 {
			read()
		}
		if limit := testutil.ToFloat64(c.metrics.concurrency); limit != 64 {
			t.Errorf("%v requests are allowed long after the last complaint, want 64", limit)
		}
	})
}

func TestErrorsThatStayAreReturnedAtOnce(t *testing.T) {
	for _, want := range []error{bucket.ErrNotFound, bucket.ErrAccessDenied, errors.New("who knows")} {
		f := newFake(pageSize)
		f.wait = func(context.Context) error { return want }
		c := newCache(t, f, testOptions(0))
		if err := c.Read(t.Context(), f.object(), make([]byte, 5), 0); !errors.Is(err, want) {
			t.Errorf("error is %v, want %v", err, want)
		}
		if requests, _ := f.took(); requests != 1 {
			t.Errorf("%v: %d requests, want 1", want, requests)
		}
	}
}

func TestThePaceOfTheBucketIsLearned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote(8 << 20)
		r.first, r.bandwidth = 100*time.Millisecond, 10e6
		c := newCache(t, r, testOptions(0))
		always, most := c.fetcher.pace.gaps()
		for i := range 60 {
			r.mustRead(t, c, Range{Object: r.object(strconv.Itoa(i)), Len: 1 << 20})
		}
		within := func(what string, got, want float64) {
			t.Helper()
			if got < want*0.8 || got > want*1.2 {
				t.Errorf("%s is learned as %v, want about %v", what, got, want)
			}
		}
		// The first of the pieces that a body comes in counts as its first byte.
		within("first byte", testutil.ToFloat64(c.metrics.firstByte), 0.1)
		within("bandwidth", testutil.ToFloat64(c.metrics.bandwidth), 10e6)
		nowAlways, nowMost := c.fetcher.pace.gaps()
		if nowMost >= most || nowAlways >= always {
			t.Errorf("gaps are %d and %d, were %d and %d: a slower bucket makes bytes dearer", nowAlways, nowMost, always, most)
		}
	})
}

func TestSlotsAreGivenInOrderAndNeverLost(t *testing.T) {
	f := newFake(1)
	c := newCache(t, f, testOptions(0))
	s := newSlots(3, c.metrics)
	var wg sync.WaitGroup
	var used, most atomic.Int64
	for seed := range int64(16) {
		wg.Go(func() {
			rnd := rand.New(rand.NewSource(seed))
			for range 200 {
				ctx, cancel := context.WithCancel(t.Context())
				if rnd.Intn(3) == 0 {
					go cancel()
				}
				if s.acquire(ctx) == nil {
					if n := used.Add(1); n > most.Load() {
						most.Store(n)
					}
					if rnd.Intn(3) == 0 {
						s.throttled(time.Now(), time.Now())
					} else {
						s.succeeded()
					}
					used.Add(-1)
					s.release()
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if s.used != 0 || s.waiting.Len() != 0 || most.Load() > 3 {
		t.Errorf("%d slots are used, %d wait, %d were used at once", s.used, s.waiting.Len(), most.Load())
	}
}
