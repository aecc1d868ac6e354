package sidecar

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/varve-io/varve/pkg/promclient"
	"github.com/varve-io/varve/pkg/proxyapi"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
)

// Proxy passes on what Prometheus says of its rules, targets, metadata, exemplars
// and TSDB, with the external labels added. It is safe for concurrent use.
type Proxy struct {
	client *promclient.Client
	prom   *Prometheus
}

var (
	_ proxyapi.Rules     = (*Proxy)(nil)
	_ proxyapi.Targets   = (*Proxy)(nil)
	_ proxyapi.Metadata  = (*Proxy)(nil)
	_ proxyapi.Exemplars = (*Proxy)(nil)
	_ proxyapi.Status    = (*Proxy)(nil)
)

// NewProxy returns a proxy of the Prometheus that prom follows.
func NewProxy(c *promclient.Client, prom *Prometheus) *Proxy { return &Proxy{client: c, prom: prom} }

// Services are all that a proxy offers.
func (p *Proxy) Services() proxyapi.Services {
	return proxyapi.Services{Rules: p, Targets: p, Metadata: p, Exemplars: p, Status: p}
}

// ProxyAPIs are the services of a proxy as Info announces them.
const ProxyAPIs = storeapi.RulesAPI | storeapi.TargetsAPI | storeapi.MetadataAPI | storeapi.ExemplarsAPI | storeapi.StatusAPI

// Rules asks for all rules and filters here: selectors may name external labels.
func (p *Proxy) Rules(ctx context.Context, req proxyapi.RulesRequest) ([]proxyapi.RuleGroup, annotations.Annotations, error) {
	state, err := p.state()
	if err != nil {
		return nil, nil, err
	}
	kind := map[proxyapi.RuleType]string{proxyapi.Alerting: "alert", proxyapi.Recording: "record"}[req.Type]
	var data struct {
		Groups []proxyapi.RuleGroup `json:"groups"`
	}
	warnings, err := p.client.Rules(ctx, kind, &data)
	if err != nil {
		return nil, nil, markProxy("ask Prometheus for its rules", err)
	}
	for gi, g := range data.Groups {
		data.Groups[gi].Abort = true // a single Prometheus knows no partial answers, and says nothing of it
		for i, r := range g.Rules {
			g.Rules[i].Labels = with(r.Labels, state.External)
			for j, a := range r.Alerts {
				r.Alerts[j].Labels = with(a.Labels, state.External)
			}
		}
	}
	groups, err := proxyapi.FilterRules(data.Groups, req)
	return groups, warned(warnings), err
}

// Targets asks for targets.
func (p *Proxy) Targets(ctx context.Context, req proxyapi.TargetsRequest) (proxyapi.TargetDiscovery, annotations.Annotations, error) {
	var data proxyapi.TargetDiscovery
	state, err := p.state()
	if err != nil {
		return data, nil, err
	}
	wanted := req.State
	if wanted == "" {
		wanted = proxyapi.AnyTarget
	}
	warnings, err := p.client.Targets(ctx, string(wanted), &data)
	if err != nil {
		return data, nil, markProxy("ask Prometheus for its targets", err)
	}
	for i, t := range data.Active {
		data.Active[i].DiscoveredLabels, data.Active[i].Labels = with(t.DiscoveredLabels, state.External), with(t.Labels, state.External)
	}
	for i, t := range data.Dropped {
		data.Dropped[i].DiscoveredLabels = with(t.DiscoveredLabels, state.External)
	}
	return data, warned(warnings), nil
}

// MetricMetadata asks for metadata.
func (p *Proxy) MetricMetadata(ctx context.Context, req proxyapi.MetadataRequest) (map[string][]proxyapi.Meta, annotations.Annotations, error) {
	if _, err := p.state(); err != nil || req.Limit == 0 {
		return nil, nil, err
	}
	var data map[string][]proxyapi.Meta
	warnings, err := p.client.Metadata(ctx, req.Metric, req.Limit, &data)
	return data, warned(warnings), markProxy("ask Prometheus for metadata", err)
}

// Exemplars asks for the exemplars of those selectors that the external labels allow.
func (p *Proxy) Exemplars(ctx context.Context, req proxyapi.ExemplarsRequest) ([]proxyapi.SeriesExemplars, annotations.Annotations, error) {
	state, err := p.state()
	if err != nil {
		return nil, nil, err
	}
	query, err := proxyapi.ExemplarQuery(req.Query, []labels.Labels{state.External})
	if err != nil || query == "" {
		return nil, nil, err
	}
	var data []proxyapi.SeriesExemplars
	warnings, err := p.client.Exemplars(ctx, query, req.Start, req.End, &data)
	if err != nil {
		return nil, nil, markProxy("ask Prometheus for exemplars", err)
	}
	for i, s := range data {
		data[i].SeriesLabels = with(s.SeriesLabels, state.External)
	}
	return data, warned(warnings), nil
}

// TSDBStatistics asks for the statistics of the head, under the empty tenant.
func (p *Proxy) TSDBStatistics(ctx context.Context, req proxyapi.StatusRequest) (map[string]proxyapi.TSDBStatus, annotations.Annotations, error) {
	state, err := p.state()
	if err != nil {
		return nil, nil, err
	}
	if _, ok := storeapi.MatchExternal(state.External, req.Matchers); !ok {
		return nil, nil, nil
	}
	var data proxyapi.TSDBStatus
	warnings, err := p.client.TSDBStatus(ctx, req.Limit, &data)
	if err != nil {
		return nil, nil, markProxy("ask Prometheus for the state of its TSDB", err)
	}
	return map[string]proxyapi.TSDBStatus{"": data}, warned(warnings), nil
}

func (p *Proxy) state() (State, error) {
	s, err := p.prom.State()
	if err != nil {
		return s, fmt.Errorf("%w: %w", proxyapi.ErrUnavailable, err)
	}
	return s, nil
}

// markProxy is mark in the words of proxyapi.
func markProxy(doing string, err error) error {
	err = mark(doing, err)
	switch {
	case errors.Is(err, storeapi.ErrBadRequest):
		return fmt.Errorf("%w: %w", proxyapi.ErrBadRequest, err)
	case errors.Is(err, storeapi.ErrUnavailable):
		return fmt.Errorf("%w: %w", proxyapi.ErrUnavailable, err)
	}
	return err
}

// with adds external labels, which win over equal names.
func with(lset, external labels.Labels) labels.Labels {
	final, _ := series.Final(lset, external, nil)
	return final
}

// warned makes annotations of Prometheus' warnings.
func warned(texts []string) annotations.Annotations {
	if len(texts) == 0 {
		return nil
	}
	as := annotations.Annotations{}
	for _, text := range texts {
		as.Add(fmt.Errorf("Prometheus: %s", text))
	}
	return as
}
