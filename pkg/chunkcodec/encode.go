package chunkcodec

import (
	"bytes"
	"errors"
	"fmt"
	"math"

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

// Append encodes s and appends the chunks to dst. It cuts where Prometheus'
// own encoder does: after MaxSamples, where floats and histograms change, where
// start timestamps begin that the open chunk cannot hold, and at resets and
// changes of layout of histograms. Samples with a start timestamp take the
// encodings that can hold it.
func Append(dst []Chunk, s *Samples) ([]Chunk, error) {
	for i := 0; i < s.Len(); {
		to := s.run(i)
		if s.Type(i) == chunkenc.ValFloat {
			dst = appendFloatChunks(dst, s, i, to)
		} else {
			var err error
			if dst, err = appendHistograms(dst, s, i, to); err != nil {
				return dst, err
			}
		}
		i = to
	}
	return dst, nil
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
	if s.Len() > capacity(enc) {
		return dst, fmt.Errorf("encode %d samples as %s: %w", s.Len(), enc, ErrUnfit)
	}
	if s.Len() > 0 && (s.Type(0) != family(enc) || s.run(0) < s.Len()) {
		return dst, fmt.Errorf("encode samples of other types as %s: %w", enc, ErrUnfit)
	}
	if family(enc) == chunkenc.ValFloat {
		return appendFloats(dst, enc, s, 0, s.Len()), nil
	}
	data, err := encodeHistograms(enc, s, reset)
	return append(dst, data...), err
}

// appendFloatChunks cuts the floats from position from up to to into chunks.
func appendFloatChunks(dst []Chunk, s *Samples, from, to int) []Chunk {
	var scratch [typicalChunk]byte
	for from < to {
		enc, end := chunkenc.EncXOR, min(from+MaxSamples, to)
		if s.Start(from) != 0 {
			enc = chunkenc.EncXOR2
		} else {
			for i := from + 1; i < end; i++ {
				if s.Start(i) != 0 {
					end = i
				}
			}
		}
		data := bytes.Clone(appendFloats(scratch[:0], enc, s, from, end))
		dst = append(dst, Chunk{MinTime: s.T[from], MaxTime: s.T[end-1], Encoding: enc, Data: data})
		from = end
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
