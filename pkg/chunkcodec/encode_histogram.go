package chunkcodec

import (
	"encoding/binary"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// appendHistograms appends the chunk of the histograms from position from up
// to to, whose layout has been found.
func (e *Encoder) appendHistograms(dst []byte, enc chunkenc.Encoding, s *Samples, from, to int) []byte {
	c := clock{ts: s.T[from:to], starts: starts{from: math.MaxInt}}
	flags := byte(0)
	if enc == chunkenc.EncHistogramST || enc == chunkenc.EncFloatHistogramST {
		var st []int64
		if len(s.ST) > 0 {
			st = s.ST[from:to]
		}
		c.starts = findStarts(st, to-from)
		flags = c.header()
	}
	dst = append(binary.BigEndian.AppendUint16(dst, uint16(to-from)), flags)
	w := bitWriter{pos: uint(len(dst)) * 8}
	if from == to {
		return dst
	}
	w, buf := e.layout.write(w, dst[:cap(dst)])
	if family(enc) == chunkenc.ValHistogram {
		w, buf = e.ints.write(w, buf, s.H[from:to], &e.layout, c)
	} else {
		w, buf = e.floats.write(w, buf, s.FH[from:to], &e.layout, c)
	}
	return w.bytes(buf)
}

// clock writes the times and starts of histograms.
type clock struct {
	ts    []int64
	delta int64 // between the last two
	starts
}

// putTime writes what histogramReader.readTime reads.
func (c *clock) putTime(w bitWriter, buf []byte, i int) bitWriter {
	if i == 0 {
		return w.putVarint(buf, c.ts[0])
	}
	delta := c.ts[i] - c.ts[i-1]
	w = w.putVarint(buf, delta-c.delta)
	c.delta = delta
	return w
}

// putStart writes what histogramReader.readStart reads.
func (c *clock) putStart(w bitWriter, buf []byte, i int) bitWriter {
	switch {
	case i == 0:
		if start := c.at(0); start != 0 {
			w = w.putByteVarint(buf, c.ts[0]-start)
		}
	case i >= c.from:
		distance := c.distance(i, c.ts[i-1])
		w = w.putVarint(buf, distance-c.last)
		c.last = distance
	}
	return w
}

// intWriter writes histograms with integer counts; its slices have an element for each bucket of the layout.
type intWriter struct {
	last, deltas []int64 // of the histogram before
	wide         []int64 // for histograms that have not all of the buckets
}

func (iw *intWriter) write(w bitWriter, buf []byte, hs []*histogram.Histogram, l *chunkLayout, c clock) (bitWriter, []byte) {
	positive, size := l.buckets[0], l.buckets[0]+l.buckets[1]
	iw.last, iw.deltas, iw.wide = zeros(iw.last, size), zeros(iw.deltas, size), extend(iw.wide[:0], size)
	var count, zero, countDelta, zeroDelta int64
	var sum xorFloat
	for i, h := range hs {
		buf = w.room(buf, size)
		w = c.putTime(w, buf, i)
		stale, sumBits := value.IsStaleNaN(h.Sum), math.Float64bits(h.Sum)
		switch {
		case i == 0 && stale: // nothing but its sum is written
			w = w.put(buf, 0, 2).putLong(buf, sumBits, 64)
		case i == 0:
			w = w.putVaruint(buf, h.Count).putVaruint(buf, h.ZeroCount).putLong(buf, sumBits, 64)
		case stale:
			w, sum.in = w.put(buf, 0, 2).putXORChange(buf, sum.in, sumBits^sum.bits)
		default:
			d, z := int64(h.Count)-count, int64(h.ZeroCount)-zero
			w = w.putVarint(buf, d-countDelta).putVarint(buf, z-zeroDelta)
			w, sum.in = w.putXORChange(buf, sum.in, sumBits^sum.bits)
			countDelta, zeroDelta = d, z
		}
		count, zero, sum.bits = int64(h.Count), int64(h.ZeroCount), sumBits
		if !stale {
			w = w.putSteps(buf, fitted(iw.wide[:positive], l.spans[0], h.PositiveSpans, h.PositiveBuckets), iw.last[:positive], iw.deltas[:positive])
			w = w.putSteps(buf, fitted(iw.wide[positive:], l.spans[1], h.NegativeSpans, h.NegativeBuckets), iw.last[positive:], iw.deltas[positive:])
		}
		if i == 0 {
			clear(iw.deltas) // that is where the buckets themselves were
		}
		w = c.putStart(w, buf, i)
	}
	return w, buf
}

// floatWriter writes histograms with float counts.
type floatWriter struct {
	last []xorFloat // of the histogram before: count, zero count, sum and, as in the layout, the buckets
	wide []float64
}

func (fw *floatWriter) write(w bitWriter, buf []byte, hs []*histogram.FloatHistogram, l *chunkLayout, c clock) (bitWriter, []byte) {
	const fields = 3
	positive, size := l.buckets[0], l.buckets[0]+l.buckets[1]
	fw.last, fw.wide = zeros(fw.last, fields+size), extend(fw.wide[:0], size)
	for i, h := range hs {
		buf = w.room(buf, size)
		w = c.putTime(w, buf, i)
		now := [fields]float64{h.Count, h.ZeroCount, h.Sum}
		stale := value.IsStaleNaN(h.Sum)
		if stale {
			now = [fields]float64{2: h.Sum}
		}
		var buckets [2][]float64
		if !stale {
			buckets[0] = fitted(fw.wide[:positive], l.spans[0], h.PositiveSpans, h.PositiveBuckets)
			buckets[1] = fitted(fw.wide[positive:], l.spans[1], h.NegativeSpans, h.NegativeBuckets)
		}
		if i == 0 {
			w = w.putFloats(buf, now[:], fw.last).
				putFloats(buf, buckets[0], fw.last[fields:]).
				putFloats(buf, buckets[1], fw.last[fields+positive:])
		} else {
			w = w.putChanges(buf, now[:], fw.last).
				putChanges(buf, buckets[0], fw.last[fields:]).
				putChanges(buf, buckets[1], fw.last[fields+positive:])
		}
		w = c.putStart(w, buf, i)
	}
	return w, buf
}

// fitted returns the buckets as the layout has them, in wide unless they are so.
func fitted[B int64 | float64](wide []B, layout, spans []histogram.Span, buckets []B) []B {
	if sameSpans(layout, spans) {
		return buckets
	}
	return spread(wide, layout, spans, buckets)
}

// zeros is n zeros in the memory of v.
func zeros[V any](v []V, n int) []V {
	v = extend(v[:0], n)
	clear(v)
	return v
}

// write writes what layout.read reads.
func (l *chunkLayout) write(w bitWriter, buf []byte) (bitWriter, []byte) {
	buf = w.room(buf, 2*(len(l.spans[0])+len(l.spans[1]))+len(l.customValues))
	frac, exp := math.Frexp(l.zeroThreshold)
	switch {
	case l.zeroThreshold == 0:
		w = w.put(buf, 0, 8)
	case frac == 0.5 && exp >= -242 && exp <= 11:
		w = w.put(buf, uint64(exp+243), 8)
	default: // no power of two
		w = w.put(buf, math.MaxUint8, 8).putLong(buf, math.Float64bits(l.zeroThreshold), 64)
	}
	w = w.putVarint(buf, int64(l.schema))
	for _, spans := range l.spans {
		w = w.putVaruint(buf, uint64(len(spans)))
		for _, s := range spans {
			w = w.putVaruint(buf, uint64(s.Length)).putVarint(buf, int64(s.Offset))
		}
	}
	if histogram.IsCustomBucketsSchema(l.schema) {
		w = w.putVaruint(buf, uint64(len(l.customValues)))
		for _, bound := range l.customValues {
			w = w.putBound(buf, bound)
		}
	}
	return w, buf
}

// putBound writes a custom bound as thousandths plus one, where they are whole
// and not too many for 25 bits, else a zero and the float itself.
func (w bitWriter) putBound(buf []byte, bound float64) bitWriter {
	thousandths := bound * 1000
	whole := math.Round(thousandths)
	if thousandths >= 0 && thousandths <= 1<<25-2 && whole/1000 == bound {
		return w.putVaruint(buf, uint64(whole)+1)
	}
	return w.put(buf, 0, 1).putLong(buf, math.Float64bits(bound), 64)
}
