package query

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
	"github.com/varve-io/varve/pkg/storeapi/storeapitest"
)

// many are n series of one replica, sorted.
func many(n int) []series.Series {
	out := make([]series.Series, n)
	for i := range out {
		out[i].Labels = labels.FromStrings("__name__", "up", "instance", fmt.Sprintf("%06d", i), "replica", "a")
	}
	return out
}

// narrow answers one request at a time: its slot is taken until the answer was read.
type narrow struct {
	storeapi.Store
	slot    chan struct{}
	answer  []series.Series
	distant time.Duration // to those who ask
}

func (n narrow) Series(ctx context.Context, _ *storeapi.Request) series.Set {
	select {
	case <-time.After(n.distant):
	case <-ctx.Done():
		return series.ErrSet(ctx.Err())
	}
	select {
	case n.slot <- struct{}{}:
		return &slotSet{Set: series.NewSet(n.answer, nil), slot: n.slot}
	case <-ctx.Done():
		return series.ErrSet(ctx.Err())
	}
}

type slotSet struct {
	series.Set
	slot chan struct{}
}

func (s *slotSet) Next() bool {
	if s.Set.Next() {
		return true
	}
	<-s.slot
	return false
}

// Each querier has the slot of the store beside it and waits for that of the other.
func TestQueriersDoNotHoldEachOtherUp(t *testing.T) {
	good := memory(t, storeapitest.Standard())
	info, err := good.Info(t.Context())
	if err != nil {
		t.Fatalf("info: %v", err)
	}
	const each = 1000
	synctest.Test(t, func(t *testing.T) {
		east, west := make(chan struct{}, 1), make(chan struct{}, 1)
		at := func(slot chan struct{}, distant time.Duration) Endpoint {
			return Endpoint{Info: info, Peer: peerOf{narrow{good, slot, many(each), distant}}}
		}
		const far = 50 * time.Millisecond
		answers := make(chan collected)
		for _, up := range [][]Endpoint{{at(east, 0), at(west, far)}, {at(west, 0), at(east, far)}} {
			f := newFanout(t, fixed{up: up})
			go func() { answers <- collect(t, f, everything(storeapi.Warn)) }()
		}
		for range 2 {
			if got := <-answers; got.err != nil || len(got.warnings) > 0 || len(got.series) != each {
				t.Errorf("got %d series, warnings %q, error %v, want %d and neither", len(got.series), got.warningText(), got.err, each)
			}
		}
	})
}

// halting answers with series, pausing before every frame that a Thanos peer may fill.
type halting struct {
	storeapi.Store
	answer []series.Series
	pause  time.Duration
}

func (h halting) Series(ctx context.Context, _ *storeapi.Request) series.Set {
	return &haltingSet{Set: series.NewSet(h.answer, nil), ctx: ctx, pause: h.pause}
}

type haltingSet struct {
	series.Set
	ctx   context.Context //nolint:containedctx // lives as long as the set
	pause time.Duration
	n     int
}

func (h *haltingSet) Next() bool {
	if h.n++; h.n%64 == 0 {
		select {
		case <-time.After(h.pause):
		case <-h.ctx.Done():
			return false
		}
	}
	return h.Set.Next()
}

// thanosEndpoint serves a store as Thanos would and connects to it as the program does.
func thanosEndpoint(t *testing.T, s storeapi.Store, wait time.Duration) Endpoint {
	t.Helper()
	connect, err := Dialer(DefaultClientOptions(), wait, prometheus.NewRegistry())
	if err != nil {
		t.Fatalf("dialer: %v", err)
	}
	address := storeapitest.ServeAsThanos(t, s)
	p, err := connect(address)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	info, err := p.Info(t.Context())
	if err != nil {
		t.Fatalf("info: %v", err)
	}
	return Endpoint{Address: address, Info: info, Peer: p}
}

func TestASlowEndpointIsNotASilentOne(t *testing.T) {
	const wait = 600 * time.Millisecond // the answer takes twice as long
	req := everything(storeapi.Warn)
	req.WithoutLabels, req.SkipChunks = []string{"replica"}, true
	slow := halting{memory(t, storeapitest.Standard()), many(16 * 64), wait / 8}
	got := collect(t, newFanout(t, fixed{up: []Endpoint{thanosEndpoint(t, slow, wait)}}), req)
	if got.err != nil || len(got.warnings) > 0 || len(got.series) != len(slow.answer) {
		t.Errorf("got %d series, warnings %q, error %v, want %d and neither", len(got.series), got.warningText(), got.err, len(slow.answer))
	}
}

