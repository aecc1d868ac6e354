package query

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/stats"
	"golang.org/x/sync/semaphore"

	"github.com/varve-io/varve/pkg/panics"
	"github.com/varve-io/varve/pkg/storeapi"
)

// Engine evaluates PromQL over a Store. It is safe for concurrent use.
type Engine struct {
	store   storeapi.Store
	opts    Options
	parser  parser.Parser
	promql  *promql.Engine
	budget  *Budget
	metrics *engineMetrics
}

// NewEngine returns an engine over a store, most of the time a Fanout.
func NewEngine(store storeapi.Store, o Options, log *slog.Logger, reg prometheus.Registerer) *Engine {
	p := parser.NewParser(parser.Options{EnableExperimentalFunctions: o.ExperimentalFunctions})
	budget := NewBudget(o.MaxBytes, o.MaxTotalBytes)
	return &Engine{
		store: store, opts: o, parser: p, budget: budget, metrics: newEngineMetrics(reg, o, budget),
		promql: promql.NewEngine(promql.EngineOpts{
			Logger:                   log,
			Reg:                      prometheus.WrapRegistererWithPrefix("varve_", reg),
			MaxSamples:               o.MaxSamples,
			Timeout:                  o.Timeout,
			ActiveQueryTracker:       &gate{slots: semaphore.NewWeighted(int64(o.MaxConcurrent)), max: o.MaxConcurrent},
			LookbackDelta:            o.LookbackDelta,
			NoStepSubqueryIntervalFn: func(int64) int64 { return o.DefaultEvaluationInterval.Milliseconds() },
			EnableAtModifier:         true,
			EnableNegativeOffset:     true,
			EnablePerStepStats:       true,
			Parser:                   p,
		}),
	}
}

// Options are the settings that the engine was made with.
func (e *Engine) Options() Options { return e.opts }

// AutoResolution is the coarsest resolution for a query that asks for auto: a
// fifth of the step, or the configured one for an instant query, whose step is 0.
func (e *Engine) AutoResolution(step time.Duration) time.Duration {
	if step == 0 {
		return e.opts.InstantMaxSourceResolution
	}
	return step / 5
}

// ParseSelector parses a series selector as match[] has them.
func (e *Engine) ParseSelector(text string) ([]*labels.Matcher, error) {
	matchers, err := e.parser.ParseMetricSelector(text)
	if err != nil {
		return nil, fmt.Errorf("parse selector %q: %w", text, err)
	}
	return matchers, nil
}

// ParseSelectors parses an expression and returns the matchers of its selectors.
func (e *Engine) ParseSelectors(expr string) ([][]*labels.Matcher, error) {
	parsed, err := e.parser.ParseExpr(expr)
	if err != nil {
		return nil, fmt.Errorf("parse %q: %w", expr, err)
	}
	return parser.ExtractSelectors(parsed), nil
}

// ErrBadQuery marks an expression that cannot be evaluated as it stands.
var ErrBadQuery = errors.New("invalid query")

// ErrInternal marks a request that ended in a panic.
var ErrInternal = panics.Err

// Answer is the result of a query. Close it when the value is not used any more.
type Answer struct {
	Value    parser.Value
	Warnings annotations.Annotations
	Stats    *stats.Statistics
	// Fetches are what endpoints did, if Params.Stats asked for that.
	Fetches []Fetch

	closers []func()
}

// Close lets go of the value and of the query's memory account. It may be called on nil.
func (a *Answer) Close() {
	if a == nil {
		return
	}
	for _, c := range a.closers {
		c()
	}
	a.closers = nil
}

// Instant evaluates an expression at one point in time.
func (e *Engine) Instant(ctx context.Context, expr string, at time.Time, p Params) (*Answer, error) {
	return e.evaluate(ctx, request{expr, 0, p}, func(q *queryable, text string) (promql.Query, error) {
		return e.promql.NewInstantQuery(ctx, q, p.engineOptions(), text, at)
	})
}

// Steps are the points in time of a range query, both ends included.
type Steps struct {
	Start, End time.Time
	Step       time.Duration
}

// Range evaluates an expression at every step.
func (e *Engine) Range(ctx context.Context, expr string, s Steps, p Params) (*Answer, error) {
	return e.evaluate(ctx, request{expr, s.End.Sub(s.Start), p}, func(q *queryable, text string) (promql.Query, error) {
		return e.promql.NewRangeQuery(ctx, q, p.engineOptions(), text, s.Start, s.End, s.Step)
	})
}

