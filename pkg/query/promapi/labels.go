package promapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/varve-io/varve/pkg/query"
)

// metadataParams are the query parameters of label calls, which never merge
// replicas: the replica label is a label like any other there.
func (p *params) metadataParams() query.Params {
	return query.Params{
		PartialResponse: p.bool("partial_response", p.api.opts.PartialResponse),
		StoreMatchers:   p.selectors("storeMatch[]"),
	}
}

type labelCall func(q storage.Querier, hints *storage.LabelHints, matchers []*labels.Matcher) ([]string, annotations.Annotations, error)

func (a *API) labelNames(ctx context.Context, p *params) (answer, error) {
	return a.labels(p, func(q storage.Querier, h *storage.LabelHints, m []*labels.Matcher) ([]string, annotations.Annotations, error) {
		return q.LabelNames(ctx, h, m...)
	})
}

func (a *API) labelValues(ctx context.Context, p *params) (answer, error) {
	name := p.path("name")
	if strings.HasPrefix(name, "U__") {
		name = model.UnescapeName(name, model.ValueEncodingEscaping)
	}
	if !model.UTF8Validation.IsValidLabelName(name) {
		return answer{}, badData("invalid label name: %q", name)
	}
	return a.labels(p, func(q storage.Querier, h *storage.LabelHints, m []*labels.Matcher) ([]string, annotations.Annotations, error) {
		return q.LabelValues(ctx, name, h, m...)
	})
}

// labels makes one call per match[] and unites the answers.
func (a *API) labels(p *params, call labelCall) (_ answer, err error) {
	mint, maxt := p.metadataRange()
	limit, sets, params := p.limit(), p.matchers(), p.metadataParams()
	if p.err() != nil {
		return answer{}, p.err()
	}
	q, err := a.Engine.Queryable(params).Querier(mint, maxt)
	if err != nil {
		return answer{}, fmt.Errorf("open querier: %w", err)
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	if len(sets) == 0 {
		sets = [][]*labels.Matcher{nil}
	}
	found := []string{}
	var warnings annotations.Annotations
	for _, matchers := range sets {
		hints := &storage.LabelHints{}
		if limit > 0 {
			hints.Limit = limit + 1 // one more, to know that there are more
		}
		part, warned, err := call(q, hints, matchers)
		if err != nil {
			return answer{}, err
		}
		found = append(found, part...)
		warnings.Merge(warned)
	}
	slices.Sort(found)
	found = slices.Compact(found)
	if limit > 0 && len(found) > limit {
		found = found[:limit]
		warnings.Add(errTruncated)
	}
	return answer{data: found, warnings: warnings}, nil
}

func (a *API) series(ctx context.Context, p *params) (answer, error) {
	if len(p.form["match[]"]) == 0 {
		return answer{}, badData("no match[] parameter provided")
	}
	mint, maxt := p.metadataRange()
	limit, sets, params := p.limit(), p.matchers(), p.query(0)
	if p.err() != nil {
		return answer{}, p.err()
	}
	ctx, end := a.Engine.Begin(ctx)
	found, warnings, err := a.selectSeries(ctx, params, sets, storage.SelectHints{Start: mint, End: maxt, Limit: limit})
	if err != nil {
		end()
		return answer{}, err
	}
	if limit > 0 && len(found) > limit {
		found = found[:limit]
		warnings.Add(errTruncated)
	}
	return answer{data: labelSets(found), warnings: warnings, release: end}, nil
}

// selectSeries returns the label sets of all selectors, sorted and each once.
func (a *API) selectSeries(ctx context.Context, params query.Params, sets [][]*labels.Matcher, hints storage.SelectHints) (_ []labels.Labels, _ annotations.Annotations, err error) {
	q, err := a.Engine.Queryable(params).Querier(hints.Start, hints.End)
	if err != nil {
		return nil, nil, fmt.Errorf("open querier: %w", err)
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	hints.Func = "series" // labels only
	if hints.Limit > 0 {
		hints.Limit++ // one more, to know that there are more
	}
	selected := make([]storage.SeriesSet, len(sets))
	for i, matchers := range sets {
		selected[i] = q.Select(ctx, true, &hints, matchers...)
	}
	found := []labels.Labels{}
	var warnings annotations.Annotations
	for _, set := range selected {
		for set.Next() {
			found = append(found, set.At().Labels())
		}
		if set.Err() != nil {
			return nil, nil, set.Err()
		}
		warnings.Merge(set.Warnings())
	}
	slices.SortFunc(found, labels.Compare)
	return slices.CompactFunc(found, labels.Equal), warnings, nil
}
