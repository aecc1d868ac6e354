package promapi

import (
	"context"

	"github.com/varve-io/varve/pkg/query"
)

// abort reports whether a missing endpoint is an error.
func (p *params) abort() query.Strategy {
	return query.Strategy(!p.bool("partial_response", p.api.opts.PartialResponse))
}

func (p *params) rulesRequest() query.RulesRequest {
	req := query.RulesRequest{
		Match: p.form["match[]"], Names: p.form["rule_name[]"], Groups: p.form["rule_group[]"], Files: p.form["file[]"],
		Abort: p.abort(),
	}
	p.selectors("match[]") // to complain in the usual words
	switch kind := p.form.Get("type"); kind {
	case "":
	case "alert":
		req.Type = query.Alerting
	case "record":
		req.Type = query.Recording
	default:
		p.fail("type", badData("not supported value %q", kind))
	}
	return req
}

func (a *API) rules(ctx context.Context, p *params) (answer, error) {
	req := p.rulesRequest()
	if p.err() != nil {
		return answer{}, p.err()
	}
	groups, warnings, err := a.Proxy.Rules(ctx, req)
	if groups == nil {
		groups = []query.RuleGroup{}
	}
	return answer{data: map[string]any{"groups": groups}, warnings: warnings}, err
}

// alerts lists the instances of all alerting rules.
func (a *API) alerts(ctx context.Context, p *params) (answer, error) {
	req := query.RulesRequest{Type: query.Alerting, Abort: p.abort()}
	if p.err() != nil {
		return answer{}, p.err()
	}
	groups, warnings, err := a.Proxy.Rules(ctx, req)
	alerts := []query.Alert{}
	for _, g := range groups {
		for _, r := range g.Rules {
			alerts = append(alerts, r.Alerts...)
		}
	}
	return answer{data: map[string]any{"alerts": alerts}, warnings: warnings}, err
}

func (a *API) targets(ctx context.Context, p *params) (answer, error) {
	req := query.TargetsRequest{Abort: p.abort()}
	switch state := p.form.Get("state"); state {
	case "":
	case "any", "active", "dropped":
		req.State = query.TargetState(state)
	default:
		p.fail("state", badData("%q is none of any, active, dropped", state))
	}
	if p.err() != nil {
		return answer{}, p.err()
	}
	found, warnings, err := a.Proxy.Targets(ctx, req)
	return answer{data: found, warnings: warnings}, err
}

func (a *API) metadata(ctx context.Context, p *params) (answer, error) {
	req := query.MetadataRequest{Metric: p.form.Get("metric"), Limit: p.int("limit", -1), Abort: p.abort()}
	if p.err() != nil {
		return answer{}, p.err()
	}
	found, warnings, err := a.Proxy.MetricMetadata(ctx, req)
	return answer{data: found, warnings: warnings}, err
}

func (a *API) exemplars(ctx context.Context, p *params) (answer, error) {
	mint, maxt := p.metadataRange()
	req := query.ExemplarsRequest{Query: p.form.Get("query"), Start: mint, End: maxt, Abort: p.abort()}
	if _, err := a.Engine.ParseSelectors(req.Query); err != nil {
		p.fail("query", err)
	}
	if p.err() != nil {
		return answer{}, p.err()
	}
	found, warnings, err := a.Proxy.Exemplars(ctx, req)
	if len(found) == 0 {
		return answer{data: []string{}, warnings: warnings}, err
	}
	return answer{data: found, warnings: warnings}, err
}
