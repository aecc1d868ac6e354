package chunkcodec

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// MaxSamples is how many samples Append puts into one chunk, as Prometheus does.
const MaxSamples = 120

// ErrUnfit says that samples cannot share one chunk of the encoding asked for.
var ErrUnfit = errors.New("samples do not fit one chunk")

// Chunk is an encoded run of samples; the times are inclusive.
type Chunk struct {
	MinTime, MaxTime int64
	Encoding         chunkenc.Encoding
	Data             []byte
}

// Encoder encodes with memory that serves for one chunk after the other. Its
// zero value is ready; it is not safe for concurrent use.
type Encoder struct {
	buf    []byte // a chunk until it is known how long it is
	layout chunkLayout
	ints   intWriter
	floats floatWriter
}

// Append encodes s and appends the chunks to dst. It cuts where Prometheus'
// own encoder does: after MaxSamples, where floats and histograms change, where
// start timestamps begin that the open chunk cannot hold, and at resets of
// histograms and those changes of layout that a wider one does not help. Samples with a start timestamp take the
// encodings that can hold it.
func Append(dst []Chunk, s *Samples) ([]Chunk, error) {
	clear(dst[len(dst):cap(dst)]) // their data may be in use
	var e Encoder
	return e.Append(dst, s)
}

// Append is the function Append, but for the memory: the chunks that stand
// between the length and the capacity of dst lend their data to those that take their place.
func (e *Encoder) Append(dst []Chunk, s *Samples) ([]Chunk, error) {
	reset, known := chunkenc.UnknownCounterReset, false
	for from := 0; from < s.Len(); {
		enc, end := s.encoding(from)
		r, err := e.findRun(s, from, end, histogram.UnknownCounterReset)
		if err != nil {
			return dst, fmt.Errorf("encode histograms from %d on: %w", s.T[from], err)
		}
		if known {
			r.reset = reset
		}
		reset, known = r.next, r.to < end
		e.buf = e.appendChunk(e.buf[:0], enc, s, r)
		dst = slices.Grow(dst, 1)[:len(dst)+1]
		c := &dst[len(dst)-1]
		*c = Chunk{MinTime: s.T[from], MaxTime: s.T[r.to-1], Encoding: enc, Data: append(c.Data[:0], e.buf...)}
		from = r.to
	}
	return dst, nil
}

// encoding is that of the chunk which begins at position from, and where it ends at the latest.
func (s *Samples) encoding(from int) (enc chunkenc.Encoding, end int) {
	if len(s.ST) == 0 && len(s.H) == 0 && len(s.FH) == 0 { // nearly always
		return chunkenc.EncXOR, min(from+MaxSamples, s.Len())
	}
	typ, started := s.Type(from), s.Start(from) != 0
	enc = typ.ChunkEncoding(started, started)
	for end = from + 1; end < min(from+MaxSamples, s.Len()); end++ {
		if s.Type(end) != typ {
			break
		}
		now := s.Start(end) != 0
		if now != started && (now || typ != chunkenc.ValFloat) {
			break
		}
	}
	return enc, end
}

// Encode puts all of s into one chunk, the inverse of Decode: with the chunk's
// ResetHeader it gives back the bytes that Prometheus' appender wrote in one go.
// It returns ErrUnfit where that is not possible.
func Encode(enc chunkenc.Encoding, s *Samples, reset chunkenc.CounterResetHeader) ([]byte, error) {
	var scratch [typicalChunk]byte
	data, err := EncodeTo(scratch[:0], enc, s, reset)
	if err != nil {
		return nil, err
	}
	return bytes.Clone(data), nil
}

// EncodeTo is Encode that appends the chunk to dst, which it returns as it was
// after an error. Beyond the length of the result it may write up to dst's capacity.
func EncodeTo(dst []byte, enc chunkenc.Encoding, s *Samples, reset chunkenc.CounterResetHeader) ([]byte, error) {
	var e Encoder
	return e.EncodeTo(dst, enc, s, reset)
}

