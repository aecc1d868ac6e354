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

func bucketedInt(h *histogram.Histogram) bucketed[int64] {
	return bucketed[int64]{
		h.CounterResetHint, value.IsStaleNaN(h.Sum), h.Schema, h.ZeroThreshold, h.CustomValues,
		[2][]histogram.Span{h.PositiveSpans, h.NegativeSpans}, [2][]int64{h.PositiveBuckets, h.NegativeBuckets},
	}
}

func bucketedFloat(h *histogram.FloatHistogram) bucketed[float64] {
	return bucketed[float64]{
		h.CounterResetHint, value.IsStaleNaN(h.Sum), h.Schema, h.ZeroThreshold, h.CustomValues,
		[2][]histogram.Span{h.PositiveSpans, h.NegativeSpans}, [2][]float64{h.PositiveBuckets, h.NegativeBuckets},
	}
}

// check refuses a histogram whose buckets are not those of its spans; before is one that passed.
func (h *bucketed[B]) check(before *bucketed[B]) error {
	if h.stale {
		return nil // and writes no buckets
	}
	for side, spans := range h.spans {
		if len(h.buckets[side]) == len(before.buckets[side]) && sameSpans(spans, before.spans[side]) {
			continue
		}
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
	last   bucketed[B]
}

// begin makes h the first one.
func (c *company[B]) begin(h *bucketed[B]) {
	c.gauge = h.hint == histogram.GaugeType
	c.last = *h
	first := &bucketed[B]{} // a stale marker has no layout
	if !h.stale {
		first = h
	}
	c.layout.schema, c.layout.zeroThreshold, c.layout.customValues = first.schema, first.zeroThreshold, first.customValues
	for side, spans := range first.spans {
		c.layout.spans[side] = append(c.layout.spans[side][:0], spans...)
		c.layout.buckets[side] = len(first.buckets[side])
	}
}

// counts says in which of them a histogram falls below the one before.
type counts struct{ all, zero bool }

// admit takes in the next histogram. If the chunk ends before it, it returns
// false and the reset header of the next chunk.
func (c *company[B]) admit(h *bucketed[B], fell counts) (chunkenc.CounterResetHeader, bool) {
	gauge := h.hint == histogram.GaugeType
	other, reset := chunkenc.UnknownCounterReset, chunkenc.CounterReset
	if gauge {
		other, reset, fell = chunkenc.GaugeType, chunkenc.GaugeType, counts{}
	}
	switch {
	case gauge != c.gauge:
		if _, ints := any(B(0)).(int64); ints && !gauge {
			return chunkenc.NotCounterReset, false
		}
		return other, false
	case h.hint == histogram.CounterReset:
		return reset, false
	case h.stale:
	case c.last.stale:
		return other, false
	case fell.all:
		return reset, false
	case h.schema != c.last.schema || h.zeroThreshold != c.last.zeroThreshold:
		return other, false
	case histogram.IsCustomBucketsSchema(h.schema) && !histogram.CustomBucketBoundsMatch(h.customValues, c.last.customValues):
		return reset, false
	case fell.zero || !c.admitBuckets(h):
		return reset, false
	}
	c.last = *h
	return 0, true
}

// admitBuckets widens the layout for the buckets of h. It returns false where one of a counter fell.
func (c *company[B]) admitBuckets(h *bucketed[B]) bool {
	if sameSpans(h.spans[0], c.last.spans[0]) && sameSpans(h.spans[1], c.last.spans[1]) {
		return c.gauge || !falls(c.last.buckets[0], h.buckets[0]) && !falls(c.last.buckets[1], h.buckets[1])
	}
	var both [2]union
	for side, spans := range h.spans {
		both[side] = unite(c.layout.wider[side][:0], c.layout.spans[side],
			newTally(c.last.spans[side], c.last.buckets[side]), newTally(spans, h.buckets[side]))
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

// findRun counts the histograms that share a chunk, from the first one on, and
// finds their layout. Stale markers, of which decoding tells no more than that, are gauges where stale says so.
func findRun[H any, B int64 | float64](
	l *chunkLayout, hs []*H, look func(*H) bucketed[B], fell func(before, now *H) counts, stale histogram.CounterResetHint,
) (run, error) {
	c := company[B]{layout: l}
	var r run
	for ; r.to < len(hs); r.to++ {
		h := look(hs[r.to])
		if h.stale && stale == histogram.GaugeType {
			h.hint = stale
		}
		if err := h.check(&c.last); err != nil {
			return r, err
		}
		if r.to == 0 {
			r.reset = h.header()
			c.begin(&h)
			continue
		}
		var ok bool
		if r.next, ok = c.admit(&h, fell(hs[r.to-1], hs[r.to])); !ok {
			return r, nil
		}
	}
	return r, nil
}

func fellInt(before, now *histogram.Histogram) counts {
	return counts{now.Count < before.Count, now.ZeroCount < before.ZeroCount}
}

func fellFloat(before, now *histogram.FloatHistogram) counts {
	return counts{now.Count < before.Count, now.ZeroCount < before.ZeroCount}
}