func TestASilentEndpointIsGivenUp(t *testing.T) {
	good := memory(t, storeapitest.Standard())
	e := thanosEndpoint(t, silent{good}, 100*time.Millisecond)
	f := newFanout(t, fixed{up: []Endpoint{endpointOf(t, "good", good), e}})
	got := collect(t, f, everything(storeapi.Warn))
	want := e.Address + ": silent for 100ms"
	if text := got.warningText(); got.err != nil || len(got.series) == 0 || !strings.Contains(text, want) || !strings.Contains(text, "--store.response-timeout") {
		t.Errorf("got %d series, error %v and warnings %q, want some and %q", len(got.series), got.err, text, want)
	}
}

// What is read ahead counts before the merge has come to it, and ends the answer
// although another endpoint keeps the merge waiting.
func TestReadingAheadHasALimit(t *testing.T) {
	good := memory(t, storeapitest.Standard())
	fast := halting{good, many(1000), 0}
	f := newFanout(t, fixed{up: []Endpoint{endpointOf(t, "mute", silent{good}), thanosEndpoint(t, fast, 0)}})
	e := newEngine(t, f, func(o *Options) { o.MaxBytes = 10_000 })
	e.budget.patience = time.Millisecond
	req := everything(storeapi.Warn)
	req.SkipChunks = true
	for name, s := range map[string]storeapi.Store{"of a query": nil, "of an answer to a querier above": e.StoreAPI(ResponseLimits{})} {
		for kind, without := range map[string][]string{"as it comes": nil, "sorted anew": {"replica"}} {
			t.Run(name+", "+kind, func(t *testing.T) {
				req := *req
				req.WithoutLabels = without
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				store := s
				if store == nil {
					begun, end := e.Begin(ctx)
					defer end()
					ctx, store = begun, f
				}
				_, _, err := series.Collect(store.Series(ctx, &req))
				if !errors.Is(err, storeapi.ErrLimit) || !strings.Contains(err.Error(), "--query.max-bytes=10000") {
					t.Errorf("got error %v, want the limit of one query", err)
				}
			})
		}
	}
}

// A reader that stops reading keeps all streams waiting, within the limit, and gets everything in the end.
func TestASlowReaderIsWaitedFor(t *testing.T) {
	good := memory(t, storeapitest.Standard())
	const each = 10_000
	f := newFanout(t, fixed{up: []Endpoint{thanosEndpoint(t, halting{good, many(each), 0}, 0), thanosEndpoint(t, halting{good, many(each), 0}, 0)}})
	b := NewBudget(400_000, 1e9) // a fifth of both answers
	req := everything(storeapi.Warn)
	req.SkipChunks = true
	ctx, end := b.OpenPassing(t.Context())
	defer end()
	set := f.Series(ctx, req)
	n := 0
	for a := accountOf(ctx); set.Next(); n++ {
		if n%(each/4) == 0 {
			deadline := time.Now().Add(20 * time.Second)
			for halted := false; !halted; runtime.Gosched() {
				a.mu.Lock()
				halted = a.paused == 2 || n > each/2 // then both may have come to the end
				if time.Now().After(deadline) {
					t.Errorf("at series %d: %d streams wait for the reader, want 2; %d bytes are held", n, a.paused, a.used)
					halted = true
				}
				a.mu.Unlock()
			}
		}
	}
	if err := set.Err(); err != nil || n != each || b.Used() != 0 {
		t.Errorf("got %d series, error %v and %d bytes still drawn, want %d, none and 0", n, err, b.Used(), each)
	}
}

func TestWhatWasPassedOnIsNotHeld(t *testing.T) {
	good := memory(t, storeapitest.Standard())
	f := newFanout(t, fixed{up: []Endpoint{thanosEndpoint(t, halting{good, many(1000), 0}, 0)}})
	e := newEngine(t, f, nil)
	req := everything(storeapi.Warn)
	req.SkipChunks = true
	got, _, err := series.Collect(e.StoreAPI(ResponseLimits{}).Series(t.Context(), req))
	if err != nil || len(got) != 1000 || e.budget.Used() != 0 {
		t.Errorf("got %d series, error %v and %d bytes still drawn, want 1000, none and 0", len(got), err, e.budget.Used())
	}
}
