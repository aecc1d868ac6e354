package query

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/util/annotations"

	"github.com/varve-io/varve/pkg/panics"
	"github.com/varve-io/varve/pkg/proxyapi"
	"github.com/varve-io/varve/pkg/storeapi"
)

// What the services beside the Store API are asked and answer stands here under
// the names of proxyapi, for promapi, which knows nothing below this package.

type (
	// RulesRequest selects rules.
	RulesRequest = proxyapi.RulesRequest
	// TargetsRequest selects targets.
	TargetsRequest = proxyapi.TargetsRequest
	// MetadataRequest selects metadata.
	MetadataRequest = proxyapi.MetadataRequest
	// ExemplarsRequest selects exemplars.
	ExemplarsRequest = proxyapi.ExemplarsRequest
	// StatusRequest selects TSDB statistics.
	StatusRequest = proxyapi.StatusRequest
	// TargetState is any, active or dropped.
	TargetState = proxyapi.TargetState
	// RuleGroup is a group of rules, evaluated together.
	RuleGroup = proxyapi.RuleGroup
	// Rule is an alerting or a recording rule.
	Rule = proxyapi.Rule
	// Alert is one instance of an alerting rule.
	Alert = proxyapi.Alert
	// TargetDiscovery is what was discovered.
	TargetDiscovery = proxyapi.TargetDiscovery
	// Target is what is scraped.
	Target = proxyapi.Target
	// Meta describes a metric.
	Meta = proxyapi.Meta
	// SeriesExemplars are the exemplars of one series.
	SeriesExemplars = proxyapi.SeriesExemplars
	// Exemplar is an example of a sample.
	Exemplar = proxyapi.Exemplar
	// RuleType is alerting or recording.
	RuleType = proxyapi.RuleType
	// Strategy is true where a missing endpoint is an error.
	Strategy = proxyapi.Strategy
)

// The types of rules.
const (
	Alerting  = proxyapi.Alerting
	Recording = proxyapi.Recording
)

// Proxy asks all endpoints for rules, targets, metadata, exemplars and TSDB
// statistics and makes one answer of theirs. It is safe for concurrent use.
type Proxy struct {
	fanout   *Fanout
	replicas []string // labels that are taken off
}

// NewProxy returns a proxy over the endpoints of a fan-out.
func NewProxy(f *Fanout, replicaLabels []string) *Proxy {
	return &Proxy{fanout: f, replicas: replicaLabels}
}

var (
	_ proxyapi.Rules     = (*Proxy)(nil)
	_ proxyapi.Targets   = (*Proxy)(nil)
	_ proxyapi.Metadata  = (*Proxy)(nil)
	_ proxyapi.Exemplars = (*Proxy)(nil)
	_ proxyapi.Status    = (*Proxy)(nil)
)

// Rules implements proxyapi.Rules.
func (p *Proxy) Rules(ctx context.Context, req RulesRequest) ([]RuleGroup, annotations.Annotations, error) {
	parts, warnings, err := ask(ctx, p.question(storeapi.RulesAPI, req.Abort),
		func(ctx context.Context, _ Endpoint, c proxyapi.Rules) ([]RuleGroup, annotations.Annotations, error) {
			return c.Rules(ctx, req)
		})
	if err != nil {
		return nil, nil, err
	}
	groups, err := proxyapi.FilterRules(proxyapi.MergeRules(slices.Concat(parts...), p.replicas), req)
	return groups, warnings, err
}

// Targets implements proxyapi.Targets.
func (p *Proxy) Targets(ctx context.Context, req TargetsRequest) (proxyapi.TargetDiscovery, annotations.Annotations, error) {
	parts, warnings, err := ask(ctx, p.question(storeapi.TargetsAPI, req.Abort),
		func(ctx context.Context, _ Endpoint, c proxyapi.Targets) (proxyapi.TargetDiscovery, annotations.Annotations, error) {
			return c.Targets(ctx, req)
		})
	return proxyapi.MergeTargets(parts, p.replicas), warnings, err
}

// MetricMetadata implements proxyapi.Metadata.
func (p *Proxy) MetricMetadata(ctx context.Context, req MetadataRequest) (map[string][]proxyapi.Meta, annotations.Annotations, error) {
	parts, warnings, err := ask(ctx, p.question(storeapi.MetadataAPI, req.Abort),
		func(ctx context.Context, _ Endpoint, c proxyapi.Metadata) (map[string][]proxyapi.Meta, annotations.Annotations, error) {
			return c.MetricMetadata(ctx, req)
		})
	return proxyapi.MergeMetadata(parts, req.Limit), warnings, err
}

