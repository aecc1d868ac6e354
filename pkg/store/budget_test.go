package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"

	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
)

// serve puts a gateway behind gRPC and returns a client.
func serve(t testing.TB, g *Gateway) *storeapi.Client {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(storeapi.ServerOption())
	storeapi.Register(g, storeapi.ServerOptions{})(server)
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(l) }) // ends with Stop
	conn, err := storeapi.Dial(l.Addr().String(), storeapi.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		served.Wait()
	})
	client, err := storeapi.NewClient(conn, "store", storeapi.Defaults())
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// TestManyHugeLabelRequestsStayWithinTheBudget has so many at once that they would hold
// several times the budget.
func TestManyHugeLabelRequestsStayWithinTheBudget(t *testing.T) {
	const (
		requests, values = 16, 8_000
		mib              = 1 << 20
	)
	s := blocktest.Spec{Labels: map[string]string{"cluster": "eu"}, MinTime: 0, MaxTime: hour}
	for i := range values {
		s.Series = append(s.Series, blocktest.Floats(labels.FromStrings("__name__", "up", "job", fmt.Sprintf("%0400d", i)), 0, 15_000, 1))
	}
	bkt := bucket.NewMemory()
	g := open(t, bkt, func(o *Options) {
		o.RequestBytes, o.MemoryBytes, o.Cache.MemoryBytes, o.MaxConcurrency = 32*mib, 32*mib, 0, 100
	}, add(t, bkt, s))
	client := serve(t, g)

	defer debug.SetGCPercent(debug.SetGCPercent(50))
	before := liveHeap()
	var most atomic.Uint64
	over := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			most.Store(max(most.Load(), liveHeap()))
			select {
			case <-over:
				return
			case <-tick.C:
			}
		}
	})
	var wg sync.WaitGroup
	for i := range requests {
		wg.Go(func() {
			req := &storeapi.LabelsRequest{MaxTime: hour}
			if i%2 == 0 {
				req.Matchers = []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "job", "0.+[0-9]")}
			}
			got, _, err := client.LabelValues(t.Context(), "job", req)
			if err != nil || len(got) != values {
				t.Errorf("%d values of %d (%v)", len(got), values, err)
			}
		})
	}
	wg.Wait()
	close(over)
	watch.Wait()
	if grown := int64(most.Load() - before); grown > 80*mib {
		t.Errorf("%d requests for labels took %d MiB, want the budget of 32 MiB and what the clients hold", requests, grown/mib)
	}
	if got, _, err := client.LabelValues(t.Context(), "job", &storeapi.LabelsRequest{MaxTime: hour}); err != nil || len(got) != values {
		t.Errorf("after them: %d values (%v)", len(got), err)
	}
}

// liveHeap is what was alive when garbage was last looked for.
func liveHeap() uint64 {
	s := []runtimemetrics.Sample{{Name: "/gc/heap/live:bytes"}}
	runtimemetrics.Read(s)
	return s[0].Value.Uint64()
}

func TestLabelRequestsBeyondTheirMemorySayWhatToChange(t *testing.T) {
	bkt := bucket.NewMemory()
	g := open(t, bkt, func(o *Options) { o.RequestBytes = minRequestBytes }, add(t, bkt, ups(3000, 0, hour/60, 1)))
	of := func(limit int, job string) *storeapi.LabelsRequest {
		return &storeapi.LabelsRequest{MaxTime: hour, Limit: limit, Matchers: []*labels.Matcher{
			labels.MustNewMatcher(labels.MatchEqual, "__name__", "up"), labels.MustNewMatcher(labels.MatchRegexp, "job", job),
		}}
	}
	_, _, err := g.LabelValues(t.Context(), "job", of(0, ".+"))
	for _, want := range []string{`{__name__="up",job=~".+"} needs`, "bytes of memory for labels or more, half of " + flagMemory + " is 524288", "a matcher on job (leaves about 1 series in 3000)"} {
		if !errors.Is(err, storeapi.ErrLimit) || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want an ErrLimit with %q", err, want)
		}
	}
	if got, _, err := g.LabelValues(t.Context(), "job", of(0, "000[1-3]")); err != nil || len(got) != 3 {
		t.Errorf("values of three series: got %q (%v)", got, err)
	}
}

