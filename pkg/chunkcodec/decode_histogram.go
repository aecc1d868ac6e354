package chunkcodec

import (
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// histogramReader decodes the samples of a chunk of histograms in turn.
type histogramReader struct {
	edge
	layout
	starts
	known bool // the first sample has a start
	gauge bool
	delta int64 // between the last two times
}

// decodeHistograms decodes the first samples, up to a limit, into the columns of dst.
func (d *Decoder) decodeHistograms(enc chunkenc.Encoding, data []byte, limit int, dst *Samples) error {
	h := histogramReader{edge: newEdge(data), layout: d.room()}
	n, r, err := openHistograms(enc, data, &h.layout, &h.edge)
	d.spans, d.found = h.spans[:len(d.spans)], h.customValues
	if n = min(n, limit); err != nil || n == 0 {
		return err
	}
	d.spans, h.customValues = h.spans, d.shared(h.customValues)
	h.gauge = ResetHeader(enc, data) == chunkenc.GaugeType
	base := dst.Len()
	dst.T, dst.V = extend(dst.T, n), extend(dst.V, n)
	clear(dst.V[base:])
	h.begin(enc, data[histogramHeader-1], dst, base)
	if family(enc) == chunkenc.ValHistogram {
		dst.H = extend(resize(dst.H, base), n)
		n, err = d.decodeInts(&h, r, dst.T[base:], dst.H[base:])
	} else {
		dst.FH = extend(resize(dst.FH, base), n)
		n, err = d.decodeFloats(&h, r, dst.T[base:], dst.FH[base:])
	}
	dst.Truncate(base + n)
	dst.level()
	return err
}

// room is an empty layout with memory that serves again.
func (d *Decoder) room() layout { return layout{spans: d.spans, customValues: d.found[:0]} }

// shared returns bounds that stay as they are: those of the chunk before if they are the same.
func (d *Decoder) shared(bounds []float64) []float64 {
	same := func(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) }
	if len(bounds) > 0 && !slices.EqualFunc(bounds, d.bounds, same) {
		d.bounds = slices.Clone(bounds)
	}
	return some(d.bounds[:len(bounds)])
}

// readTime reads the time of sample i.
func (h *histogramReader) readTime(r bitReader, ts []int64, i int) bitReader {
	r, v := h.varint(r)
	if i == 0 {
		ts[0] = v
		return r
	}
	h.delta += v
	ts[i] = ts[i-1] + h.delta
	return r
}

// readStart reads the start of sample i, which stands behind it.
func (h *histogramReader) readStart(r bitReader, ts []int64, i int) bitReader {
	switch {
	case len(h.st) == 0:
	case i == 0:
		h.st[0] = 0
		if h.known {
			var v int64
			r, v = h.byteVarint(r)
			h.st[0] = ts[0] - v
		}
	case i >= h.from:
		r = h.starts.read(h.look(r), i, ts[i-1])
	default:
		h.st[i] = h.st[i-1]
	}
	return r
}

// hint is that of sample i; see Decode.
func (h *histogramReader) hint(i int) histogram.CounterResetHint {
	switch {
	case h.gauge:
		return histogram.GaugeType
	case i > 0:
		return histogram.NotCounterReset
	}
	return histogram.UnknownCounterReset
}

// slabs is for how many of the rest samples memory is taken at once: no more
// than the bits that are left can hold.
func (h *histogramReader) slabs(r bitReader, rest int) int {
	return min(rest, MaxSamples, 1+h.left(r)/(histogramBits+h.buckets[0]+h.buckets[1]))
}

// slab is memory for histograms.
type slab[H any, B int64 | float64] struct {
	histograms []H
	buckets    []B
}

// take returns n histograms, and memory for that many times size buckets.
func (s *slab[H, B]) take(n, size int) ([]H, []B) {
	histograms, buckets := len(s.histograms), len(s.buckets)
	if histograms+n > cap(s.histograms) {
		s.histograms, histograms = make([]H, 0, max(n, 2*cap(s.histograms))), 0
	}
	if buckets+n*size > cap(s.buckets) {
		s.buckets, buckets = make([]B, 0, max(n*size, 2*cap(s.buckets))), 0
	}
	s.histograms, s.buckets = s.histograms[:histograms+n], s.buckets[:buckets+n*size]
	clear(s.histograms[histograms:])
	return s.histograms[histograms : histograms+n : histograms+n], s.buckets[buckets:]
}

func (s *slab[H, B]) reset() { s.histograms, s.buckets = s.histograms[:0], s.buckets[:0] }

// tooFine reports whether the chunk is of a Prometheus that knows finer
// schemas than we do; they are reduced, as Prometheus does.
func (h *histogramReader) tooFine() bool {
	return h.schema > histogram.ExponentialSchemaMax && h.schema <= histogram.ExponentialSchemaMaxReserved
}

// intCounts is the state of a histogram with integer counts.
type intCounts struct {
	count, zero           int64
	countDelta, zeroDelta int64
	sum                   [1]xorFloat
	buckets, deltas       []int64 // of a bucket that is how much it exceeds the one before
	table                 *stepTable
}

