package query

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/varve-io/varve/pkg/merge"
	"github.com/varve-io/varve/pkg/panics"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
)

// members is what the fan-out needs to know of the world.
type members interface {
	Members() (up []Endpoint, missing []Missing)
}

// ProxyAPIs are the services of a Proxy.
const ProxyAPIs = storeapi.RulesAPI | storeapi.TargetsAPI | storeapi.MetadataAPI | storeapi.ExemplarsAPI | storeapi.StatusAPI

// Fanout answers for all endpoints together. It is a storeapi.Store, so queriers
// stack, and safe for concurrent use.
type Fanout struct {
	members members
	opts    FanoutOptions
	metrics *fanoutMetrics
}

// NewFanout returns a fan-out over the members, which are asked for at every request.
func NewFanout(m members, o FanoutOptions, reg prometheus.Registerer) *Fanout {
	if o.ResponseTimeout == 0 {
		o.ResponseTimeout = math.MaxInt64
	}
	return &Fanout{members: m, opts: o, metrics: newFanoutMetrics(reg)}
}

// scope is what a request asks of the members, whatever the method.
type scope struct {
	mint, maxt int64
	matchers   []*labels.Matcher
	partial    storeapi.PartialResponse
}

// targets returns the endpoints that may hold matching data, and a warning for
// each that is missing; with storeapi.Abort the first one missing is an error.
func (f *Fanout) targets(ctx context.Context, s scope) ([]Endpoint, annotations.Annotations, error) {
	up, missing := f.members.Members()
	chosen := storeMatchersOf(ctx)
	asked := up[:0:0]
	for _, e := range up {
		if holds(e.Info, s) && chosen.match(e.Address) {
			asked = append(asked, e)
		}
	}
	var lacking []error
	if len(up)+len(missing) == 0 {
		lacking = append(lacking, errors.New("no endpoint is known; give --endpoint"))
	}
	for _, m := range missing {
		if (!m.Known || holds(m.Info, s)) && chosen.match(m.Address) {
			lacking = append(lacking, fmt.Errorf("%s is missing: %w", describe(m.Address, m.Info), m.Reason))
		}
	}
	warnings, err := f.lack(lacking, s.partial)
	return asked, warnings, err
}

// lack makes warnings of what is missing, or an error.
func (f *Fanout) lack(missing []error, partial storeapi.PartialResponse) (warnings annotations.Annotations, err error) {
	if len(missing) == 0 {
		return nil, nil
	}
	f.metrics.missing.Inc()
	if partial == storeapi.Abort {
		return nil, fmt.Errorf("%w: %w; a partial answer is not wanted", storeapi.ErrUnavailable, missing[0])
	}
	for _, err := range missing {
		warnings.Add(fmt.Errorf("the answer is incomplete: %w", err))
	}
	return warnings, nil
}

// holds reports whether an endpoint can have data in scope: its time range
// overlaps and one of its label sets agrees with every matcher.
func holds(info storeapi.Info, s scope) bool {
	if !info.APIs.Has(storeapi.StoreAPI) || s.mint > info.MaxTime || s.maxt < info.MinTime {
		return false
	}
	return len(info.LabelSets) == 0 || slices.ContainsFunc(info.LabelSets, func(set labels.Labels) bool {
		return agrees(set, s.matchers)
	})
}

// agrees reports whether no matcher contradicts a label of the set.
func agrees(set labels.Labels, matchers []*labels.Matcher) bool {
	for _, m := range matchers {
		if v := set.Get(m.Name); v != "" && !m.Matches(v) {
			return false
		}
	}
	return true
}

// describe names an endpoint for people.
func describe(address string, info storeapi.Info) string {
	if info.Component == "" {
		return "endpoint " + address
	}
	text := info.Component + " " + address
	switch n := len(info.LabelSets); {
	case n == 1:
		text += " with " + info.LabelSets[0].String()
	case n > 1:
		text += fmt.Sprintf(" with %s and %d more", info.LabelSets[0], n-1)
	}
	return text
}

