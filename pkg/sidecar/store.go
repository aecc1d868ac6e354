package sidecar

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/varve-io/varve/pkg/promclient"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
)

// Store answers the Store API from a Prometheus.
type Store struct {
	client  *promclient.Client
	prom    *Prometheus
	opts    StoreOptions
	metrics *storeMetrics
}

var _ storeapi.Store = (*Store)(nil)

// NewStore returns a store over the Prometheus that prom follows.
func NewStore(c *promclient.Client, prom *Prometheus, o StoreOptions, reg prometheus.Registerer) (*Store, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return &Store{client: c, prom: prom, opts: o, metrics: newStoreMetrics(reg)}, nil
}

// Info says that the store reaches from Prometheus' oldest sample, or --min-time,
// into the future.
func (s *Store) Info(context.Context) (storeapi.Info, error) {
	state, err := s.prom.State()
	if err != nil {
		return storeapi.Info{}, err
	}
	mint := max(state.MinTime, s.opts.minTime())
	return storeapi.Info{
		Component:        "sidecar",
		LabelSets:        []labels.Labels{state.External},
		MinTime:          mint,
		MaxTime:          math.MaxInt64,
		Streams:          []storeapi.Stream{{Labels: state.External, MinTime: mint, MaxTime: math.MaxInt64}},
		APIs:             storeapi.StoreAPI | ProxyAPIs,
		Native:           true,
		DropsLabels:      true,
		SupportsSharding: true,
	}, nil
}

// scope is what a request means to Prometheus, which knows nothing of external labels.
type scope struct {
	external   labels.Labels
	matchers   []*labels.Matcher
	mint, maxt int64
}

// scope returns false when nothing can match.
func (s *Store) scope(mint, maxt int64, matchers []*labels.Matcher) (scope, bool, error) {
	state, err := s.prom.State()
	if err != nil {
		return scope{}, false, err
	}
	rest, ok := storeapi.MatchExternal(state.External, matchers)
	sc := scope{external: state.External, matchers: usable(rest), mint: max(mint, s.opts.minTime()), maxt: maxt}
	return sc, ok && sc.mint <= sc.maxt, nil
}

// usable adds a matcher that all series satisfy where Prometheus' API wants one
// that is not satisfied by an empty value.
func usable(ms []*labels.Matcher) []*labels.Matcher {
	if slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches("") }) {
		return ms
	}
	return append(slices.Clone(ms), labels.MustNewMatcher(labels.MatchRegexp, labels.MetricName, ".+"))
}

func (sc scope) selection(limit int) promclient.Selection {
	return promclient.Selection{MinTime: sc.mint, MaxTime: sc.maxt, Matchers: sc.matchers, Limit: limit}
}

// Series streams from remote read. With SkipChunks it asks for the label sets
// alone, whose time range is as coarse as Prometheus' blocks.
func (s *Store) Series(ctx context.Context, req *storeapi.Request) series.Set {
	if err := req.Validate(); err != nil {
		return series.ErrSet(err)
	}
	if err := ctx.Err(); err != nil {
		return series.ErrSet(fmt.Errorf("select series: %w", err))
	}
	sc, ok, err := s.scope(req.MinTime, req.MaxTime, req.Matchers)
	switch {
	case err != nil:
		return series.ErrSet(err)
	case !ok:
		return series.EmptySet()
	case req.SkipChunks:
		return s.labelSets(ctx, sc, req)
	}
	return s.live(ctx, sc, req)
}

// labelSets answers with series without chunks.
func (s *Store) labelSets(ctx context.Context, sc scope, req *storeapi.Request) series.Set {
	limit := req.Limit
	if req.Shard != nil {
		limit = 0 // Prometheus knows no shards
	}
	sets, warnings, err := s.client.Series(ctx, sc.selection(limit))
	if err != nil {
		return series.ErrSet(mark("ask Prometheus for series", err))
	}
	out := make([]series.Series, 0, len(sets))
	for _, lset := range sets {
		final, replica := series.Final(lset, sc.external, req.WithoutLabels)
		if req.Shard.Keeps(final) {
			out = append(out, series.Series{Labels: final, Replica: replica})
		}
	}
	slices.SortFunc(out, func(a, b series.Series) int { return series.Compare(&a, &b) })
	out = slices.CompactFunc(out, func(a, b series.Series) bool { return series.Compare(&a, &b) == 0 })
	budget := newBudget(s.opts, s.metrics)
	for i := range out {
		if err := budget.count(&out[i]); err != nil {
			return series.ErrSet(err)
		}
		if req.Limit > 0 && budget.series > int64(req.Limit) {
			out = out[:i]
			break
		}
	}
	return series.NewSet(out, warned(warnings))
}

// LabelNames returns the names of what matches, those of external labels included
// if anything does.
func (s *Store) LabelNames(ctx context.Context, req *storeapi.LabelsRequest) ([]string, annotations.Annotations, error) {
	if err := req.Validate(); err != nil {
		return nil, nil, err
	}
	sc, ok, err := s.scope(req.MinTime, req.MaxTime, req.Matchers)
	if err != nil || !ok {
		return nil, nil, err
	}
	names, warnings, err := s.client.LabelNames(ctx, sc.selection(req.Limit))
	if err != nil {
		return nil, nil, mark("ask Prometheus for label names", err)
	}
	if len(names) > 0 {
		sc.external.Range(func(l labels.Label) { names = append(names, l.Name) })
	}
	slices.Sort(names)
	names = slices.DeleteFunc(slices.Compact(names), func(n string) bool { return slices.Contains(req.WithoutLabels, n) })
	return cut(names, req.Limit), warned(warnings), nil
}

// LabelValues returns the values of a label. That of an external label is its
// one value, if anything matches.
func (s *Store) LabelValues(ctx context.Context, name string, req *storeapi.LabelsRequest) ([]string, annotations.Annotations, error) {
	if name == "" {
		return nil, nil, fmt.Errorf("%w: no label name given", storeapi.ErrBadRequest)
	}
	if err := req.Validate(); err != nil {
		return nil, nil, err
	}
	sc, ok, err := s.scope(req.MinTime, req.MaxTime, req.Matchers)
	if err != nil || !ok || slices.Contains(req.WithoutLabels, name) {
		return nil, nil, err
	}
	if value := sc.external.Get(name); value != "" {
		sets, warnings, err := s.client.Series(ctx, sc.selection(1))
		if err != nil || len(sets) == 0 {
			return nil, nil, mark("ask Prometheus for series", err)
		}
		return []string{value}, warned(warnings), nil
	}
	values, warnings, err := s.client.LabelValues(ctx, name, sc.selection(req.Limit))
	if err != nil {
		return nil, nil, mark("ask Prometheus for the values of label "+name, err)
	}
	slices.Sort(values)
	return cut(values, req.Limit), warned(warnings), nil
}

func cut(list []string, limit int) []string {
	if limit > 0 && len(list) > limit {
		return list[:limit]
	}
	return list
}
