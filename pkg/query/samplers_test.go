package query

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/varve-io/varve/pkg/block"
)

// firstHalf is what the first half of a window in the middle of a series is given of its sum.
func firstHalf(sums ...float64) float64 {
	const r = int64(block.FiveMin)
	w := windowed{resolution: r, aggregate: sum}
	for i, s := range sums {
		w.windows = append(w.windows, point{int64(i+1)*r - 1, value{f: s}})
	}
	i := len(sums) / 2
	return w.share(i, w.start(i), w.start(i)+r/2).f
}

func TestAPartOfASumIsWhatNeighboursBearOut(t *testing.T) {
	inf := math.Inf(1)
	for name, tc := range map[string]struct {
		sums []float64
		want float64
	}{
		"even":                             {[]float64{8, 8, 8, 8, 8}, 4},
		"alone":                            {[]float64{8}, 4},
		"rising":                           {[]float64{0, 8, 16, 24, 32}, 7},
		"bending":                          {[]float64{0, 1, 4, 9, 16}, 1.5},
		"beside a summit":                  {[]float64{5, 8, 9, 8, 5}, 4.5},
		"beside a trough":                  {[]float64{12, 10, 10, 12, 16}, 4.875},
		"rising at the end":                {[]float64{16, 8}, 4}, // one step says nothing
		"before a jump":                    {[]float64{8, 8, 8, 80, 80}, 4},
		"after a jump":                     {[]float64{0, 0, 8, 8, 8}, 4},
		"a peak alone":                     {[]float64{8, 8, 80, 8, 8}, 40},
		"nothing, between smooth slopes":   {[]float64{9, 4, 0, 4, 9}, 0},
		"nothing, where a slope would end": {[]float64{16, 6, 0, 0, 6}, 0},
		"beside what has no end":           {[]float64{1, inf, 8, -inf, 1}, 4},
		"beside what is no number":         {[]float64{1, math.NaN(), 8, 16, 24}, 3}, // as if nothing were there
	} {
		if got := firstHalf(tc.sums...); math.Abs(got-tc.want) > 1e-4*math.Max(1, tc.want) {
			t.Errorf("%s: of %v the first half of the middle one gets %v, want %v", name, tc.sums, got, tc.want)
		}
	}
}

// A series may become a histogram, and a histogram may get buckets of another sort.
func TestASampleNeverAddsValuesThatCannotBeAdded(t *testing.T) {
	const r = int64(block.FiveMin)
	exponential := value{h: &histogram.FloatHistogram{Count: 8, Sum: 8, PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []float64{8}}}
	custom := value{h: &histogram.FloatHistogram{
		Schema: histogram.CustomBucketsSchema, CustomValues: []float64{1}, Count: 8, Sum: 8,
		PositiveSpans: []histogram.Span{{Length: 2}}, PositiveBuckets: []float64{4, 4},
	}}
	for name, values := range map[string][]value{
		"a float becomes a histogram":   {{f: 8}, {f: 8}, exponential, exponential},
		"a histogram becomes a float":   {exponential, exponential, {f: 8}, {f: 8}},
		"buckets become custom buckets": {exponential, exponential, custom, custom},
	} {
		// Every second sample lies astride two windows.
		w := windowed{resolution: r, aggregate: sum, grid: grid{spacing: r / 2, phases: []int64{r / 4}}}
		for i, v := range values {
			w.windows = append(w.windows, point{int64(i+1)*r - 1, v})
		}
		total := 0.0
		for p, ok, err := w.after(minTime); ok || err != nil; p, ok, err = w.after(p.t) {
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if total += p.v.f; p.v.h != nil {
				total += p.v.h.Sum
			}
		}
		if math.Abs(total-32) > 1e-9 {
			t.Errorf("%s: all samples add up to %v, want 32, as four windows of 8 do", name, total)
		}
	}
}

// The engine takes any fall for a reset, and adds the whole counter: no rounding may make one.
func TestACoarseCounterNeverFalls(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 5))
	for range 200 {
		const r = int64(block.OneHour)
		total := math.Pow(10, 18*rnd.Float64())
		points := []point{{1, value{f: total}}}
		for i := range int64(20) {
			switch rnd.IntN(4) {
			case 0: // stands still
			case 1:
				total = math.Nextafter(total, math.Inf(1))
			default:
				total += total * math.Pow(10, -15*rnd.Float64())
			}
			points = append(points, point{(i+1)*r - 1 - rnd.Int64N(2)*rnd.Int64N(r), value{f: total}})
		}
		l := course{runs: []run{{points: points, coarse: true}}, grid: grid{spacing: 1 + rnd.Int64N(r/20), phases: []int64{0}}}
		last := point{t: minTime, v: value{f: points[0].v.f}}
		for p, ok, err := l.after(minTime); ok; p, ok, err = l.after(p.t) {
			if err != nil || p.v.f < last.v.f || p.v.f > total {
				t.Fatalf("got %v and %v after %v, want no fall, and %v at most", p, err, last, total)
			}
			last = p
		}
		if last != points[len(points)-1] {
			t.Errorf("got %v at the end, want %v", last, points[len(points)-1])
		}
	}
}
