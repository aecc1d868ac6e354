package chunkcodec

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// ErrInvalid marks bytes that no writer of chunks produces, and histograms
// whose buckets are not those of their spans.
var ErrInvalid = errors.New("invalid chunk")

// The bytes before the bit stream, by family of encodings.
const (
	xorHeader       = 2 // sample count
	xor2Header      = 3 // sample count, start-timestamp byte
	histogramHeader = 3 // sample count, flags or start-timestamp byte

	histogramBits = 4 // of time, count, zero count and sum where nothing changes

	stCountMask = 1<<14 - 1 // encodings 5 and 6 keep the reset header above the count
)

// Open wraps the bytes of a chunk for Prometheus' iterators, after checking
// what those iterators take for granted: the header's length, and that no
// more samples and buckets are claimed than there are bits. A chunk that lost
// a few bytes at its end can still pass, and then repeats its last samples:
// Prometheus' readers do not always notice. Decode does, and so do the checksums where chunks are stored.
// The chunk aliases data.
func Open(enc chunkenc.Encoding, data []byte) (chunkenc.Chunk, error) {
	if err := check(enc, data); err != nil {
		return nil, fmt.Errorf("open %s chunk of %d bytes: %w", enc, len(data), err)
	}
	c, err := chunkenc.FromData(enc, data)
	if err != nil {
		return nil, fmt.Errorf("open chunk: %w: %w", ErrInvalid, err)
	}
	return c, nil
}

// NumSamples is how many samples the header of a chunk states, after the same
// checks as Open; it allocates nothing.
func NumSamples(enc chunkenc.Encoding, data []byte) (int, error) {
	if err := check(enc, data); err != nil {
		return 0, fmt.Errorf("count samples of a %s chunk of %d bytes: %w", enc, len(data), err)
	}
	n := int(binary.BigEndian.Uint16(data))
	if enc == chunkenc.EncHistogramST || enc == chunkenc.EncFloatHistogramST {
		n &= stCountMask
	}
	return n, nil
}

func check(enc chunkenc.Encoding, data []byte) error {
	switch enc {
	case chunkenc.EncXOR:
		return checkFloats(data, xorHeader, 2)
	case chunkenc.EncXOR2:
		return checkFloats(data, xor2Header, 1)
	case chunkenc.EncHistogram, chunkenc.EncHistogramST, chunkenc.EncFloatHistogram, chunkenc.EncFloatHistogramST:
		return checkHistogram(enc, data)
	case chunkenc.EncNone:
	}
	return fmt.Errorf("%w: unknown encoding %d", ErrInvalid, enc)
}

func checkHeader(data []byte, n int) error {
	if len(data) < n {
		return fmt.Errorf("%w: header needs %d bytes", ErrInvalid, n)
	}
	return nil
}

// checkFloats compares the sample count with the least that so many samples
// take: the first nine bytes, the second one, the others sampleBits each.
func checkFloats(data []byte, header, sampleBits int) error {
	if err := checkHeader(data, header); err != nil {
		return err
	}
	count := int(binary.BigEndian.Uint16(data))
	need := min(count, 1)*72 + min(max(count-1, 0), 1)*8 + max(count-2, 0)*sampleBits
	return checkCount(count, need, (len(data)-header)*8)
}

func checkCount(count, need, have int) error {
	if need > have {
		return fmt.Errorf("%w: %d samples in %d bits", ErrInvalid, count, have)
	}
	return nil
}

func checkHistogram(enc chunkenc.Encoding, data []byte) error {
	e := newEdge(data)
	_, _, err := openHistograms(enc, data, &layout{}, &e)
	return err
}

// openHistograms reads what stands before the first histogram, and returns the
// number of samples and a reader of what follows. The first histogram spends
// one bit at least on each of its buckets, 64 where counts are floats.
func openHistograms(enc chunkenc.Encoding, data []byte, l *layout, e *edge) (int, bitReader, error) {
	if err := checkHeader(data, histogramHeader); err != nil {
		return 0, bitReader{}, err
	}
	count := int(binary.BigEndian.Uint16(data))
	if enc == chunkenc.EncHistogramST || enc == chunkenc.EncFloatHistogramST {
		count &= stCountMask
	}
	if count == 0 {
		return 0, bitReader{}, nil
	}
	r, err := l.read(bitReader{data: data, pos: histogramHeader * 8}, e)
	if err != nil {
		return 0, r, err
	}
	bucketBits := 1
	if family(enc) == chunkenc.ValFloatHistogram {
		bucketBits = 64
	}
	if buckets := l.buckets[0] + l.buckets[1]; buckets > e.left(r)/bucketBits {
		return 0, r, fmt.Errorf("%w: %d buckets in %d bits", ErrInvalid, buckets, e.left(r))
	}
	return count, r, checkCount(count, count*histogramBits, e.left(r))
}