// readInts reads sample i but for its time, its buckets into to. A stale marker has a sum alone.
func (h *histogramReader) readInts(r bitReader, c *intCounts, to []int64, i int) bitReader {
	var v int64
	if i == 0 {
		var count, zero uint64
		r, count = h.varuint(r)
		r, zero = h.varuint(r)
		r, c.sum[0].bits = h.bits(r, 64)
		clear(to)
		clear(c.deltas)
		r = h.steps(r, c.table, to, to, c.deltas)
		clear(c.deltas) // that is where the buckets themselves were
		c.buckets = to
		c.count, c.zero = int64(count), int64(zero)
		return r
	}
	r, v = h.varint(r)
	c.countDelta += v
	r, v = h.varint(r)
	c.zeroDelta += v
	c.count += c.countDelta
	c.zero += c.zeroDelta
	if r = h.changes(r, c.sum[:]); c.sum[0].bits != value.StaleNaN {
		r = h.steps(r, c.table, c.buckets, to, c.deltas)
		c.buckets = to
	}
	return r
}

// decodeInts decodes histograms with integer counts. It returns how many of
// the samples are there for sure.
func (d *Decoder) decodeInts(h *histogramReader, r bitReader, ts []int64, out []*histogram.Histogram) (int, error) {
	var slab []histogram.Histogram
	var room []int64
	size := h.buckets[0] + h.buckets[1]
	d.deltas = extend(d.deltas[:0], size)
	if d.stepped += len(ts) * size; d.steps == nil && d.stepped > len(d.steps) {
		d.steps = newStepTable()
	}
	c := intCounts{deltas: d.deltas, table: d.steps}
	c.sum[0].in = wholeFloat()
	for i := range ts {
		if len(slab) == 0 {
			slab, room = d.ints.take(h.slabs(r, len(ts)-i), size)
		}
		buckets := room[:size]
		r = h.readTime(r, ts, i)
		r = h.readInts(r, &c, buckets, i)
		r = h.readStart(r, ts, i)
		if !h.whole(r) {
			return i, errCut
		}
		to := &slab[0]
		slab, out[i] = slab[1:], to
		to.Sum = math.Float64frombits(c.sum[0].bits)
		if c.sum[0].bits == value.StaleNaN {
			continue
		}
		room = room[size:]
		to.CounterResetHint = h.hint(i)
		to.Schema, to.ZeroThreshold = h.schema, h.zeroThreshold
		to.Count, to.ZeroCount = uint64(c.count), uint64(c.zero)
		to.PositiveSpans, to.NegativeSpans = h.positive(), h.negative()
		to.PositiveBuckets, to.NegativeBuckets = some(buckets[:h.buckets[0]]), some(buckets[h.buckets[0]:])
		to.CustomValues = h.customValues
		if h.tooFine() {
			out[i] = to.Copy() // the spans are shared
			if err := out[i].ReduceResolution(histogram.ExponentialSchemaMax); err != nil {
				return i, fmt.Errorf("%w: %w", ErrInvalid, err)
			}
		}
	}
	return len(ts), nil
}

// readFloats reads sample i but for its time into count, zero count, sum and
// buckets. A stale marker has a sum alone.
func (h *histogramReader) readFloats(r bitReader, floats []xorFloat, i int) bitReader {
	if i == 0 {
		for j := range floats {
			r, floats[j].bits = h.bits(r, 64)
			floats[j].in = wholeFloat()
		}
		return r
	}
	if r = h.changes(r, floats[:3]); floats[2].bits != value.StaleNaN {
		r = h.changes(r, floats[3:])
	}
	return r
}

// decodeFloats is decodeInts for float counts.
func (d *Decoder) decodeFloats(h *histogramReader, r bitReader, ts []int64, out []*histogram.FloatHistogram) (int, error) {
	var slab []histogram.FloatHistogram
	var room []float64
	size := h.buckets[0] + h.buckets[1]
	d.xors = extend(d.xors[:0], 3+size)
	floats := d.xors
	for i := range ts {
		if len(slab) == 0 {
			slab, room = d.floats.take(h.slabs(r, len(ts)-i), size)
		}
		r = h.readTime(r, ts, i)
		r = h.readFloats(r, floats, i)
		r = h.readStart(r, ts, i)
		if !h.whole(r) {
			return i, errCut
		}
		to := &slab[0]
		slab, out[i] = slab[1:], to
		to.Sum = floats[2].float()
		if floats[2].bits == value.StaleNaN {
			continue
		}
		buckets := room[:size]
		room = room[size:]
		for j := range buckets {
			buckets[j] = floats[3+j].float()
		}
		to.CounterResetHint = h.hint(i)
		to.Schema, to.ZeroThreshold = h.schema, h.zeroThreshold
		to.Count, to.ZeroCount = floats[0].float(), floats[1].float()
		to.PositiveSpans, to.NegativeSpans = h.positive(), h.negative()
		to.PositiveBuckets, to.NegativeBuckets = some(buckets[:h.buckets[0]]), some(buckets[h.buckets[0]:])
		to.CustomValues = h.customValues
		if h.tooFine() {
			out[i] = to.Copy() // the spans are shared
			if err := out[i].ReduceResolution(histogram.ExponentialSchemaMax); err != nil {
				return i, fmt.Errorf("%w: %w", ErrInvalid, err)
			}
		}
	}
	return len(ts), nil
}
