package chunkcodec

import (
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
)

// layout is what stands before the first histogram of a chunk and holds for all of them.
type layout struct {
	schema         int32
	zeroThreshold  float64
	spans          []histogram.Span // behind those of other chunks its positive ones, then the negative ones
	own, negatives int              // where they begin
	buckets        [2]int           // of the positive and of the negative side
	customValues   []float64
}

// read fills a layout that holds no more than spans of other chunks.
func (l *layout) read(r bitReader, e *edge) (bitReader, error) {
	r, threshold := e.bits(r, 8)
	switch threshold {
	case 0:
	case math.MaxUint8: // no power of two
		r, threshold = e.bits(r, 64)
		l.zeroThreshold = math.Float64frombits(threshold)
	default:
		l.zeroThreshold = math.Ldexp(0.5, int(threshold)-243)
	}
	r, schema := e.varint(r)
	l.schema = int32(schema)
	l.own = len(l.spans)
	for side := range l.buckets {
		var err error
		l.negatives = len(l.spans) // what stands there before the second side stays
		if r, l.buckets[side], err = l.readSpans(r, e); err != nil {
			return r, err
		}
	}
	if histogram.IsCustomBucketsSchema(l.schema) {
		r = l.readBounds(r, e)
	}
	switch {
	case !e.whole(r):
		return r, fmt.Errorf("%w: histogram layout is cut off", ErrInvalid)
	case !histogram.IsKnownSchema(l.schema):
		return r, fmt.Errorf("%w: unknown histogram schema %d", ErrInvalid, l.schema)
	}
	return r, nil
}

// readBounds reads the custom bounds: thousandths plus one, or behind a zero the float itself.
func (l *layout) readBounds(r bitReader, e *edge) bitReader {
	r, n := e.varuint(r)
	for ; n > 0 && e.whole(r); n-- {
		var v uint64
		if r, v = e.varuint(r); v != 0 {
			l.customValues = append(l.customValues, float64(v-1)/1000)
			continue
		}
		r, v = e.bits(r, 64)
		l.customValues = append(l.customValues, math.Float64frombits(v))
	}
	return r
}

// readSpans reads the spans of one side and returns how many buckets they hold.
func (l *layout) readSpans(r bitReader, e *edge) (next bitReader, buckets int, err error) {
	first := len(l.spans)
	r, n := e.varuint(r)
	for ; n > 0 && e.whole(r); n-- {
		var length uint64
		var offset int64
		r, length = e.varuint(r)
		r, offset = e.varint(r)
		if length > math.MaxUint32 || offset != int64(int32(offset)) {
			return r, 0, fmt.Errorf("%w: histogram span of length %d at offset %d", ErrInvalid, length, offset)
		}
		l.spans = append(l.spans, histogram.Span{Offset: int32(offset), Length: uint32(length)})
	}
	buckets, err = countBuckets(l.spans[first:])
	return r, buckets, err
}

func (l *layout) positive() []histogram.Span { return some(l.spans[l.own:l.negatives]) }
func (l *layout) negative() []histogram.Span { return some(l.spans[l.negatives:]) }

// some is v without room behind it, nil where v is empty.
func some[V any](v []V) []V {
	if len(v) == 0 {
		return nil
	}
	return slices.Clip(v)
}
