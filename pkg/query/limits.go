package query

import (
	"context"
	"fmt"

	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
)

// ResponseLimits bound what one Series answer of our own Store API may have; 0 means no limit.
type ResponseLimits struct{ Series, Samples int64 }

// StoreAPI is the engine's store for queriers above this one. What an answer reads
// ahead of its receiver counts against the same budget as queries do.
func (e *Engine) StoreAPI(limits ResponseLimits) storeapi.Store {
	return &limited{Store: e.store, limits: limits, budget: e.budget}
}

// limited is a Store that ends answers at limits.
type limited struct {
	storeapi.Store
	limits ResponseLimits
	budget *Budget
}

// Series implements storeapi.Store.
func (l *limited) Series(ctx context.Context, req *storeapi.Request) series.Set {
	ctx, closeAccount := l.budget.OpenPassing(ctx)
	context.AfterFunc(ctx, closeAccount) // until then the set is in use
	return &limitedSet{Set: l.Store.Series(ctx, req), limits: l.limits}
}

type limitedSet struct {
	series.Set
	limits          ResponseLimits
	series, samples int64
	err             error
}

func (l *limitedSet) Next() bool {
	if l.err != nil || !l.Set.Next() {
		return false
	}
	l.series++
	for _, c := range l.At().Chunks {
		n, _ := c.NumSamples() // a damaged chunk has none
		l.samples += int64(n)
	}
	switch {
	case l.limits.Series > 0 && l.series > l.limits.Series:
		l.err = fmt.Errorf("%w: the answer has more than %d series (--store.limits.request-series); add matchers", storeapi.ErrLimit, l.limits.Series)
	case l.limits.Samples > 0 && l.samples > l.limits.Samples:
		l.err = fmt.Errorf("%w: the answer has more than %d samples (--store.limits.request-samples); add matchers or shorten the time range", storeapi.ErrLimit, l.limits.Samples)
	}
	return l.err == nil
}

func (l *limitedSet) Err() error {
	if l.err != nil {
		return l.err
	}
	return l.Set.Err()
}