// own takes the matchers on our own selector labels off; ok is false when one contradicts them.
func (f *Fanout) own(matchers []*labels.Matcher) (_ []*labels.Matcher, ok bool) {
	if f.opts.SelectorLabels.IsEmpty() {
		return matchers, true
	}
	if !agrees(f.opts.SelectorLabels, matchers) {
		return nil, false
	}
	return slices.DeleteFunc(slices.Clone(matchers), func(m *labels.Matcher) bool {
		return f.opts.SelectorLabels.Has(m.Name)
	}), true
}

// Info unites what all endpoints say, those included that are missing: their data are ours to report.
func (f *Fanout) Info(context.Context) (storeapi.Info, error) {
	up, missing := f.members.Members()
	info := storeapi.Info{
		Component: "query", MinTime: math.MaxInt64, MaxTime: math.MinInt64,
		APIs:   storeapi.StoreAPI | ProxyAPIs,
		Native: true, DropsLabels: true, SupportsSharding: true,
	}
	seen := map[string]bool{}
	add := func(part storeapi.Info) {
		if !part.APIs.Has(storeapi.StoreAPI) {
			return
		}
		info.MinTime, info.MaxTime = min(info.MinTime, part.MinTime), max(info.MaxTime, part.MaxTime)
		for _, set := range part.LabelSets {
			if set = f.extend(set); !seen[set.String()] {
				seen[set.String()] = true
				info.LabelSets = append(info.LabelSets, set)
			}
		}
		for _, stream := range part.Streams {
			stream.Labels = f.extend(stream.Labels)
			info.Streams = append(info.Streams, stream)
		}
	}
	for _, e := range up {
		add(e.Info)
	}
	for _, m := range missing {
		if m.Known {
			add(m.Info)
		}
	}
	if info.MinTime > info.MaxTime {
		info.MinTime, info.MaxTime = math.MinInt64, math.MaxInt64
	}
	if len(info.LabelSets) == 0 && !f.opts.SelectorLabels.IsEmpty() {
		info.LabelSets = []labels.Labels{f.opts.SelectorLabels}
	}
	slices.SortFunc(info.LabelSets, labels.Compare)
	return info, nil
}

func (f *Fanout) extend(set labels.Labels) labels.Labels {
	b := labels.NewBuilder(set)
	f.opts.SelectorLabels.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
	return b.Labels()
}

// Series asks every endpoint that may hold matching series, side by side, and
// merges what comes back. Its goroutines end with the context.
func (f *Fanout) Series(ctx context.Context, req *storeapi.Request) series.Set {
	if err := req.Validate(); err != nil {
		return series.ErrSet(err)
	}
	forwarded := *req
	var ok bool
	if forwarded.Matchers, ok = f.own(req.Matchers); !ok {
		return series.EmptySet()
	}
	asked, warnings, err := f.targets(ctx, scope{req.MinTime, req.MaxTime, forwarded.Matchers, req.Partial})
	if err != nil {
		return series.ErrSet(err)
	}
	ctx, fail := context.WithCancelCause(ctx) // else it ends with the caller's
	open := func(e Endpoint) series.Set { return f.openStream(ctx, fail, e, &forwarded) }
	sets := make([]series.Set, 0, len(asked))
	for _, e := range asked {
		sets = append(sets, open(e))
	}
	return &mergedSet{Set: merge.Sets(sets...), warnings: warnings, limit: req.Limit}
}

// mergedSet adds what the fan-out itself has to say to the merged streams.
type mergedSet struct {
	series.Set
	warnings annotations.Annotations
	limit    int // 0: none
	passed   int
}

func (m *mergedSet) Next() bool {
	if m.limit > 0 && m.passed >= m.limit {
		return false
	}
	m.passed++
	return m.Set.Next()
}

func (m *mergedSet) Warnings() annotations.Annotations {
	all := annotations.New().Merge(m.warnings)
	return all.Merge(m.Set.Warnings())
}

