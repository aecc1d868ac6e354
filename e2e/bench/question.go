package main

import (
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/varve-io/varve/pkg/storeapi/storepb"
)

// question is a selector over a time.
type question struct {
	matchers   []*labels.Matcher
	mint, maxt int64 // inclusive, as in the request
}

func (q question) String() string {
	at := func(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }
	return fmt.Sprintf("%v from %s to %s", q.matchers, at(q.mint), at(q.maxt))
}

// over asks a selector about the last hours of the data.
func (d *dataset) over(hours int, selector string) question {
	return question{
		matchers: mustParse(selector),
		mint:     d.end().Add(-time.Duration(hours) * time.Hour).UnixMilli(), maxt: d.end().UnixMilli() - 1,
	}
}

// compactedOver asks a selector about the last hours of the block of two days.
func (d *dataset) compactedOver(hours int, selector string) question {
	q, end := d.over(hours, selector), d.compactedEnd()
	q.mint, q.maxt = end.Add(-time.Duration(hours)*time.Hour).UnixMilli(), end.UnixMilli()-1
	return q
}

// mustParse parses a selector of this program's own.
func mustParse(selector string) []*labels.Matcher {
	m, err := parser.NewParser(parser.Options{}).ParseMetricSelector(selector)
	if err != nil {
		panic(fmt.Sprintf("parse %s: %v", selector, err))
	}
	return m
}

// selects reports whether all matchers match.
func (q question) selects(lset labels.Labels) bool {
	for _, m := range q.matchers {
		if !m.Matches(lset.Get(m.Name)) {
			return false
		}
	}
	return true
}

// request is the question as queriers of both kinds put it.
func (q question) request() *storepb.SeriesRequest {
	return &storepb.SeriesRequest{
		MinTime: q.mint, MaxTime: q.maxt, Matchers: q.wire(),
		Aggregates:              []storepb.Aggr{storepb.Aggr_RAW},
		PartialResponseStrategy: storepb.PartialResponseStrategy_ABORT,
		ResponseBatchSize:       64,
	}
}

func (q question) wire() []*storepb.LabelMatcher {
	var all []*storepb.LabelMatcher
	for _, m := range q.matchers {
		// The types are numbered alike.
		all = append(all, &storepb.LabelMatcher{Type: storepb.LabelMatcher_Type(m.Type), Name: m.Name, Value: m.Value})
	}
	return all
}