// request is a query over a span of time, which is 0 for an instant.
type request struct {
	expr   string
	over   time.Duration
	params Params
}

// evaluate runs the expression as it stands when raw data are wanted, rewritten
// when coarse ones are welcome; and once more, rewritten, when coarse data
// turned up where raw ones were wanted and a function reads them differently.
func (e *Engine) evaluate(ctx context.Context, r request, newQuery newQuery) (*Answer, error) {
	e.metrics.inFlight.Inc()
	defer e.metrics.inFlight.Dec()
	parsed, err := e.parser.ParseExpr(r.expr)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadQuery, err)
	}
	if err := refuseMarks(parsed); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadQuery, err)
	}
	if err := refuseLongSubqueries(parsed, r.over, e.opts.DefaultEvaluationInterval); err != nil {
		return nil, err
	}
	rewritten, err := rewriteForAggregates(parsed) // parsed is not used from here on
	if err != nil {
		return nil, err
	}
	coarse := attempt{text: rewritten, params: r.params, rewritten: true}
	if r.params.resolution() > 0 {
		answer, _, err := e.run(ctx, coarse, newQuery)
		return answer, err
	}
	answer, served, err := e.run(ctx, attempt{text: r.expr, params: r.params}, newQuery)
	if err == nil && served.misread {
		answer.Close()
		answer, _, err = e.run(ctx, coarse, newQuery)
	}
	return answer, err
}

// attempt is one evaluation of a query.
type attempt struct {
	text      string
	params    Params
	rewritten bool
}

// newQuery prepares a text for evaluation over a queryable.
type newQuery func(q *queryable, text string) (promql.Query, error)

// run evaluates one text on an account of its own.
func (e *Engine) run(ctx context.Context, a attempt, newQuery newQuery) (*Answer, *served, error) {
	s := &served{}
	q := e.queryable(a.params, s)
	q.rewritten = a.rewritten
	if a.rewritten {
		e.metrics.rewritten.Inc()
	}
	query, err := newQuery(q, a.text)
	if err != nil {
		return nil, s, e.explain(ctx, err)
	}
	ctx, closeAccount := e.budget.Open(ctx)
	var done fetches
	if a.params.Stats {
		ctx = done.within(ctx)
	}
	answer := &Answer{Stats: query.Stats(), closers: []func(){query.Close, closeAccount}}
	result := query.Exec(ctx)
	if result.Err != nil {
		answer.Close()
		return nil, s, e.explain(ctx, result.Err)
	}
	answer.Value, answer.Warnings, answer.Fetches = result.Value, result.Warnings, done.sorted()
	for _, info := range s.infos() {
		answer.Warnings.Add(info)
	}
	return answer, s, nil
}

// explain counts queries ended by a limit and tells bad ones from those that were given up while they waited.
func (e *Engine) explain(ctx context.Context, err error) error {
	var tooMany promql.ErrTooManySamples
	switch {
	case errors.As(err, &tooMany):
		e.metrics.limited.Inc()
		return fmt.Errorf("%w, the limit of one query (--query.max-samples=%d); shorten the time range, lengthen the step, or add matchers: %w",
			err, e.opts.MaxSamples, storeapi.ErrLimit)
	case IsLimit(err):
		e.metrics.limited.Inc()
	case errors.Is(ctx.Err(), context.DeadlineExceeded) && errors.Is(err, ctx.Err()):
		return fmt.Errorf("query not begun: %w", promql.ErrQueryTimeout("waiting for its turn"))
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return fmt.Errorf("query not begun: %w", promql.ErrQueryCanceled("waiting for its turn"))
	}
	return err
}

// Begin opens an account for a request that is no query: label and series calls.
func (e *Engine) Begin(ctx context.Context) (_ context.Context, end func()) {
	return e.budget.Open(ctx)
}

// gate lets a number of queries be evaluated at once. It is a promql.QueryTracker.
type gate struct {
	slots *semaphore.Weighted
	max   int
	next  atomic.Int64
}

func (g *gate) GetMaxConcurrent() int { return g.max }

func (g *gate) Insert(ctx context.Context, _ string) (int, error) {
	if err := g.slots.Acquire(ctx, 1); err != nil {
		return 0, err
	}
	return int(g.next.Add(1)), nil
}

func (g *gate) Delete(int) { g.slots.Release(1) }

func (g *gate) Close() error { return nil }