// LabelNames unites the label names of all endpoints that may hold matching series.
func (f *Fanout) LabelNames(ctx context.Context, req *storeapi.LabelsRequest) ([]string, annotations.Annotations, error) {
	names, warnings, err := f.labels(ctx, req, func(ctx context.Context, s storeapi.Store, req *storeapi.LabelsRequest) ([]string, annotations.Annotations, error) {
		return s.LabelNames(ctx, req)
	})
	f.opts.SelectorLabels.Range(func(l labels.Label) {
		if i, found := slices.BinarySearch(names, l.Name); len(names) > 0 && !found {
			names = slices.Insert(names, i, l.Name)
		}
	})
	return names, warnings, err
}

// LabelValues unites the values of one label.
func (f *Fanout) LabelValues(ctx context.Context, name string, req *storeapi.LabelsRequest) ([]string, annotations.Annotations, error) {
	if v := f.opts.SelectorLabels.Get(name); v != "" {
		return []string{v}, nil, nil
	}
	return f.labels(ctx, req, func(ctx context.Context, s storeapi.Store, req *storeapi.LabelsRequest) ([]string, annotations.Annotations, error) {
		return s.LabelValues(ctx, name, req)
	})
}

type labelsCall func(context.Context, storeapi.Store, *storeapi.LabelsRequest) ([]string, annotations.Annotations, error)

// labels makes one label call to all endpoints side by side and unites the answers.
func (f *Fanout) labels(ctx context.Context, req *storeapi.LabelsRequest, call labelsCall) ([]string, annotations.Annotations, error) {
	if err := req.Validate(); err != nil {
		return nil, nil, err
	}
	forwarded := *req
	var ok bool
	if forwarded.Matchers, ok = f.own(req.Matchers); !ok {
		return nil, nil, nil
	}
	asked, warnings, err := f.targets(ctx, scope{req.MinTime, req.MaxTime, forwarded.Matchers, req.Partial})
	if err != nil {
		return nil, nil, err
	}
	type answer struct {
		found    []string
		warnings annotations.Annotations
		err      error
	}
	answers := make([]answer, len(asked))
	var wg sync.WaitGroup
	for i, e := range asked {
		f.metrics.asked.Inc()
		wg.Go(func() {
			limited, cancel := context.WithTimeout(ctx, f.opts.ResponseTimeout)
			defer cancel()
			a := &answers[i]
			a.err = panics.Caught(func() (err error) {
				a.found, a.warnings, err = call(limited, e.Peer, &forwarded)
				return err
			})
			if a.err != nil {
				f.metrics.silent.Inc()
			}
			a.warnings, a.err = settle(ctx, describe(e.Address, e.Info), req.Partial, a.err, a.warnings)
		})
	}
	wg.Wait()

	var all []string
	for _, a := range answers {
		if a.err != nil {
			return nil, nil, a.err
		}
		all = append(all, a.found...)
		warnings.Merge(a.warnings)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	if req.Limit > 0 && len(all) > req.Limit {
		all = all[:req.Limit]
	}
	return all, warnings, nil
}

// StoreMatchers restrict a query to some endpoints; only the label __address__
// exists. Several lists are combined with OR; none means every endpoint.
type StoreMatchers [][]*labels.Matcher

type storeMatchersKey struct{}

func storeMatchersOf(ctx context.Context) StoreMatchers {
	m, _ := ctx.Value(storeMatchersKey{}).(StoreMatchers)
	return m
}

func (s StoreMatchers) match(address string) bool {
	return len(s) == 0 || slices.ContainsFunc(s, func(matchers []*labels.Matcher) bool {
		return labels.Selector(matchers).Matches(labels.FromStrings("__address__", address))
	})
}

// selectorText is a selector as a user would write it.
func selectorText(matchers []*labels.Matcher) string {
	parts := make([]string, len(matchers))
	for i, m := range matchers {
		parts[i] = m.String()
	}
	return "{" + strings.Join(parts, ",") + "}"
}
