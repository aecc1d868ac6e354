package pagecache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeRanges is a bucket with one object that counts what is asked of it.
type fakeRanges struct {
	content  []byte
	requests atomic.Int64
	bytes    atomic.Int64
	// wait, if set, is called before an answer.
	wait func(ctx context.Context) error
}

func (f *fakeRanges) GetRange(ctx context.Context, _ string, off, length int64) (io.ReadCloser, error) {
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

func newFake(size int) *fakeRanges {
	f := &fakeRanges{content: make([]byte, size)}
	rand.New(rand.NewSource(1)).Read(f.content)
	return f
}

func newCache(t testing.TB, f *fakeRanges, maxBytes int64) *Cache {
	t.Helper()
	c, err := New(f, Options{MaxBytes: maxBytes, Concurrency: 4}, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (f *fakeRanges) object() Object { return Object{Name: "x", Size: int64(len(f.content))} }

// mustRead reads and compares with the content.
func mustRead(t testing.TB, c *Cache, f *fakeRanges, off, n int64) {
	t.Helper()
	p := make([]byte, n)
	if err := c.Read(context.Background(), f.object(), p, off); err != nil {
		t.Fatalf("read %d at %d: %v", n, off, err)
	}
	if !bytes.Equal(p, f.content[off:off+n]) {
		t.Fatalf("read %d at %d: other bytes", n, off)
	}
}

func TestReadsComeFromMemoryTheSecondTime(t *testing.T) {
	f := newFake(10*pageSize + 123)
	c := newCache(t, f, 1<<30)
	mustRead(t, c, f, pageSize+5, 3*pageSize)
	if got := f.requests.Load(); got != 1 {
		t.Errorf("neighbouring pages took %d requests, want 1", got)
	}
	mustRead(t, c, f, pageSize+500, pageSize)
	mustRead(t, c, f, pageSize+5, 3*pageSize)
	if got := f.requests.Load(); got != 1 {
		t.Errorf("pages in memory took %d requests more, want none", got-1)
	}
	mustRead(t, c, f, 0, f.object().Size) // all, the end of an unfull page included
	if got := f.requests.Load(); got != 3 {
		t.Errorf("the two runs that were missing took %d requests, want 2", got-1)
	}
	mustRead(t, c, f, 0, f.object().Size)
	if got, want := f.bytes.Load(), f.object().Size; got != want {
		t.Errorf("%d bytes were asked for, want each once: %d", got, want)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	f := newFake(64 * pageSize)
	for _, limit := range []int64{0, pageSize / 2, pageSize, 5 * pageSize} {
		c := newCache(t, f, limit)
		for i := range int64(64) {
			mustRead(t, c, f, i*pageSize, pageSize)
			if c.bytes > limit {
				t.Fatalf("%d bytes in memory, limit %d", c.bytes, limit)
			}
		}
		before := f.requests.Load()
		mustRead(t, c, f, 63*pageSize, pageSize)
		if got, want := f.requests.Load()-before, int64(0); limit >= pageSize && got != want {
			t.Errorf("limit %d: the page used last took %d requests, want %d", limit, got, want)
		}
	}
}

func TestReadersOfTheSamePagesShareOneRequest(t *testing.T) {
	f := newFake(8 * pageSize)
	release := make(chan struct{})
	f.wait = func(context.Context) error { <-release; return nil }
	c := newCache(t, f, 1<<30)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { mustRead(t, c, f, pageSize, 4*pageSize) })
	}
	close(release)
	wg.Wait()
	if got := f.requests.Load(); got != 1 {
		t.Errorf("%d requests, want 1", got)
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
	c := newCache(t, f, 1<<30)
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
	c := newCache(t, f, 1<<30)
	o := Object{Name: "x", Size: 4 * pageSize}
	p := make([]byte, 2*pageSize)
	for range 2 {
		if err := c.Read(t.Context(), o, p, 2*pageSize); !errors.Is(err, ErrShort) {
			t.Errorf("error is %v, want %v", err, ErrShort)
		}
	}
	if c.bytes != 0 || len(c.coming) != 0 {
		t.Errorf("%d bytes and %d flights are left", c.bytes, len(c.coming))
	}
	if err := c.Read(t.Context(), o, p, o.Size-1); !errors.Is(err, ErrShort) {
		t.Errorf("past the end: error is %v, want %v", err, ErrShort)
	}
}

func TestForgottenPagesAreReadAgain(t *testing.T) {
	f := newFake(4 * pageSize)
	c := newCache(t, f, 1<<30)
	mustRead(t, c, f, 0, 4*pageSize)
	c.Forget(f.object(), pageSize+1, 2)
	mustRead(t, c, f, 0, 4*pageSize)
	if got, want := f.bytes.Load(), int64(5*pageSize); got != want {
		t.Errorf("%d bytes were read, want %d", got, want)
	}
}

func TestReadsAtRandomAreRight(t *testing.T) {
	f := newFake(40*pageSize + 17)
	c := newCache(t, f, 10*pageSize)
	var wg sync.WaitGroup
	for seed := range int64(4) {
		wg.Go(func() {
			rnd := rand.New(rand.NewSource(seed))
			for range 300 {
				off := rnd.Int63n(f.object().Size)
				mustRead(t, c, f, off, rnd.Int63n(min(f.object().Size-off, 6*pageSize)+1))
			}
		})
	}
	wg.Wait()
	if len(c.coming) != 0 {
		t.Errorf("%d flights are left", len(c.coming))
	}
}
