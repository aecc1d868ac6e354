package aggrchunk

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/chunkcodec"
)

// CounterReader reads counter aggregates, and raw chunks, in the order of time
// as one sequence that never falls: after a reset it goes on from where it was.
// It is a chunkenc.Iterator.
//
// A counter aggregate begins with the first raw sample, goes on with the
// running value at each window's end, and repeats the last time with the last
// raw value. That last sample is not emitted; it is what the next chunk's
// first value is compared with. NaN (and with it stale markers) is skipped,
// and so is what is not later than the sample before. Histograms pass untouched.
type CounterReader struct {
	subs []Sub
	next int // index of the sub-chunk to open next
	it   chunkenc.Iterator
	buf  chunkenc.Iterator
	err  error

	typ     chunkenc.ValueType // of the current sample
	t       int64              // of the last sample emitted
	total   float64            // corrected value at t
	lastRaw float64
	started bool // a float was read
}

// NewCounterReader returns a reader over sub-chunks sorted by time.
func NewCounterReader(subs []Sub) *CounterReader {
	return &CounterReader{subs: subs, t: math.MinInt64}
}

// LastRaw is the last value as it was scraped, before any correction: at the
// end of a counter aggregate the true last value of the last window.
// It is 0 before the first float.
func (r *CounterReader) LastRaw() float64 { return r.lastRaw }

// Next moves to the next sample.
func (r *CounterReader) Next() chunkenc.ValueType {
	for r.err == nil {
		if r.it == nil && !r.open() {
			break
		}
		switch typ := r.it.Next(); typ {
		case chunkenc.ValNone:
			r.err = r.it.Err()
			r.it = nil
		case chunkenc.ValFloat:
			if r.float(r.it.At()) {
				return r.typ
			}
		case chunkenc.ValHistogram, chunkenc.ValFloatHistogram:
			if t := r.it.AtT(); t > r.t {
				r.t, r.typ = t, typ
				return typ
			}
		}
	}
	r.typ = chunkenc.ValNone
	return r.typ
}

// open starts the next sub-chunk and reports whether there is one.
func (r *CounterReader) open() bool {
	if r.next == len(r.subs) {
		return false
	}
	s := r.subs[r.next]
	r.next++
	c, err := chunkcodec.Open(s.Encoding, s.Data)
	if err != nil {
		r.err = err
		return false
	}
	r.buf = c.Iterator(r.buf)
	r.it = r.buf
	return true
}

// float takes a sample in and reports whether it is emitted.
func (r *CounterReader) float(t int64, v float64) bool {
	switch {
	case math.IsNaN(v) || t < r.t:
		return false
	case t == r.t:
		if r.started && r.typ == chunkenc.ValFloat {
			r.lastRaw = v
		}
		return false
	case !r.started:
		r.total = v
	case v < r.lastRaw:
		r.total += v
	default:
		r.total += v - r.lastRaw
	}
	r.t, r.lastRaw, r.typ, r.started = t, v, chunkenc.ValFloat, true
	return true
}

// Seek moves forward to the first sample at or after t. It reads everything in
// between, because a reset may be there.
func (r *CounterReader) Seek(t int64) chunkenc.ValueType { //nolint:govet // Prometheus' Seek, not io.Seeker's
	if r.typ != chunkenc.ValNone && r.t >= t {
		return r.typ
	}
	for r.Next() != chunkenc.ValNone {
		if r.t >= t {
			break
		}
	}
	return r.typ
}

// At returns the time and the corrected value.
func (r *CounterReader) At() (int64, float64) { return r.t, r.total }

// AtHistogram returns the time and the histogram as it is stored.
func (r *CounterReader) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	return r.it.AtHistogram(h)
}

// AtFloatHistogram returns the time and the histogram as it is stored.
func (r *CounterReader) AtFloatHistogram(h *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	return r.it.AtFloatHistogram(h)
}

// AtT returns the time.
func (r *CounterReader) AtT() int64 { return r.t }

// AtST returns 0: a corrected counter has one start, and nobody knows when.
func (r *CounterReader) AtST() int64 { return 0 }

// Err returns the error that ended the sequence early.
func (r *CounterReader) Err() error { return r.err }
