package pagecache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeBucket has objects that all have the same content, and counts what is asked of it.
type fakeBucket struct {
	content  []byte
	requests atomic.Int64
	bytes    atomic.Int64
	// wait, if set, is called before an answer.
	wait func(ctx context.Context) error
}

func (f *fakeBucket) GetRange(ctx context.Context, _ Object, off, length int64) (io.ReadCloser, error) {
	f.requests.Add(1)
	f.bytes.Add(length)
	if f.wait != nil {
		if err := f.wait(ctx); err != nil {
			return nil, err
		}
	}
	rest := f.content[min(off, int64(len(f.content))):]
	return io.NopCloser(bytes.NewReader(rest[:min(length, int64(len(rest)))])), nil
}

func newFake(size int) *fakeBucket {
	// A period that is no multiple of anything here: neighbours and pages differ.
	period := make([]byte, 2*pageSize+13)
	rand.New(rand.NewSource(1)).Read(period)
	f := &fakeBucket{content: make([]byte, size)}
	for at := 0; at < size; at += len(period) {
		copy(f.content[at:], period)
	}
	return f
}

func (f *fakeBucket) object() Object { return Object{Name: "x", Size: int64(len(f.content))} }

// took returns requests and bytes since the last call.
func (f *fakeBucket) took() (requests, bytes int64) {
	return f.requests.Swap(0), f.bytes.Swap(0)
}

// testOptions are Defaults with little patience.
func testOptions(memory int64) Options {
	o := Defaults()
	o.MemoryBytes, o.Concurrency, o.Patience = memory, 4, 5*time.Second
	return o
}

// newCache returns a cache whose buffers are spoilt when they come back. Over a fake,
// whose requests are counted, it makes no hedges, whatever the load of the machine.
func newCache(t testing.TB, b bucketRanges, o Options) *Cache {
	t.Helper()
	c, err := New(b, o, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := b.(*fakeBucket); ok {
		c.fetcher.pace.credit = -1e9
	}
	c.buffers.spoil = func(b []byte) { clear(b) }
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		for _, s := range c.memory.shards {
			if len(s.coming) > 0 {
				t.Errorf("%d pages are still awaited", len(s.coming))
			}
		}
	})
	return c
}

// memoryCost is what the pages in memory cost, counted from scratch.
func memoryCost(t testing.TB, c *Cache) (cost int64) {
	t.Helper()
	for _, s := range c.memory.shards {
		s.mu.Lock()
		var pages int64
		for _, p := range s.pages {
			pages += pageOverhead + int64(len(p.extents))*extentOverhead + p.extents.size()
		}
		if pages != s.small.cost+s.main.cost {
			t.Errorf("pages cost %d, the queues say %d", pages, s.small.cost+s.main.cost)
		}
		cost += pages
		s.mu.Unlock()
	}
	return cost
}

// mustRead reads and compares with the content.
func mustRead(t testing.TB, c *Cache, f *fakeBucket, off, n int64) {
	t.Helper()
	p := make([]byte, n)
	if err := c.Read(context.Background(), f.object(), p, off); err != nil {
		t.Fatalf("read %d at %d: %v", n, off, err)
	}
	if !bytes.Equal(p, f.content[off:off+n]) {
		t.Fatalf("read %d at %d: other bytes", n, off)
	}
}

// mustReadRanges reads ranges and compares them with the content.
func mustReadRanges(t testing.TB, c *Cache, f *fakeBucket, ranges []Range) {
	t.Helper()
	lease, err := c.ReadRanges(context.Background(), ranges)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range ranges {
		if !bytes.Equal(r.Bytes, f.content[r.Off:r.Off+r.Len]) {
			t.Fatalf("range of %d at %d of %s: other bytes", r.Len, r.Off, r.Object.Name)
		}
	}
	lease.Release()
}

