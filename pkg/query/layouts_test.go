package query

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/block"
)

// layout makes a histogram of another number of buckets.
type layout func(h *histogram.FloatHistogram) *histogram.FloatHistogram

func schema(n int32) layout {
	return func(h *histogram.FloatHistogram) *histogram.FloatHistogram { return h.CopyToSchema(n) }
}

func custom(bounds ...float64) layout {
	return func(h *histogram.FloatHistogram) *histogram.FloatHistogram {
		out := &histogram.FloatHistogram{
			Schema: histogram.CustomBucketsSchema, Count: h.Count, Sum: h.Sum, CustomValues: bounds,
			PositiveSpans: []histogram.Span{{Length: uint32(len(bounds) + 1)}}, PositiveBuckets: make([]float64, len(bounds)+1),
		}
		for it := h.PositiveBucketIterator(); it.Next(); {
			at := 0
			for at < len(bounds) && bounds[at] < it.At().Upper {
				at++
			}
			out.PositiveBuckets[at] += it.At().Count
		}
		return out
	}
}

// changing adds a process of observations, restarted now and then, whose histograms take one layout after the other.
func (z *zoo) changing(t *testing.T, name string, every int64, layouts ...layout) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(3, 5))
	running := make([]float64, 24)
	var times []int64
	var hs []*histogram.FloatHistogram
	for at := epoch + 5_000; at < epoch+z.days*day; at += scrapeEvery {
		if rnd.IntN(2000) == 0 {
			clear(running)
		}
		h := &histogram.FloatHistogram{Schema: 2, ZeroThreshold: 1e-128, PositiveSpans: []histogram.Span{{Offset: -12, Length: 24}}}
		for b := range running {
			running[b] += float64(rnd.IntN(b%7 + 2))
			h.Count += running[b]
			h.Sum += running[b] * math.Exp2(float64(b-12)/4)
		}
		h.PositiveBuckets = append(h.PositiveBuckets, running...)
		times, hs = append(times, at), append(hs, layouts[int((at-epoch)/every)%len(layouts)](h))
	}
	z.add(t, labels.FromStrings("__name__", name), histogramChunks(t, times, func(i int) *histogram.FloatHistogram { return hs[i] }))
}

// Whether buckets change at borders of windows or between, coarse data answer like raw ones, also
// that the engine takes finer buckets for a reset where a range holds samples of before and after.
func TestCountersGoOnThroughOtherBuckets(t *testing.T) {
	z := &zoo{store: &tiers{}, days: 2}
	z.changing(t, "coarser", 17*hour, schema(2), schema(1), schema(0))
	z.changing(t, "finer", 17*hour, schema(0), schema(1), schema(2))
	z.changing(t, "in_turn", 7*hour, schema(2), schema(2), schema(0))
	z.changing(t, "in_turn_within_windows", 7*hour+23*minute, schema(2), schema(2), schema(0))
	z.changing(t, "often", 2*hour, schema(2), schema(0))
	z.changing(t, "bounds", 7*hour, custom(0.1, 1, 5), custom(0.1, 0.5, 1, 5), custom(0.5, 1, 5, 20))
	z.changing(t, "bounds_within_windows", 7*hour+23*minute, custom(0.1, 1, 5), custom(0.1, 0.5, 1, 5), custom(0.5, 1, 5, 20))
	for _, series := range z.store.all {
		name := series.labels.Get("__name__")
		for _, over := range []struct {
			r     block.Resolution
			width int64
		}{{block.FiveMin, hour}, {block.OneHour, 3 * hour}, {block.OneHour, 6 * hour}} {
			for f, within := range map[string]float64{
				"histogram_count(increase(%s[%dm]))": 0.015, "histogram_sum(increase(%s[%dm]))": 0.02,
				"histogram_quantile(0.9, rate(%s[%dm]))": 0.1, // a chunk holds its histograms in the coarsest of their schemas
			} {
				expr := fmt.Sprintf(f, name, over.width/minute)
				steps := Steps{millis(epoch + 7*hour), millis(epoch + 47*hour), time.Duration(over.r) * time.Millisecond}
				want, _ := evaluate(t, z.store.keep(only(block.Raw)), expr, steps, Params{})
				got, _ := evaluate(t, z.store.keep(only(over.r)), expr, steps, Params{})
				if len(got) != len(want) || len(got) < 40 {
					t.Fatalf("%s over %s: got %d points, want %d", expr, over.r, len(got), len(want))
				}
				worst, bad := 0.0, 0
				for i, p := range got {
					if off := math.Abs(p.F/want[i].F - 1); off > within {
						if bad++; bad == 1 {
							t.Errorf("%s over %s after %v: got %v, want %v within %g %%", expr, over.r, time.Duration(p.T-epoch)*time.Millisecond, p.F, want[i].F, within*100)
						}
						worst = max(worst, off)
					}
				}
				if bad > 0 {
					t.Errorf("%s over %s: %d of %d are off, by %.3f at worst", expr, over.r, bad, len(got), worst)
				}
			}
		}
	}
}
