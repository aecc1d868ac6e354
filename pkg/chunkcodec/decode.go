package chunkcodec

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Decode appends all samples of a chunk to dst. Counter reset hints are those
// of Prometheus' iterators: the first histogram's is unknown, whatever the
// chunk's header says (see ResetHeader), the others follow their predecessor.
// Histograms of one chunk share their spans and bounds.
//
// It returns ErrInvalid also where Prometheus reads on: when a sample reaches
// beyond the end of data, or changes more bits than a float has. dst then holds
// the samples before the damage.
func Decode(enc chunkenc.Encoding, data []byte, dst *Samples) error {
	var d Decoder
	return d.Decode(enc, data, dst)
}

// Decoder decodes histograms into memory that it takes for others after
// Reset, so that one that serves again allocates nothing. Custom bounds are never written to again:
// as after Prometheus' readers, copies of a histogram may share them.
// Its zero value is ready; it is not safe for concurrent use.
type Decoder struct {
	ints   slab[histogram.Histogram, int64]
	floats slab[histogram.FloatHistogram, float64]
	spans  []histogram.Span
	bounds []float64 // those of the last chunk that had any

	// Room for what is known of a chunk while it is decoded.
	found  []float64 // its bounds
	deltas []int64
	xors   []xorFloat
	fields *fieldTable // made when first needed

	stepped int        // how many steps were decoded
	steps   *stepTable // made when these are more than it takes to make it
}

// Reset ends the use of all histograms that were decoded.
func (d *Decoder) Reset() {
	d.ints.reset()
	d.floats.reset()
	d.spans = d.spans[:0]
}

// Decode is the function Decode, but for the memory.
func (d *Decoder) Decode(enc chunkenc.Encoding, data []byte, dst *Samples) error {
	return d.DecodeFirst(enc, data, math.MaxInt, dst)
}

// DecodeFirst is Decode that ends after n samples.
func (d *Decoder) DecodeFirst(enc chunkenc.Encoding, data []byte, n int, dst *Samples) error {
	var err error
	switch family(enc) {
	case chunkenc.ValFloat:
		err = decodeFloats(enc, data, n, dst)
	case chunkenc.ValHistogram, chunkenc.ValFloatHistogram:
		err = d.decodeHistograms(enc, data, n, dst)
	case chunkenc.ValNone:
		err = check(enc, data)
	}
	if err != nil {
		return fmt.Errorf("decode %s chunk of %d bytes: %w", enc, len(data), err)
	}
	return nil
}

var (
	errCut    = fmt.Errorf("%w: a sample is cut off or damaged", ErrInvalid)
	errWindow = fmt.Errorf("%w: a change has more bits than a float", ErrInvalid)
)

// decodeFloats decodes into the columns of dst, where it first makes room for
// as many samples as the header announces and the length allows, up to a limit.
func decodeFloats(enc chunkenc.Encoding, data []byte, limit int, dst *Samples) (err error) {
	if err = check(enc, data); err != nil {
		return err
	}
	base, n := dst.Len(), min(int(binary.BigEndian.Uint16(data)), limit)
	dst.T = extend(dst.T, n)
	dst.V = extend(dst.V, n)
	if enc == chunkenc.EncXOR {
		n, err = decodeXOR(data, dst.T[base:], dst.V[base:])
	} else {
		var st []int64
		if data[xor2Header-1] != 0 {
			dst.ST = extend(resize(dst.ST, base), n)
			st = dst.ST[base:]
		}
		n, err = decodeXOR2(data, dst.T[base:], dst.V[base:], st)
	}
	dst.T, dst.V = dst.T[:base+n], dst.V[:base+n]
	dst.level()
	return err
}

// ResetHeader is what a histogram chunk says about its first sample and the
// one before it in its source. Float chunks, and empty ones, say nothing.
func ResetHeader(enc chunkenc.Encoding, data []byte) chunkenc.CounterResetHeader {
	if p := resetByte(enc); p >= 0 && len(data) > p {
		return chunkenc.CounterResetHeader(data[p] & chunkenc.CounterResetHeaderMask)
	}
	return chunkenc.UnknownCounterReset
}

// resetByte is the position of the byte whose two highest bits hold the reset header, -1 if there is none.
func resetByte(enc chunkenc.Encoding) int {
	switch enc {
	case chunkenc.EncHistogram, chunkenc.EncFloatHistogram:
		return 2
	case chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST:
		return 0
	case chunkenc.EncNone, chunkenc.EncXOR, chunkenc.EncXOR2:
	}
	return -1
}