func TestReadsCostWhatIsWantedAndComeFromMemoryTheSecondTime(t *testing.T) {
	f := newFake(10*pageSize + 123)
	c := newCache(t, f, testOptions(1<<30))
	for name, want := range map[string]struct{ off, n, requests, bytes int64 }{
		"1 a few bytes": {pageSize + 5, 300, 1, 300},
		"2 pages":       {2*pageSize - 7, 3 * pageSize, 1, 3 * pageSize},
		"3 the end":     {9 * pageSize, pageSize + 123, 1, pageSize + 123},
	} {
		f.took()
		mustRead(t, c, f, want.off, want.n)
		if requests, bytes := f.took(); requests != want.requests || bytes != want.bytes {
			t.Errorf("%s: %d requests for %d bytes, want %d for %d", name, requests, bytes, want.requests, want.bytes)
		}
		mustRead(t, c, f, want.off+1, want.n-2)
		if requests, _ := f.took(); requests != 0 {
			t.Errorf("%s: %d requests for what is in memory, want none", name, requests)
		}
	}
	mustRead(t, c, f, 0, f.object().Size)
	if _, bytes := f.took(); bytes > f.object().Size {
		t.Errorf("%d bytes were read to have all, want at most %d", bytes, f.object().Size)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	f := newFake(256 * pageSize)
	for _, limit := range []int64{0, 100, pageSize / 2, pageSize + 1000, 5 * pageSize, 12 << 20} {
		c := newCache(t, f, testOptions(limit))
		rnd := rand.New(rand.NewSource(limit))
		for range 600 {
			n := 1 + rnd.Int63n(2*pageSize)
			mustRead(t, c, f, rnd.Int63n(f.object().Size-n), n)
			if got := memoryCost(t, c); got > limit {
				t.Fatalf("%d bytes in memory, limit %d", got, limit)
			}
		}
		f.took()
		mustRead(t, c, f, 7, 100)
		mustRead(t, c, f, 7, 100)
		if requests, _ := f.took(); limit > pageSize && requests > 1 {
			t.Errorf("limit %d: the bytes used last took another request", limit)
		}
	}
}

// A scan of many times the memory must leave what is used again.
func TestAScanLeavesWhatIsUsed(t *testing.T) {
	f := newFake(200 * pageSize)
	c := newCache(t, f, testOptions(20*pageSize))
	const hot = 10 // pages at the end of the object
	useHot := func() (requests int64) {
		f.took()
		for i := range int64(hot) {
			mustRead(t, c, f, f.object().Size-(i+1)*pageSize, pageSize/2)
		}
		requests, _ = f.took()
		return requests
	}
	for range 4 {
		useHot()
	}
	for i := range int64(180) {
		mustRead(t, c, f, i*pageSize, pageSize/4)
		mustRead(t, c, f, i*pageSize+pageSize/4, pageSize/4) // a page that grows is not used again
	}
	if requests := useHot(); requests > hot/5 {
		t.Errorf("after a scan %d of %d hot pages had to be read again", requests, hot)
	}
}

func TestReadersOfTheSameBytesShareOneRequest(t *testing.T) {
	for name, memory := range map[string]int64{"with memory": 1 << 30, "without memory": 0} {
		t.Run(name, func(t *testing.T) {
			f := newFake(8 * pageSize)
			release := make(chan struct{})
			f.wait = func(context.Context) error { <-release; return nil }
			c := newCache(t, f, testOptions(memory))
			var done, started sync.WaitGroup
			for range 8 {
				started.Add(1)
				done.Go(func() {
					ranges := []Range{{Object: f.object(), Off: pageSize, Len: 4 * pageSize}, {Object: f.object(), Off: 2 * pageSize, Len: 100}}
					b := &batch{c: c, from: c.fetcher, usage: new(Usage), wants: []want{{Range: &ranges[0]}, {Range: &ranges[1]}}}
					for i := range b.wants {
						b.look(&b.wants[i])
					}
					started.Done()
					started.Wait() // all know who brings what
					parts, err := b.bring(t.Context())
					if err != nil {
						t.Error(err)
					}
					for _, w := range b.wants {
						if ok, err := b.wait(t.Context(), w.sources); !ok || err != nil {
							t.Errorf("wait: %v %v", ok, err)
						}
					}
					b.assemble(b.wants, parts)
					for _, r := range ranges {
						if !bytes.Equal(r.Bytes, f.content[r.Off:r.Off+r.Len]) {
							t.Errorf("%d bytes at %d: other bytes", r.Len, r.Off)
						}
					}
				})
			}
			started.Wait()
			close(release)
			done.Wait()
			// Which of them brings which page is open.
			if _, bytes := f.took(); bytes != 4*pageSize {
				t.Errorf("%d bytes were asked for, want each once: %d", bytes, 4*pageSize)
			}
		})
	}
}

func TestAReaderOutlivesTheImpatienceOfAnother(t *testing.T) {
	f := newFake(4 * pageSize)
	arrived := make(chan struct{})
	f.wait = func(ctx context.Context) error {
		if f.requests.Load() > 1 {
			return nil
		}
		close(arrived)
		<-ctx.Done()
		return ctx.Err()
	}
	o := testOptions(1 << 30)
	o.Concurrency = 1 // no hedge
	c := newCache(t, f, o)
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { first <- c.Read(ctx, f.object(), make([]byte, pageSize), 0) }()
	<-arrived
	var wg sync.WaitGroup
	wg.Go(func() { mustRead(t, c, f, 0, 2*pageSize) })
	cancel()
	wg.Wait()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the first reader got %v, want %v", err, context.Canceled)
	}
}

