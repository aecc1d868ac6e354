package query

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
)

// Fetch is what one endpoint did for one selector of a query.
type Fetch struct {
	Selector string
	// Endpoint is its address.
	Endpoint string
	// Took is the time until its answer was there, Bytes what that takes in memory.
	Took  time.Duration
	Bytes int64
	// Series and Chunks are those of the answer.
	Series, Chunks int64
	// Stats are what the endpoint says of its work, nil if it says nothing: not every one does.
	Stats *Work
}

// Work is what an endpoint took for its part of an answer.
type Work = storeapi.QueryStats

// fetches gathers those of a query.
type fetches struct {
	mu  sync.Mutex
	all []Fetch
}

type fetchesKey struct{}

// within makes the fan-out note what it fetches under the context.
func (f *fetches) within(ctx context.Context) context.Context {
	return context.WithValue(ctx, fetchesKey{}, f)
}

func fetchesOf(ctx context.Context) *fetches {
	f, _ := ctx.Value(fetchesKey{}).(*fetches)
	return f
}

func (f *fetches) add(one Fetch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, one)
}

// sorted are all of them by selector and endpoint.
func (f *fetches) sorted() []Fetch {
	f.mu.Lock()
	defer f.mu.Unlock()
	slices.SortFunc(f.all, func(a, b Fetch) int {
		return cmp.Or(strings.Compare(a.Selector, b.Selector), strings.Compare(a.Endpoint, b.Endpoint))
	})
	return slices.Clone(f.all)
}

// count counts a series that came. It may be called on nil.
func (f *Fetch) count(s *series.Series) {
	if f != nil {
		f.Series++
		f.Chunks += int64(len(s.Chunks))
		f.Bytes += storeapi.Weigh(s)
	}
}

// follow notes what a stream fetches, if the query wants to know. The function it returns is called at the end.
func (s *stream) follow(ctx context.Context, address, selector string) (_ context.Context, end func()) {
	all := fetchesOf(ctx)
	if all == nil {
		return ctx, func() {}
	}
	began := time.Now()
	s.fetch = &Fetch{Selector: selector, Endpoint: address}
	ctx = storeapi.WithStats(ctx, func(stats Work) {
		if s.fetch.Stats == nil {
			s.fetch.Stats = new(Work)
		}
		s.fetch.Stats.Add(stats)
	})
	return ctx, func() {
		s.fetch.Took = time.Since(began)
		all.add(*s.fetch)
	}
}
