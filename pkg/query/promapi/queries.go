package promapi

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/varve-io/varve/pkg/query"
)

// maxPoints is the most points of a series that a range query may ask for.
const maxPoints = 11000

func (a *API) instant(ctx context.Context, p *params) (answer, error) {
	at, limit, params := p.time("time", a.now()), p.limit(), p.query(0)
	if p.err() != nil {
		return answer{}, p.err()
	}
	result, err := a.Engine.Instant(ctx, p.form.Get("query"), at, params)
	if err != nil {
		return answer{}, err
	}
	return queryAnswer(result, limit, p.form.Get("stats")), nil
}

func (a *API) rangeQuery(ctx context.Context, p *params) (answer, error) {
	steps, limit := p.steps(), p.limit()
	params := p.query(steps.Step)
	if p.err() != nil {
		return answer{}, p.err()
	}
	result, err := a.Engine.Range(ctx, p.form.Get("query"), steps, params)
	if err != nil {
		return answer{}, err
	}
	return queryAnswer(result, limit, p.form.Get("stats")), nil
}

// steps reads start, end and step; without a step about 250 points are answered.
func (p *params) steps() query.Steps {
	s := query.Steps{Start: p.needTime("start"), End: p.needTime("end")}
	if p.err() == nil && s.End.Before(s.Start) {
		p.fail("end", errors.New("end timestamp must not be before start time"))
	}
	points := s.End.Sub(s.Start).Seconds() / 250
	automatic := max(time.Duration(math.Floor(points))*time.Second, p.api.opts.DefaultStep)
	s.Step = p.duration("step", automatic)
	switch {
	case s.Step <= 0:
		p.fail("step", errors.New("zero or negative query resolution step widths are not accepted. Try a positive integer"))
	case s.Step < time.Millisecond:
		p.fail("step", errors.New("a step is at least one millisecond"))
	case s.End.Sub(s.Start)/s.Step > maxPoints:
		p.fail("step", errors.New("exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"))
	}
	return s
}

var errTruncated = errors.New("results truncated due to limit")

func queryAnswer(result *query.Answer, limit int, wantStats string) answer {
	ans := answer{warnings: result.Warnings, release: result.Close}
	data := queryData{value: result.Value}
	if limit > 0 {
		switch v := result.Value.(type) {
		case promql.Matrix:
			if len(v) > limit {
				data.value = v[:limit]
				ans.warnings.Add(errTruncated)
			}
		case promql.Vector:
			if len(v) > limit {
				data.value = v[:limit]
				ans.warnings.Add(errTruncated)
			}
		}
	}
	if wantStats != "" {
		data.stats = queryStats{stats.NewQueryStats(result.Stats).Builtin(), fanout(result.Fetches)}
	}
	ans.data = data
	return ans
}

func scanVersion(module string, minor, patch *int) bool {
	n, err := fmt.Sscanf(module, "v0.%d.%d", minor, patch)
	return err == nil && n == 2
}

// formatVersion turns 315, 0 into 3.15.0.
func formatVersion(minor, patch int) string {
	return fmt.Sprintf("%d.%d.%d", minor/100, minor%100, patch)
}
