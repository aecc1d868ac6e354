package downsample

import (
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/chunkcodec"
)

// anyHistogram is a histogram with integer or with float counts, or none.
type anyHistogram struct {
	ints   *histogram.Histogram
	floats *histogram.FloatHistogram
}

func histogramAt(s *chunkcodec.Samples, i int) anyHistogram {
	if len(s.FH) > 0 {
		return anyHistogram{floats: s.FH[i]}
	}
	return anyHistogram{ints: s.H[i]}
}

func (a anyHistogram) none() bool { return a.ints == nil && a.floats == nil }

// total is the sum of all observations.
func (a anyHistogram) total() float64 {
	if a.ints != nil {
		return a.ints.Sum
	}
	return a.floats.Sum
}

func (a anyHistogram) gauge() bool {
	if a.ints != nil {
		return a.ints.CounterResetHint == histogram.GaugeType
	}
	return a.floats.CounterResetHint == histogram.GaugeType
}

// float returns a with float counts, in scratch unless it has them already.
func (a anyHistogram) float(scratch *histogram.FloatHistogram) *histogram.FloatHistogram {
	if a.ints != nil {
		return a.ints.ToFloat(scratch)
	}
	return a.floats
}

// copyTo overwrites to and uses its memory.
func (a anyHistogram) copyTo(to *histogram.FloatHistogram) {
	if a.ints != nil {
		a.ints.ToFloat(to)
		return
	}
	a.floats.CopyTo(to)
}

// layout says which buckets a histogram has.
type layout struct {
	schema             int32
	zeroThreshold      float64
	positive, negative []histogram.Span
	bounds             []float64
}

func (a anyHistogram) layout() layout {
	if h := a.ints; h != nil {
		return layout{h.Schema, h.ZeroThreshold, h.PositiveSpans, h.NegativeSpans, h.CustomValues}
	}
	h := a.floats
	return layout{h.Schema, h.ZeroThreshold, h.PositiveSpans, h.NegativeSpans, h.CustomValues}
}

func (l layout) custom() bool { return histogram.IsCustomBucketsSchema(l.schema) }

func (l layout) equal(o layout) bool {
	return l.schema == o.schema && l.zeroThreshold == o.zeroThreshold &&
		slices.Equal(l.positive, o.positive) && slices.Equal(l.negative, o.negative) &&
		histogram.CustomBucketBoundsMatch(l.bounds, o.bounds)
}

// check refuses what histograms cannot be reckoned with: a width of the zero
// bucket that is no number, and custom buckets that have no bounds.
func (l layout) check() error {
	if !(l.zeroThreshold >= 0) || math.IsInf(l.zeroThreshold, 1) {
		return fmt.Errorf("histogram with a zero bucket of width %v: %w", l.zeroThreshold, aggrchunk.ErrInvalid)
	}
	if !l.custom() {
		return nil
	}
	end := int64(0)
	for _, s := range l.positive {
		end += int64(s.Offset) + int64(s.Length)
	}
	if end > int64(len(l.bounds))+1 || len(l.positive) > 0 && l.positive[0].Offset < 0 || len(l.negative) > 0 {
		return fmt.Errorf("histogram with buckets beyond its %d bounds: %w", len(l.bounds), aggrchunk.ErrInvalid)
	}
	return nil
}

// check refuses histograms that cannot be reckoned with.
func (s histogramSample) check() error {
	if err := s.sum.layout().check(); err != nil {
		return err
	}
	return s.last.layout().check()
}

// addTo adds a to sum. Nearly always both have the same buckets. Guarded by BenchmarkDownsample.
func (a anyHistogram) addTo(sum, scratch *histogram.FloatHistogram) error {
	switch {
	case !a.layout().equal(anyHistogram{floats: sum}.layout()):
		other := a.float(scratch)
		if hasEmpty(sum.PositiveSpans) || hasEmpty(sum.NegativeSpans) {
			sum.Compact(0) // Add looks for a bucket in the first span, also in an empty one
		}
		if _, _, _, err := sum.Add(other); err != nil {
			return fmt.Errorf("add histograms of schemas %d and %d: %w", sum.Schema, other.Schema, err)
		}
		sum.CounterResetHint = histogram.GaugeType
	case a.ints != nil:
		sum.Count += float64(a.ints.Count)
		sum.ZeroCount += float64(a.ints.ZeroCount)
		sum.Sum += a.ints.Sum
		addDeltas(sum.PositiveBuckets, a.ints.PositiveBuckets)
		addDeltas(sum.NegativeBuckets, a.ints.NegativeBuckets)
	default:
		sum.Count += a.floats.Count
		sum.ZeroCount += a.floats.ZeroCount
		sum.Sum += a.floats.Sum
		addCounts(sum.PositiveBuckets, a.floats.PositiveBuckets)
		addCounts(sum.NegativeBuckets, a.floats.NegativeBuckets)
	}
	return nil
}

// hasEmpty reports whether a span has no buckets, as no writer makes one.
func hasEmpty(spans []histogram.Span) bool {
	return slices.ContainsFunc(spans, func(s histogram.Span) bool { return s.Length == 0 })
}

// addDeltas adds buckets that are given as their difference from the one before.
func addDeltas(to []float64, deltas []int64) {
	to = to[:len(deltas)]
	count := 0.0
	for i, d := range deltas {
		count += float64(d)
		to[i] += count
	}
}

func addCounts(to, counts []float64) {
	to = to[:len(counts)]
	for i, c := range counts {
		to[i] += c
	}
}