// EncodeTo is the function EncodeTo, but that it needs no new memory for histograms either.
func (e *Encoder) EncodeTo(dst []byte, enc chunkenc.Encoding, s *Samples, reset chunkenc.CounterResetHeader) ([]byte, error) {
	n := s.Len()
	if n > capacity(enc) {
		return dst, fmt.Errorf("encode %d samples as %s: %w", n, enc, ErrUnfit)
	}
	if n > 0 && (s.Type(0) != family(enc) || s.run(0) < n) {
		return dst, fmt.Errorf("encode samples of other types as %s: %w", enc, ErrUnfit)
	}
	r := run{reset: reset}
	if n > 0 {
		stale := histogram.UnknownCounterReset
		if reset == chunkenc.GaugeType {
			stale = histogram.GaugeType
		}
		var err error
		if r, err = e.findRun(s, 0, n, stale); err != nil {
			return dst, fmt.Errorf("encode %d histograms as %s: %w", n, enc, err)
		}
		if r.to < n {
			return dst, fmt.Errorf("encode histograms as %s, of which number %d begins another chunk: %w", enc, r.to+1, ErrUnfit)
		}
		r.reset = reset
	}
	return e.appendChunk(dst, enc, s, r), nil
}

// run is where samples that share a chunk stand.
type run struct {
	from, to int
	reset    chunkenc.CounterResetHeader
	next     chunkenc.CounterResetHeader // of the chunk that a histogram begins after these
}

// findRun counts the samples from position from, at most up to end, that share
// a chunk. Of histograms it finds the layout, too; of floats all share one.
func (e *Encoder) findRun(s *Samples, from, end int, stale histogram.CounterResetHint) (r run, err error) {
	switch s.Type(from) {
	case chunkenc.ValHistogram:
		r, err = ints().findRun(&e.layout, s.H[from:end], stale)
	case chunkenc.ValFloatHistogram:
		r, err = floats().findRun(&e.layout, s.FH[from:end], stale)
	case chunkenc.ValFloat, chunkenc.ValNone:
		r.to = end - from
	}
	r.from, r.to = from, r.to+from
	return r, err
}

// appendChunk appends the chunk of a run, whose layout has been found.
func (e *Encoder) appendChunk(dst []byte, enc chunkenc.Encoding, s *Samples, r run) []byte {
	if family(enc) == chunkenc.ValFloat {
		return appendFloats(dst, enc, s, r.from, r.to)
	}
	at := len(dst) + resetByte(enc)
	dst = e.appendHistograms(dst, enc, s, r.from, r.to)
	if r.from < r.to {
		dst[at] |= byte(r.reset)
	}
	return dst
}

// appendFloats appends the chunk of the floats from position from up to to.
func appendFloats(dst []byte, enc chunkenc.Encoding, s *Samples, from, to int) []byte {
	if enc == chunkenc.EncXOR {
		return appendXOR(dst, s.T[from:to], s.V[from:to])
	}
	var st []int64
	if len(s.ST) > 0 {
		st = s.ST[from:to]
	}
	return appendXOR2(dst, s.T[from:to], s.V[from:to], st)
}

// typicalChunk is the room that is enough for nearly every chunk of 120 floats.
const typicalChunk = 1 << 10

// Transcode turns a chunk into one that every Thanos can read: XOR2 becomes
// XOR, and histograms lose their start timestamps. Other chunks are handed back as they are.
func Transcode(enc chunkenc.Encoding, data []byte) (chunkenc.Encoding, []byte, error) {
	to := enc
	switch enc {
	case chunkenc.EncXOR2:
		to = chunkenc.EncXOR
	case chunkenc.EncHistogramST:
		to = chunkenc.EncHistogram
	case chunkenc.EncFloatHistogramST:
		to = chunkenc.EncFloatHistogram
	case chunkenc.EncNone, chunkenc.EncXOR, chunkenc.EncHistogram, chunkenc.EncFloatHistogram:
		return enc, data, nil
	}
	var s Samples
	if err := Decode(enc, data, &s); err != nil {
		return enc, nil, err
	}
	out, err := Encode(to, &s, ResetHeader(enc, data))
	if err != nil {
		return enc, nil, fmt.Errorf("transcode %s chunk: %w", enc, err)
	}
	return to, out, nil
}

// family is the type of the samples that an encoding holds.
func family(enc chunkenc.Encoding) chunkenc.ValueType {
	switch enc {
	case chunkenc.EncXOR, chunkenc.EncXOR2:
		return chunkenc.ValFloat
	case chunkenc.EncHistogram, chunkenc.EncHistogramST:
		return chunkenc.ValHistogram
	case chunkenc.EncFloatHistogram, chunkenc.EncFloatHistogramST:
		return chunkenc.ValFloatHistogram
	case chunkenc.EncNone:
	}
	return chunkenc.ValNone
}

// capacity is the largest sample count that a chunk's header can hold.
func capacity(enc chunkenc.Encoding) int {
	if enc == chunkenc.EncHistogramST || enc == chunkenc.EncFloatHistogramST {
		return stCountMask
	}
	return math.MaxUint16
}
