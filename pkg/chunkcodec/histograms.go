package chunkcodec

import (
	"fmt"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// bucketed is what decides whether a histogram continues a chunk, but for its
// counts; it serves both kinds.
type bucketed[B int64 | float64] struct {
	hint          histogram.CounterResetHint
	stale         bool
	schema        int32
	zeroThreshold float64
	customValues  []float64
	spans         [2][]histogram.Span
	buckets       [2][]B
}

// check refuses a histogram whose buckets are not those of its spans.
func (h *bucketed[B]) check() error {
	if h.stale {
		return nil // and writes no buckets
	}
	for side, spans := range h.spans {
		n, err := countBuckets(spans)
		if err != nil {
			return err
		}
		if n != len(h.buckets[side]) {
			return fmt.Errorf("%w: %d buckets in spans of %d", ErrInvalid, len(h.buckets[side]), n)
		}
	}
	return nil
}

// company is the histograms that share a chunk, while they are looked for. All
// have the buckets of the first one's layout, which widens for those that
// come later; the histograms are written when it is known. Prometheus,
// which writes at once, writes them again in that case: the bytes are the same.
type company[B int64 | float64] struct {
	layout *chunkLayout
	gauge  bool
}

// begin makes h the first one, whose spans may be laid out as they like: the layout has them so.
func begin[B int64 | float64](l *chunkLayout, h *bucketed[B]) company[B] {
	first := &bucketed[B]{} // a stale marker has no layout
	if !h.stale {
		first = h
	}
	l.schema, l.zeroThreshold, l.customValues = first.schema, first.zeroThreshold, first.customValues
	for side, spans := range first.spans {
		l.spans[side] = append(l.spans[side][:0], spans...)
		l.buckets[side] = len(first.buckets[side])
	}
	return company[B]{layout: l, gauge: h.hint == histogram.GaugeType}
}

// counts says in which of them a histogram falls below the one before.
type counts struct{ all, zero bool }

// admit takes in the histogram that follows last. If the chunk ends before it,
// it returns false and the reset header of the next chunk.
func (c *company[B]) admit(last, h *bucketed[B], fell counts) (chunkenc.CounterResetHeader, bool) {
	gauge := h.hint == histogram.GaugeType
	other, reset := chunkenc.UnknownCounterReset, chunkenc.CounterReset
	if gauge {
		other, reset, fell = chunkenc.GaugeType, chunkenc.GaugeType, counts{}
	}
	switch {
	case gauge != c.gauge:
		if _, ints := any(B(0)).(int64); ints && !gauge {
			return chunkenc.NotCounterReset, false // so says Prometheus, of integer counts alone
		}
		return other, false
	case h.hint == histogram.CounterReset:
		return reset, false
	case h.stale:
	case last.stale:
		return other, false
	case fell.all:
		return reset, false
	case h.schema != last.schema || h.zeroThreshold != last.zeroThreshold:
		return other, false
	case histogram.IsCustomBucketsSchema(h.schema) && !histogram.CustomBucketBoundsMatch(h.customValues, last.customValues):
		return reset, false
	case fell.zero || !c.admitBuckets(last, h):
		return reset, false
	}
	return 0, true
}

// admitBuckets widens the layout for the buckets of h. It returns false where one of a counter fell.
func (c *company[B]) admitBuckets(last, h *bucketed[B]) bool {
	var both [2]union
	for side, spans := range h.spans {
		both[side] = unite(c.layout.wider[side][:0], c.layout.spans[side],
			newTally(last.spans[side], last.buckets[side]), newTally(spans, h.buckets[side]))
		c.layout.wider[side] = both[side].spans
		if both[side].falls && !c.gauge {
			return false
		}
	}
	if !both[0].gains && !both[1].gains {
		return true
	}
	// The spans of h are taken as they are, unless it lacks buckets. Where a gauge lacks some, both sides are united.
	lacks := both[0].lacks || both[1].lacks
	for side, u := range both {
		if !u.lacks && (!c.gauge || !lacks) {
			u.spans = append(u.spans[:0], h.spans[side]...)
		}
		c.layout.replace(side, u.spans)
	}
	return true
}

// chunkLayout is the layout of a chunk to be written.
type chunkLayout struct {
	schema        int32
	zeroThreshold float64
	customValues  []float64
	spans         [2][]histogram.Span
	buckets       [2]int
	wider         [2][]histogram.Span // the memory of the next spans
}

func (l *chunkLayout) replace(side int, spans []histogram.Span) {
	l.spans[side], l.wider[side] = spans, l.spans[side]
	l.buckets[side] = 0
	for _, s := range spans {
		l.buckets[side] += int(s.Length)
	}
}

// header is the reset header of a chunk that h begins, where nothing is known of the one before.
func (h *bucketed[B]) header() chunkenc.CounterResetHeader {
	switch h.hint {
	case histogram.CounterReset:
		return chunkenc.CounterReset
	case histogram.GaugeType:
		return chunkenc.GaugeType
	case histogram.UnknownCounterReset, histogram.NotCounterReset:
	}
	return chunkenc.UnknownCounterReset
}

// kind is how histograms with integer counts, or those with float counts, are looked at.
type kind[H any, B int64 | float64] struct {
	look func(*H) bucketed[B]
	fell func(before, now *H) counts
	// plain reports that now continues a chunk without further thought, as
	// nearly all do. It may say no of others.
	plain func(before, now *H) bool
}

// findRun counts the histograms that share a chunk, from the first one on, and
// finds their layout. Stale markers, of which decoding tells no more than that, are gauges where stale says so.
func (k kind[H, B]) findRun(l *chunkLayout, hs []*H, stale histogram.CounterResetHint) (run, error) {
	look := func(h *H) bucketed[B] {
		b := k.look(h)
		if b.stale && stale == histogram.GaugeType {
			b.hint = stale
		}
		return b
	}
	first := look(hs[0])
	if err := first.check(); err != nil {
		return run{}, err
	}
	c := begin(l, &first)
	r := run{to: 1, reset: first.header()}
	for ; r.to < len(hs); r.to++ {
		if k.plain(hs[r.to-1], hs[r.to]) {
			continue
		}
		last, now := look(hs[r.to-1]), look(hs[r.to])
		if err := now.check(); err != nil {
			return r, err
		}
		var ok bool
		if r.next, ok = c.admit(&last, &now, k.fell(hs[r.to-1], hs[r.to])); !ok {
			return r, nil
		}
	}
	return r, nil
}

func ints() kind[histogram.Histogram, int64] {
	return kind[histogram.Histogram, int64]{look: lookInt, fell: fellInt, plain: plainInt}
}

func lookInt(h *histogram.Histogram) bucketed[int64] {
	return bucketed[int64]{
		h.CounterResetHint, value.IsStaleNaN(h.Sum), h.Schema, h.ZeroThreshold, h.CustomValues,
		[2][]histogram.Span{h.PositiveSpans, h.NegativeSpans},
		[2][]int64{h.PositiveBuckets, h.NegativeBuckets},
	}
}

func fellInt(before, now *histogram.Histogram) counts {
	return counts{now.Count < before.Count, now.ZeroCount < before.ZeroCount}
}

func plainInt(before, now *histogram.Histogram) bool {
	gauge := isGauge(now.CounterResetHint)
	return gauge == isGauge(before.CounterResetHint) && now.CounterResetHint != histogram.CounterReset &&
		!value.IsStaleNaN(before.Sum) && !value.IsStaleNaN(now.Sum) &&
		now.Schema == before.Schema && now.ZeroThreshold == before.ZeroThreshold &&
		histogram.CustomBucketBoundsMatch(now.CustomValues, before.CustomValues) &&
		sameSpans(now.PositiveSpans, before.PositiveSpans) && sameSpans(now.NegativeSpans, before.NegativeSpans) &&
		len(now.PositiveBuckets) == len(before.PositiveBuckets) && len(now.NegativeBuckets) == len(before.NegativeBuckets) &&
		(gauge || now.Count >= before.Count && now.ZeroCount >= before.ZeroCount &&
			!falls(before.PositiveBuckets, now.PositiveBuckets) && !falls(before.NegativeBuckets, now.NegativeBuckets))
}

func floats() kind[histogram.FloatHistogram, float64] {
	return kind[histogram.FloatHistogram, float64]{look: lookFloat, fell: fellFloat, plain: plainFloat}
}

func lookFloat(h *histogram.FloatHistogram) bucketed[float64] {
	return bucketed[float64]{
		h.CounterResetHint, value.IsStaleNaN(h.Sum), h.Schema, h.ZeroThreshold, h.CustomValues,
		[2][]histogram.Span{h.PositiveSpans, h.NegativeSpans},
		[2][]float64{h.PositiveBuckets, h.NegativeBuckets},
	}
}

func fellFloat(before, now *histogram.FloatHistogram) counts {
	return counts{now.Count < before.Count, now.ZeroCount < before.ZeroCount}
}

func plainFloat(before, now *histogram.FloatHistogram) bool {
	gauge := isGauge(now.CounterResetHint)
	return gauge == isGauge(before.CounterResetHint) && now.CounterResetHint != histogram.CounterReset &&
		!value.IsStaleNaN(before.Sum) && !value.IsStaleNaN(now.Sum) &&
		now.Schema == before.Schema && now.ZeroThreshold == before.ZeroThreshold &&
		histogram.CustomBucketBoundsMatch(now.CustomValues, before.CustomValues) &&
		sameSpans(now.PositiveSpans, before.PositiveSpans) && sameSpans(now.NegativeSpans, before.NegativeSpans) &&
		len(now.PositiveBuckets) == len(before.PositiveBuckets) && len(now.NegativeBuckets) == len(before.NegativeBuckets) &&
		(gauge || now.Count >= before.Count && now.ZeroCount >= before.ZeroCount &&
			!falls(before.PositiveBuckets, now.PositiveBuckets) && !falls(before.NegativeBuckets, now.NegativeBuckets))
}

func isGauge(hint histogram.CounterResetHint) bool { return hint == histogram.GaugeType }