func TestShortObjectsAreErrorsAndNotKept(t *testing.T) {
	f := newFake(3 * pageSize)
	o := testOptions(1 << 30)
	o.Attempts = 2
	c := newCache(t, f, o)
	object := Object{Name: "x", Size: 4 * pageSize}
	p := make([]byte, 2*pageSize)
	for range 2 {
		if err := c.Read(t.Context(), object, p, 2*pageSize); !errors.Is(err, ErrShort) {
			t.Errorf("error is %v, want %v", err, ErrShort)
		}
	}
	if cost := memoryCost(t, c); cost != 0 {
		t.Errorf("%d bytes are kept", cost)
	}
	for _, r := range []Range{{Off: object.Size - 1, Len: 2}, {Off: -1, Len: 1}, {Off: 1 << 62, Len: 1 << 62}, {Off: 1, Len: -1}} {
		r.Object = object
		if _, err := c.ReadRanges(t.Context(), []Range{r}); !errors.Is(err, ErrShort) {
			t.Errorf("%d bytes at %d: error is %v, want %v", r.Len, r.Off, err, ErrShort)
		}
	}
}

func TestForgottenBytesAreReadAgain(t *testing.T) {
	f := newFake(4 * pageSize)
	c := newCache(t, f, testOptions(1<<30))
	mustRead(t, c, f, 0, 4*pageSize)
	f.content[pageSize+1] ^= 1
	c.Forget(f.object(), pageSize+1, 2)
	f.took()
	mustRead(t, c, f, 0, 4*pageSize)
	if _, bytes := f.took(); bytes != pageSize {
		t.Errorf("%d bytes were read, want %d", bytes, pageSize)
	}
}

func TestObjectsOfOneNameAreToldApart(t *testing.T) {
	f := newFake(pageSize)
	c := newCache(t, f, testOptions(1<<30))
	o := f.object()
	for _, o := range []Object{o, {Name: o.Name, Size: o.Size, Version: "2"}, {Name: "y", Size: o.Size}} {
		mustReadRanges(t, c, f, []Range{{Object: o, Off: 1, Len: 5}})
		if requests, _ := f.took(); requests != 1 {
			t.Errorf("%v: %d requests, want 1", o, requests)
		}
	}
}

func TestUsageSaysWhereBytesCameFrom(t *testing.T) {
	f := newFake(8 * pageSize)
	c := newCache(t, f, testOptions(1<<30))
	u := new(Usage)
	ctx := WithUsage(t.Context(), u)
	for range 2 {
		lease, err := c.ReadRanges(ctx, []Range{{Object: f.object(), Off: 10, Len: 1000}, {Object: f.object(), Off: 2 * pageSize, Len: 50}})
		if err != nil {
			t.Fatal(err)
		}
		lease.Release()
	}
	if err := c.Read(ctx, f.object(), make([]byte, 10), 20); err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]struct{ got, want int64 }{
		"ranges":      {u.Ranges.Load(), 5},
		"needed":      {u.Needed.Load(), 2110},
		"from memory": {u.FromMemory.Load(), 1060},
		"fetched":     {u.Fetched.Load(), f.bytes.Load()},
		"requests":    {u.Requests.Load(), f.requests.Load()},
	} {
		if n.got != n.want {
			t.Errorf("%s: %d, want %d", name, n.got, n.want)
		}
	}
	if u.Waited.Load() <= 0 {
		t.Error("no time was waited")
	}
}

