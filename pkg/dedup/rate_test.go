package dedup

import (
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/varve-io/varve/pkg/chunkcodec"
)

// rater is PromQL's own rate over (t-window, t].
type rater struct {
	args   parser.Expressions
	enh    promql.EvalNodeHelper
	points []promql.FPoint
}

func newRater(window int64) *rater {
	return &rater{args: parser.Expressions{&parser.MatrixSelector{
		VectorSelector: &parser.VectorSelector{}, Range: time.Duration(window) * time.Millisecond,
	}}}
}

// rate is NaN where PromQL has no result. window is that of newRater.
func (r *rater) rate(s *chunkcodec.Samples, t, window int64) float64 {
	i, _ := slices.BinarySearch(s.T, t-window+1)
	j, _ := slices.BinarySearch(s.T, t+1)
	r.points = r.points[:0]
	for ; i < j; i++ {
		if !value.IsStaleNaN(s.V[i]) {
			r.points = append(r.points, promql.FPoint{T: s.T[i], F: s.V[i]})
		}
	}
	if len(r.points) < 2 {
		return math.NaN()
	}
	r.enh.Ts, r.enh.Out = t, r.enh.Out[:0]
	out, _ := promql.FunctionCalls["rate"](nil, promql.Matrix{{Floats: r.points}}, r.args, &r.enh)
	r.enh.Out = out
	return out[0].F
}

// rateErrors are relative errors of rates, by what was asked: those of the result, of the
// best whole replica, and of the result where it does not show the very samples of a whole replica.
type rateErrors struct{ result, best, made []float64 }

// TestRatesAreThoseOfAWholeReplica asks for rates of windows in which some replica has no hole, and
// compares the errors of the result with those of the best such replica, whichever that is in each window.
// Of several whole replicas the best one is known only to who knows the truth. Over 25,000 worlds the worst of the lucky ones
// may err by less than that of any choice, so at worst only such windows count in which the result is no whole replica's.
func TestRatesAreThoseOfAWholeReplica(t *testing.T) {
	cases := *worlds
	if testing.Short() {
		cases /= 10
	}
	const parts = 4
	var all rateErrors
	var lock sync.Mutex
	t.Run("worlds", func(t *testing.T) {
		for part := range parts {
			t.Run(strconv.Itoa(part), func(t *testing.T) {
				t.Parallel()
				var e rateErrors
				for seed := *first + part; seed < *first+cases; seed += parts {
					w := simulate(uint64(seed))
					if w.wide {
						continue
					}
					w.rates(unpack(t, dedupe(t, w.chunks(t, w.seed)...)), &e)
				}
				lock.Lock()
				defer lock.Unlock()
				all.result, all.best, all.made = append(all.result, e.result...), append(all.best, e.best...), append(all.made, e.made...)
			})
		}
	})
	slices.Sort(all.result)
	slices.Sort(all.best)
	n, limit := len(all.result), 1.2
	if n < 40_000 {
		limit = 1.4 // the p99 and the worst of so few windows, as in 1,000 worlds, are a matter of luck
	}
	for name, i := range map[string]int{"p50": n / 2, "p90": n * 9 / 10, "p99": n * 99 / 100, "worst": n - 1} {
		t.Logf("%s of %d windows: %.4f, the best whole replica's %.4f", name, n, all.result[i], all.best[i])
	}
	if got, best := all.result[n*99/100], all.best[n*99/100]; got > limit*best {
		t.Errorf("p99 of %d windows: error %.4f, want at most %.1f times the best whole replica's %.4f", n, got, limit, best)
	}
	if got, best := slices.Max(all.made), all.best[n-1]; got > limit*best {
		t.Errorf("worst of %d windows: error %.4f, want at most %.1f times the best whole replica's %.4f", n, got, limit, best)
	}
}

// rates asks for some rates at random times.
func (w *world) rates(got *chunkcodec.Samples, e *rateErrors) {
	r := rand.New(rand.NewPCG(w.seed, 14))
	for range 8 {
		at := w.begin + r.Int64N(w.end-w.begin)
		interval := int64(0)
		for i := range w.replicas {
			interval = max(interval, w.step(i, at))
		}
		window := (4+r.Int64N(17))*interval + r.Int64N(interval)
		if at-window < w.begin {
			continue
		}
		rater := newRater(window)
		truth := (w.rise(at) - w.rise(at-window)) / float64(window) * 1000
		off := func(s *chunkcodec.Samples) float64 {
			if rate := rater.rate(s, at, window); !math.IsNaN(rate) {
				return math.Abs(rate-truth) / truth
			}
			return 1
		}
		best, made := math.Inf(1), true
		for i := range w.replicas {
			if w.wholeBetween(i, at-window, at) {
				best = min(best, off(&w.replicas[i]))
				made = made && !slices.Equal(scrapes(cut(&w.replicas[i], at-window, at+1)), scrapes(cut(got, at-window, at+1)))
			}
		}
		if math.IsInf(best, 1) {
			continue
		}
		e.result, e.best = append(e.result, off(got)), append(e.best, best)
		if made {
			e.made = append(e.made, off(got))
		}
	}
}

// wholeBetween reports whether replica r has no hole between two times.
func (w *world) wholeBetween(r int, from, to int64) bool {
	times := scrapes(&w.replicas[r])
	i, _ := slices.BinarySearch(times, from)
	last := from
	for ; i < len(times) && times[i] <= to; i++ {
		if tooFar(times[i]-last, w.stepAt(r, times[i])) {
			return false
		}
		last = times[i]
	}
	return !tooFar(to-last, w.stepAt(r, to))
}
