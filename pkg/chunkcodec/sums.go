package chunkcodec

import (
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Sums is Decode for those who want to know no more of histograms than when they were
// scraped and which are stale markers: in place of a histogram stands its sum, as a
// float. It ends after n samples.
func (d *Decoder) Sums(enc chunkenc.Encoding, data []byte, n int, dst *Samples) (err error) {
	switch family(enc) {
	case chunkenc.ValFloat:
		err = decodeFloats(enc, data, n, dst)
	case chunkenc.ValHistogram, chunkenc.ValFloatHistogram:
		err = d.decodeSums(enc, data, n, dst)
	case chunkenc.ValNone:
		err = check(enc, data)
	}
	if err != nil {
		return fmt.Errorf("decode sums of %s chunk of %d bytes: %w", enc, len(data), err)
	}
	return nil
}

func (d *Decoder) decodeSums(enc chunkenc.Encoding, data []byte, limit int, dst *Samples) error {
	h := histogramReader{edge: newEdge(data), layout: d.room()}
	n, r, err := openHistograms(enc, data, &h.layout, &h.edge)
	d.spans, d.found = h.spans[:len(d.spans)], h.customValues
	if n = min(n, limit); err != nil || n == 0 {
		return err
	}
	base := dst.Len()
	dst.T, dst.V = extend(dst.T, n), extend(dst.V, n)
	h.begin(enc, data[histogramHeader-1], dst, base)
	if family(enc) == chunkenc.ValHistogram {
		if d.fields == nil {
			d.fields = newFieldTable()
		}
		n, err = h.sumInts(r, d.fields, dst.T[base:], dst.V[base:])
	} else {
		n, err = d.sumFloats(&h, r, dst.T[base:], dst.V[base:])
	}
	dst.Truncate(base + n)
	dst.level()
	return err
}

// begin makes the starts ready, of which b is the byte in the header, for the samples of dst from base on.
func (h *histogramReader) begin(enc chunkenc.Encoding, b byte, dst *Samples, base int) {
	h.from = math.MaxInt
	if b != 0 && resetByte(enc) != histogramHeader-1 {
		dst.ST = extend(resize(dst.ST, base), dst.Len()-base)
		h.starts = readStarts(b, dst.ST[base:])
		h.known = b&startKnown != 0
	}
}

// sumInts reads sums and passes over counts. It returns how many are there for sure.
func (h *histogramReader) sumInts(r bitReader, fields *fieldTable, ts []int64, vs []float64) (int, error) {
	var sum [1]xorFloat
	sum[0].in = wholeFloat()
	size := h.buckets[0] + h.buckets[1]
	for i := range ts {
		r = h.skip(h.readTime(r, ts, i), 2, fields) // count and zero count
		if i == 0 {
			r, sum[0].bits = h.bits(r, 64)
		} else {
			r = h.changes(r, sum[:])
		}
		if i == 0 || sum[0].bits != value.StaleNaN {
			r = h.skip(r, size, fields)
		}
		if r = h.readStart(r, ts, i); !h.whole(r) {
			return i, errCut
		}
		vs[i] = sum[0].float()
	}
	return len(ts), nil
}

// sumFloats is sumInts for float counts, which tell their length only by those before them.
func (d *Decoder) sumFloats(h *histogramReader, r bitReader, ts []int64, vs []float64) (int, error) {
	d.xors = extend(d.xors[:0], 3+h.buckets[0]+h.buckets[1])
	floats := d.xors
	for i := range ts {
		r = h.readTime(r, ts, i)
		r = h.readFloats(r, floats, i)
		if r = h.readStart(r, ts, i); !h.whole(r) {
			return i, errCut
		}
		vs[i] = floats[2].float()
	}
	return len(ts), nil
}