// Any ranges, in any order, over any memory, give the object's bytes.
func TestRangesAtRandomAreRight(t *testing.T) {
	f := newFake(300*pageSize + 17)
	for name, memory := range map[string]int64{"no memory": 0, "little memory": 40 * pageSize, "all in memory": 1 << 30} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(memory)
			o.PartBytes = minPart
			c := newCache(t, f, o)
			var wg sync.WaitGroup
			for seed := range int64(4) {
				wg.Go(func() {
					rnd := rand.New(rand.NewSource(seed))
					for range 20 {
						mustReadRanges(t, c, f, randomRanges(rnd, f.object()))
					}
				})
			}
			wg.Wait()
		})
	}
}

// randomRanges wants bytes of three objects: many small runs, some of them twice,
// and now and then a long one.
func randomRanges(rnd *rand.Rand, o Object) []Range {
	near := rnd.Int63n(o.Size)
	ranges := make([]Range, 1+rnd.Intn(40))
	for i := range ranges {
		r := Range{Object: o, Off: near + rnd.Int63n(1<<17) - 1<<16, Len: rnd.Int63n(2000)}
		r.Object.Name = string("abc"[rnd.Intn(3)])
		switch rnd.Intn(12) {
		case 0:
			r.Off = rnd.Int63n(o.Size)
		case 1:
			r.Len = rnd.Int63n(1 << (15 + rnd.Intn(8)))
		case 2:
			if i > 0 {
				r = ranges[i-1]
			}
		}
		r.Off = min(max(r.Off, 0), o.Size)
		r.Len = min(r.Len, o.Size-r.Off)
		ranges[i] = r
	}
	return ranges
}

func TestLeasesAreCounted(t *testing.T) {
	f := newFake(4 * pageSize)
	c := newCache(t, f, testOptions(0))
	ranges := []Range{{Object: f.object(), Off: 0, Len: pageSize}}
	lease, err := c.ReadRanges(t.Context(), ranges)
	if err != nil {
		t.Fatal(err)
	}
	if lease.Size() < pageSize {
		t.Errorf("the lease holds %d bytes, want %d at least", lease.Size(), pageSize)
	}
	lease.Retain()
	lease.Release()
	if !bytes.Equal(ranges[0].Bytes, f.content[:pageSize]) {
		t.Error("the bytes of a lease that is held were overwritten")
	}
	lease.Release()
	if bytes.Equal(ranges[0].Bytes, f.content[:pageSize]) {
		t.Error("the buffer of a lease that was released is not used again")
	}
	defer func() {
		if recover() == nil {
			t.Error("a lease can be released more often than retained")
		}
	}()
	lease.Release()
}

func BenchmarkRead(b *testing.B) {
	f := newFake(64 * pageSize)
	c := newCache(b, f, testOptions(1<<30))
	p := make([]byte, 4<<10)
	mustRead(b, c, f, 0, f.object().Size)
	b.ReportAllocs()
	b.SetBytes(int64(len(p)))
	for i := int64(0); b.Loop(); i++ {
		if err := c.Read(b.Context(), f.object(), p, i%64*pageSize+5); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadRanges(b *testing.B) {
	f := newFake(256 * pageSize)
	for name, memory := range map[string]int64{"hits": 1 << 30, "misses": 0} {
		b.Run(name, func(b *testing.B) {
			c := newCache(b, f, testOptions(memory))
			c.buffers.spoil = nil
			ranges := make([]Range, 0, 1000)
			for i := range int64(cap(ranges)) { // 300 bytes of every 15 KiB
				ranges = append(ranges, Range{Object: f.object(), Off: i * 15 << 10, Len: 300})
			}
			mustReadRanges(b, c, f, ranges)
			b.ReportAllocs()
			for b.Loop() {
				lease, err := c.ReadRanges(b.Context(), ranges)
				if err != nil {
					b.Fatal(err)
				}
				lease.Release()
			}
		})
	}
}
