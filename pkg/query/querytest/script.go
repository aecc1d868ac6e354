package querytest

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/query"
)

// Run runs a script: upstream's load, eval and clear, and between them
//
//	store NAME                 the blocks of the following loads are served by this store
//	replica NAME               they come from this replica
//	resolution raw|5m|1h       they are held at this resolution alone
//	gap FROM TO                the next load lacks the samples of [FROM, TO), measured from the epoch
//
// Every load makes a block. Expressions are evaluated by query.Engine as a query
// without parameters is, so what the script expects is what a user sees.
func Run(t *testing.T, script string) {
	t.Helper()
	s := &runner{t: t, store: "1", replica: "a", stores: map[string]int{}}
	for _, command := range commands(script) {
		s.run(command)
	}
}

// commands cuts a script into commands: a line, and for load and eval the lines
// up to the next empty one.
func commands(script string) (all []string) {
	var open []string
	flush := func() {
		if len(open) > 0 {
			all = append(all, strings.Join(open, "\n"))
		}
		open = nil
	}
	for line := range strings.Lines(script) {
		line = strings.TrimRight(line, " \n")
		switch word, _, _ := strings.Cut(strings.TrimSpace(line), " "); {
		case word == "" || strings.HasPrefix(word, "#"):
			flush()
		case len(open) > 0 && strings.HasPrefix(line, " ") || len(open) > 0 && word == "expect":
			open = append(open, line)
		default:
			flush()
			open = []string{line}
		}
	}
	flush()
	return all
}

// runner is a script on its way.
type runner struct {
	t              *testing.T
	store, replica string
	resolution     block.Resolution
	gaps           [][2]int64

	blocks []stored
	stores map[string]int // place by name
	world  *world         // nil: blocks have been added
}

// stored is the block of one load.
type stored struct {
	store string
	heldBlock
}

func (s *runner) run(command string) {
	s.t.Helper()
	words := strings.Fields(command)
	switch {
	case words[0] == "store" && len(words) == 2:
		s.store = words[1]
	case words[0] == "replica" && len(words) == 2:
		s.replica = words[1]
	case words[0] == "resolution" && len(words) == 2:
		s.resolution = s.parseResolution(words[1])
	case words[0] == "gap" && len(words) == 3:
		s.gaps = append(s.gaps, [2]int64{s.parseTime(words[1]), s.parseTime(words[2])})
	case words[0] == "load":
		s.load(command)
	case words[0] == "eval":
		s.eval(command)
	case command == "clear":
		s.blocks, s.stores, s.world = nil, map[string]int{}, nil
	default:
		s.t.Fatalf("no such command: %q", command)
	}
}

func (s *runner) parseTime(text string) int64 {
	d, err := model.ParseDuration(text)
	if err != nil {
		s.t.Fatalf("gap: %v", err)
	}
	return time.Duration(d).Milliseconds()
}

func (s *runner) parseResolution(text string) block.Resolution {
	for _, r := range []block.Resolution{block.Raw, block.FiveMin, block.OneHour} {
		if r.String() == text {
			return r
		}
	}
	s.t.Fatalf("resolution %q is none of raw, 5m, 1h", text)
	return 0
}

func (s *runner) load(command string) {
	s.t.Helper()
	series := blocktest.Load(s.t, command+"\n")
	for _, gap := range s.gaps {
		series = slices.Concat(cut(series, math.MinInt64, gap[0]), cut(series, gap[1], math.MaxInt64))
	}
	s.gaps = nil
	if _, known := s.stores[s.store]; !known {
		s.stores[s.store] = len(s.stores)
	}
	s.blocks = append(s.blocks, stored{s.store, heldBlock{replica: s.replica, resolution: s.resolution, series: join(series)}})
	s.world = nil
}

// join makes one series of neighbours and others that have the same labels.
func join(in []blocktest.Series) (out []blocktest.Series) {
	at := map[string]int{}
	for _, s := range in {
		key := s.Labels.String()
		i, known := at[key]
		if !known {
			at[key] = len(out)
			out = append(out, s)
			continue
		}
		out[i].Samples = append(slices.Clone(out[i].Samples), s.Samples...)
	}
	return out
}

func (s *runner) eval(command string) {
	s.t.Helper()
	if s.world == nil {
		bkt, places := bucket.NewMemory(), map[string]int{}
		for i, b := range s.blocks {
			places[b.upload(s.t, bkt, byte(i)).String()] = s.stores[b.store]
		}
		s.world = open(s.t, bkt, max(1, len(s.stores)), func(e *block.Entry) int { return places[e.Meta.ULID.String()] })
	}
	name, _, _ := strings.Cut(command, "\n")
	s.t.Run(name, func(t *testing.T) {
		promqltest.RunTestWithStorage(t, command+"\n", scripted{s.world.engine}, func(testing.TB) storage.Storage { return still{} })
	})
}

// still is a storage that nobody asks: scripted evaluates over the world.
type still struct{ storage.Storage }

func (still) Close() error { return nil }

// scripted is our engine in the shape that promqltest drives.
type scripted struct{ engine *query.Engine }

func (s scripted) NewInstantQuery(_ context.Context, _ storage.Queryable, _ promql.QueryOpts, expr string, at time.Time) (promql.Query, error) {
	return &question{expr: expr, ask: func(ctx context.Context) (*query.Answer, error) {
		return s.engine.Instant(ctx, expr, at, params())
	}}, nil
}

func (s scripted) NewRangeQuery(_ context.Context, _ storage.Queryable, _ promql.QueryOpts, expr string, start, end time.Time, step time.Duration) (promql.Query, error) { //nolint:revive // the signature is upstream's
	p := params()
	p.MaxResolution = s.engine.AutoResolution(step)
	return &question{expr: expr, ask: func(ctx context.Context) (*query.Answer, error) {
		return s.engine.Range(ctx, expr, query.Steps{Start: start, End: end, Step: step}, p)
	}}, nil
}

// question is a promql.Query.
type question struct {
	expr   string
	ask    func(context.Context) (*query.Answer, error)
	answer *query.Answer
}

func (q *question) Exec(ctx context.Context) *promql.Result {
	answer, err := q.ask(ctx)
	if err != nil {
		return &promql.Result{Err: fmt.Errorf("evaluate %s: %w", q.expr, err)}
	}
	q.answer = answer
	return &promql.Result{Value: answer.Value, Warnings: answer.Warnings}
}

func (q *question) Close()                      { q.answer.Close() }
func (q *question) Statement() parser.Statement { return nil }
func (q *question) Stats() *stats.Statistics    { return nil }
func (q *question) Cancel()                     {}
func (q *question) String() string              { return q.expr }
