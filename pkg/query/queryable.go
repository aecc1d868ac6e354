package query

import (
	"context"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"golang.org/x/sync/semaphore"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/dedup"
	"github.com/varve-io/varve/pkg/storeapi"
)

// Params are what a request may say about how it is answered.
type Params struct {
	// Dedup makes one series of the replicas that differ in ReplicaLabels alone.
	Dedup         bool
	ReplicaLabels []string
	// PartialResponse answers with what there is, and a warning.
	PartialResponse bool
	// MaxResolution is the coarsest resolution wanted, 0 for raw data. Where nothing as fine exists, coarser data serve.
	MaxResolution time.Duration
	StoreMatchers StoreMatchers
	// Lookback is how far an instant selector looks back; 0 is the engine's own.
	Lookback time.Duration
	// Stats notes what endpoints did, for Answer.Fetches.
	Stats bool
	// StatsPerStep counts samples for every step, not only for the query.
	StatsPerStep bool
	// Shard, when set, evaluates over the series of one shard only.
	Shard *Shard
}

// Shard is a part of all series, by hash.
type Shard = storeapi.Shard

func (p Params) partial() storeapi.PartialResponse {
	if p.PartialResponse {
		return storeapi.Warn
	}
	return storeapi.Abort
}

// withoutLabels are the labels that tell replicas apart, if they are to be merged.
func (p Params) withoutLabels() []string {
	if !p.Dedup {
		return nil
	}
	return p.ReplicaLabels
}

func (p Params) resolution() block.Resolution {
	return floorResolution(p.MaxResolution.Milliseconds())
}

func (p Params) engineOptions() promql.QueryOpts {
	return promql.NewPrometheusQueryOpts(p.StatsPerStep, p.Lookback)
}

// queryable is a storage.Queryable for one query.
type queryable struct {
	store  storeapi.Store
	params Params
	// rewritten says that selectors may carry a mark; see rewriteForAggregates.
	rewritten bool
	served    *served
	selects   *semaphore.Weighted
	dedup     *dedup.Iterators
	now       time.Time
}

// Queryable returns the storage of one query with these parameters. What it
// returns stays valid until the context of the selection ends.
func (e *Engine) Queryable(p Params) storage.Queryable { return e.queryable(p, &served{}) }

func (e *Engine) queryable(p Params, s *served) *queryable {
	if p.Lookback == 0 {
		p.Lookback = e.opts.LookbackDelta
	}
	return &queryable{
		store: e.store, params: p, served: s, dedup: dedup.NewIterators(e.opts.Dedup), now: time.Now(),
		selects: semaphore.NewWeighted(int64(e.opts.MaxConcurrentSelect)),
	}
}

// Querier implements storage.Queryable.
func (q *queryable) Querier(mint, maxt int64) (storage.Querier, error) {
	return &querier{queryable: q, mint: mint, maxt: maxt}, nil
}

// within puts what the fan-out needs to know into the context.
func (p Params) within(ctx context.Context) context.Context {
	if len(p.StoreMatchers) == 0 {
		return ctx
	}
	return context.WithValue(ctx, storeMatchersKey{}, p.StoreMatchers)
}