// TestAFewOfVeryManyValuesTakeLittle has more values than memory for them.
func TestAFewOfVeryManyValuesTakeLittle(t *testing.T) {
	bkt := bucket.NewMemory()
	g := open(t, bkt, func(o *Options) { o.RequestBytes = minRequestBytes },
		add(t, bkt, ups(3000, 0, hour/60, 1)), add(t, bkt, ups(6000, hour, hour+hour/60, 1)))
	if _, _, err := g.LabelValues(t.Context(), "job", &storeapi.LabelsRequest{MaxTime: 2 * hour}); !errors.Is(err, storeapi.ErrLimit) {
		t.Errorf("all of them: error is %v, want an ErrLimit", err)
	}
	got, _, err := g.LabelValues(t.Context(), "job", &storeapi.LabelsRequest{MaxTime: 2 * hour, Limit: 1500})
	if err != nil || len(got) != 1500 || got[0] != "0000" || got[1499] != "1499" {
		t.Errorf("the first: got %d (%v), want 1500", len(got), err)
	}
}

// TestNarrowRequestsDoNotWaitForWideOnes holds all turns but the kept one, and then that.
func TestNarrowRequestsDoNotWaitForWideOnes(t *testing.T) {
	bkt := bucket.NewMemory()
	g := open(t, bkt, func(o *Options) { o.MaxConcurrency, o.RequestBytes, o.MemoryBytes = 4, 4<<20, 32<<20 }, add(t, bkt, noise(600, 0)))
	ctx, end := context.WithCancel(t.Context())
	defer end()
	for i := range 3 {
		if held := g.Series(ctx, selectUp(0, hour)); !held.Next() {
			t.Fatalf("request %d: %v", i, held.Err())
		}
	}
	wide := make(chan error, 1)
	go func() {
		_, _, err := series.Collect(g.Series(t.Context(), selectUp(0, hour)))
		wide <- err
	}()
	narrow := selectUp(0, hour)
	narrow.Matchers = append(narrow.Matchers, labels.MustNewMatcher(labels.MatchRegexp, "job", "0007|0009"))
	if got, want := mustAsk(t, g, narrow), "0007 240\n0009 240\n"; got != want {
		t.Errorf("a narrow request: got %q, want %q", got, want)
	}
	if got, _, err := g.LabelValues(t.Context(), "job", &storeapi.LabelsRequest{MaxTime: hour, Matchers: narrow.Matchers}); err != nil || len(got) != 2 {
		t.Errorf("values of two series: got %q (%v)", got, err)
	}
	if got, _, err := g.LabelNames(t.Context(), &storeapi.LabelsRequest{MaxTime: hour}); err != nil || len(got) != 3 {
		t.Errorf("label names: got %q (%v)", got, err)
	}
	select {
	case err := <-wide:
		t.Errorf("a wide request did not wait for its turn (%v)", err)
	default:
	}
	nctx, done := context.WithCancel(t.Context())
	if held := g.Series(nctx, narrow); !held.Next() {
		t.Errorf("a narrow request that is not read on: %v", held.Err())
	}
	late, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := series.Collect(g.Series(late, narrow)); !errors.Is(err, context.Canceled) {
		t.Errorf("one more: error is %v, want %v", err, context.Canceled)
	}
	done()
	mustAsk(t, g, narrow)
	end()
	if err := <-wide; err != nil {
		t.Errorf("the wide request, in its turn: %v", err)
	}
}

func TestWhatIsKeptForNarrowRequests(t *testing.T) {
	const mib = 1 << 20
	for name, tc := range map[string]struct {
		request, memory int64
		concurrency     int
		kept, free      int64
	}{
		"by default":                    {64 * mib, 0, 20, 5, 128 * mib},
		"of little memory":              {64 * mib, 64 * mib, 20, 4, 48 * mib},
		"of memory for one":             {64 * mib, 16 * mib, 20, 0, 16 * mib},
		"where all wait for each other": {64 * mib, 0, 1, 0, 128 * mib},
	} {
		t.Run(name, func(t *testing.T) {
			defer debug.SetMemoryLimit(debug.SetMemoryLimit(math.MaxInt64))
			b := newBudget(Options{RequestBytes: tc.request, MemoryBytes: tc.memory, MaxConcurrency: tc.concurrency})
			if b.most.kept != tc.kept || b.most.turns+b.most.kept != int64(tc.concurrency) || !b.free.TryAcquire(tc.free) || b.free.TryAcquire(1) {
				t.Errorf("kept are %d of %d turns, want %d, and %d MiB for the others", b.most.kept, tc.concurrency, tc.kept, tc.free/mib)
			}
		})
	}
}