// Exemplars implements proxyapi.Exemplars. Each endpoint is asked for those
// selectors alone that its labels agree with.
func (p *Proxy) Exemplars(ctx context.Context, req ExemplarsRequest) ([]proxyapi.SeriesExemplars, annotations.Annotations, error) {
	parts, warnings, err := ask(ctx, p.question(storeapi.ExemplarsAPI, req.Abort),
		func(ctx context.Context, e Endpoint, c proxyapi.Exemplars) ([]proxyapi.SeriesExemplars, annotations.Annotations, error) {
			reduce := proxyapi.ExemplarQuery
			if e.Info.Component == "query" {
				reduce = proxyapi.MatchingSelectors
			}
			asked := req
			var err error
			if asked.Query, err = reduce(req.Query, e.Info.LabelSets); err != nil || asked.Query == "" {
				return nil, nil, err
			}
			return c.Exemplars(ctx, asked)
		})
	return proxyapi.MergeExemplars(slices.Concat(parts...), p.replicas), warnings, err
}

// TSDBStatistics implements proxyapi.Status.
func (p *Proxy) TSDBStatistics(ctx context.Context, req StatusRequest) (map[string]proxyapi.TSDBStatus, annotations.Annotations, error) {
	parts, warnings, err := ask(ctx, p.question(storeapi.StatusAPI, req.Abort),
		func(ctx context.Context, _ Endpoint, c proxyapi.Status) (map[string]proxyapi.TSDBStatus, annotations.Annotations, error) {
			return c.TSDBStatistics(ctx, req)
		})
	return proxyapi.MergeStatus(parts, req.Limit), warnings, err
}

// question is whom to ask, and what an endpoint that does not answer means.
type question struct {
	fanout  *Fanout
	api     storeapi.APIs
	partial storeapi.PartialResponse
}

func (p *Proxy) question(api storeapi.APIs, abort proxyapi.Strategy) question {
	q := question{fanout: p.fanout, api: api, partial: storeapi.Warn}
	if abort {
		q.partial = storeapi.Abort
	}
	return q
}

// targets are the endpoints that announce the service, and a warning for each that is missing.
func (q question) targets(ctx context.Context) ([]Endpoint, annotations.Annotations, error) {
	up, missing := q.fanout.members.Members()
	chosen := storeMatchersOf(ctx)
	var lacking []error
	for _, m := range missing {
		if (!m.Known || m.Info.APIs.Has(q.api)) && chosen.match(m.Address) {
			lacking = append(lacking, fmt.Errorf("%s is missing: %w", describe(m.Address, m.Info), m.Reason))
		}
	}
	warnings, err := q.fanout.lack(lacking, q.partial)
	return slices.DeleteFunc(up, func(e Endpoint) bool { return !e.Info.APIs.Has(q.api) || !chosen.match(e.Address) }), warnings, err
}

// ask calls all endpoints of a question side by side, through the client C of the service.
func ask[C, T any](ctx context.Context, q question, call func(context.Context, Endpoint, C) (T, annotations.Annotations, error)) ([]T, annotations.Annotations, error) {
	targets, warnings, err := q.targets(ctx)
	if err != nil {
		return nil, nil, err
	}
	answers := make([]T, len(targets))
	warned := make([]annotations.Annotations, len(targets))
	errs := make([]error, len(targets))
	var wg sync.WaitGroup
	for i, e := range targets {
		client, ok := e.Peer.(C)
		if !ok {
			continue
		}
		wg.Go(func() {
			limited, cancel := context.WithTimeout(ctx, q.fanout.opts.ResponseTimeout)
			defer cancel()
			errs[i] = panics.Caught(func() (err error) {
				answers[i], warned[i], err = call(limited, e, client)
				return err
			})
			warned[i], errs[i] = settle(ctx, describe(e.Address, e.Info), q.partial, errs[i], warned[i])
		})
	}
	wg.Wait()
	for i := range targets {
		if errs[i] != nil {
			return nil, nil, errs[i]
		}
		warnings.Merge(warned[i])
	}
	return answers, warnings, nil
}
