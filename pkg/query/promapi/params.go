package promapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/query"
)

// params reads the parameters of one request. The first one that does not parse
// is remembered; what was read after it is not to be used.
type params struct {
	api   *API
	form  url.Values
	path  func(name string) string
	first error
}

func (p *params) fail(name string, err error) {
	if p.first == nil {
		p.first = badData("invalid parameter %q: %w", name, err)
	}
}

func (p *params) err() error { return p.first }

// context ends after the timeout that the request asks for, else that of queries.
func (p *params) context(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, p.duration("timeout", p.api.Engine.Options().Timeout))
}

func (p *params) time(name string, otherwise time.Time) time.Time {
	text := p.form.Get(name)
	if text == "" {
		return otherwise
	}
	t, err := parseTime(text)
	if err != nil {
		p.fail(name, err)
	}
	return t
}

// needTime is time for a parameter that must be there.
func (p *params) needTime(name string) time.Time {
	t, err := parseTime(p.form.Get(name))
	if err != nil {
		p.fail(name, err)
	}
	return t
}

func (p *params) duration(name string, otherwise time.Duration) time.Duration {
	text := p.form.Get(name)
	if text == "" {
		return otherwise
	}
	d, err := parseDuration(text)
	if err != nil {
		p.fail(name, err)
	}
	return d
}

func (p *params) bool(name string, otherwise bool) bool {
	text := p.form.Get(name)
	if text == "" {
		return otherwise
	}
	b, err := strconv.ParseBool(text)
	if err != nil {
		p.fail(name, err)
	}
	return b
}

func (p *params) int(name string, otherwise int) int {
	text := p.form.Get(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		p.fail(name, errors.New(name+" must be a number"))
	}
	return n
}

// limit is 0 for no limit.
func (p *params) limit() int {
	n := p.int("limit", 0)
	if n < 0 {
		p.fail("limit", errors.New("limit must be non-negative"))
	}
	return n
}

// query reads the parameters that all queries share. step is 0 for an instant query.
func (p *params) query(step time.Duration) query.Params {
	o := p.api.Engine.Options()
	q := query.Params{
		Dedup:           p.bool("dedup", true),
		ReplicaLabels:   o.ReplicaLabels,
		PartialResponse: p.bool("partial_response", p.api.opts.PartialResponse),
		StoreMatchers:   p.selectors("storeMatch[]"),
		Lookback:        p.duration("lookback_delta", 0),
		MaxResolution:   p.resolution(step),
		Stats:           p.form.Get("stats") != "",
		StatsPerStep:    p.form.Get("stats") == "all",
		Shard:           p.shard(),
	}
	if replicas := p.form["replicaLabels[]"]; len(replicas) > 0 {
		q.ReplicaLabels = replicas
	}
	switch engine := p.form.Get("engine"); engine {
	case "", "prometheus", "thanos":
	default:
		p.fail("engine", fmt.Errorf("unknown engine %q; it is prometheus or thanos, which both mean the same here", engine))
	}
	return q
}

// shard reads shard_info, which Thanos' query-frontend sends to have a query
// answered in parts.
func (p *params) shard() *query.Shard {
	text := p.form.Get("shard_info")
	if text == "" {
		return nil
	}
	var info struct {
		Index  int64    `json:"shard_index"`
		Total  int64    `json:"total_shards"`
		By     bool     `json:"by"`
		Labels []string `json:"labels"`
	}
	if err := json.Unmarshal([]byte(text), &info); err != nil {
		p.fail("shard_info", err)
		return nil
	}
	if info.Total < 1 {
		return nil // not sharded
	}
	if info.Index < 0 || info.Index >= info.Total {
		p.fail("shard_info", fmt.Errorf("shard %d of %d does not exist", info.Index, info.Total))
	}
	return &query.Shard{Index: info.Index, Total: info.Total, By: info.By, Labels: info.Labels}
}

// resolution is the coarsest resolution wanted. A query that does not say gets
// auto, unless that is switched off.
func (p *params) resolution(step time.Duration) time.Duration {
	const name = "max_source_resolution"
	text := p.form.Get(name)
	if text == "auto" || text == "" && p.api.Engine.Options().AutoDownsampling {
		return p.api.Engine.AutoResolution(step)
	}
	d := p.duration(name, 0)
	if d < 0 {
		p.fail(name, errors.New("negative resolutions do not exist; try 0s, 5m or 1h"))
	}
	return d
}

// selectors parses every value of a repeated parameter as a series selector.
func (p *params) selectors(name string) (sets [][]*labels.Matcher) {
	for _, text := range p.form[name] {
		matchers, err := p.api.Engine.ParseSelector(text)
		if err != nil {
			p.fail(name, err)
		}
		sets = append(sets, matchers)
	}
	return sets
}

// matchers are the selectors in match[]; each must exclude something.
func (p *params) matchers() [][]*labels.Matcher {
	sets := p.selectors("match[]")
	for _, set := range sets {
		useful := false
		for _, m := range set {
			useful = useful || !m.Matches("")
		}
		if !useful {
			p.fail("match[]", errors.New("match[] must contain at least one non-empty matcher"))
		}
	}
	return sets
}

// metadataRange is the time range of a label or series call.
func (p *params) metadataRange() (mint, maxt int64) {
	earliest, latest := time.UnixMilli(math.MinInt64/1000), time.UnixMilli(math.MaxInt64/1000)
	if back := p.api.opts.MetadataRange; back > 0 {
		latest = p.api.now()
		earliest = latest.Add(-back)
	}
	start, end := p.time("start", earliest), p.time("end", latest)
	if end.Before(start) {
		p.fail("end", errors.New("end timestamp must not be before start time"))
	}
	return start.UnixMilli(), end.UnixMilli()
}

func parseTime(s string) (time.Time, error) {
	if t, err := strconv.ParseFloat(s, 64); err == nil && math.Abs(t) < math.MaxInt64/1000 {
		seconds, fraction := math.Modf(t)
		fraction = math.Round(fraction*1000) / 1000
		return time.Unix(int64(seconds), int64(fraction*float64(time.Second))).UTC(), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	return time.Time{}, fmt.Errorf("cannot parse %q to a valid timestamp", s)
}

func parseDuration(s string) (time.Duration, error) {
	if d, err := strconv.ParseFloat(s, 64); err == nil {
		ns := d * float64(time.Second)
		if math.IsNaN(ns) || ns > math.MaxInt64 || ns < math.MinInt64 {
			return 0, fmt.Errorf("cannot parse %q to a valid duration. It overflows int64", s)
		}
		return time.Duration(ns), nil
	}
	if d, err := model.ParseDuration(s); err == nil {
		return time.Duration(d), nil
	}
	return 0, fmt.Errorf("cannot parse %q to a valid duration", s)
}
