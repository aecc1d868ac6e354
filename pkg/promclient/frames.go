package promclient

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// ErrDamaged marks an answer of remote read that cannot be what Prometheus sent.
var ErrDamaged = errors.New("damaged answer")

// frameReader reads the frames of streamed remote read: the length of the message
// as uvarint, its CRC-32C as four bytes, big endian, and the message.
type frameReader struct {
	r     *bufio.Reader
	max   int64
	crc   *crc32.Table
	frame []byte // lent to every frame in turn
	names labels.ScratchBuilder
}

func newFrameReader(r io.Reader, maxFrame int64) *frameReader {
	return &frameReader{
		r: bufio.NewReaderSize(r, 64<<10), max: maxFrame,
		crc: crc32.MakeTable(crc32.Castagnoli), names: labels.NewScratchBuilder(16),
	}
}

// next returns the parts of the next frame, or io.EOF after the last one.
func (f *frameReader) next() ([]Part, error) {
	if err := f.read(); err != nil {
		return nil, err
	}
	var m prompb.ChunkedReadResponse
	if err := m.Unmarshal(f.frame); err != nil {
		return nil, fmt.Errorf("remote read: %w: %w", ErrDamaged, err)
	}
	parts := make([]Part, 0, len(m.ChunkedSeries))
	for _, s := range m.ChunkedSeries {
		p := Part{Query: int(m.QueryIndex), Labels: f.labels(s.Labels), Chunks: make([]Chunk, len(s.Chunks))}
		for i, c := range s.Chunks {
			if c.Type < prompb.Chunk_XOR || int64(c.Type) > int64(chunkenc.EncFloatHistogramST) || c.MinTimeMs > c.MaxTimeMs {
				return nil, fmt.Errorf("remote read: %w: chunk of encoding %d from %d to %d of series %s", ErrDamaged, c.Type, c.MinTimeMs, c.MaxTimeMs, p.Labels)
			}
			p.Chunks[i] = Chunk{MinTime: c.MinTimeMs, MaxTime: c.MaxTimeMs, Encoding: chunkenc.Encoding(c.Type), Data: c.Data}
		}
		parts = append(parts, p)
	}
	return parts, nil
}

// read fills frame with the next message. Only an end between two frames is io.EOF.
func (f *frameReader) read() error {
	size, err := binary.ReadUvarint(f.r)
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	if err != nil {
		return fmt.Errorf("remote read: length of a frame: %w: %w", ErrUnreachable, err)
	}
	if size > uint64(f.max) {
		return fmt.Errorf("remote read: %w: a frame of %d bytes, the limit is %d", ErrDamaged, size, f.max)
	}
	var sum [crc32.Size]byte
	if _, err := io.ReadFull(f.r, sum[:]); err != nil {
		return fmt.Errorf("remote read: checksum of a frame: %w: %w", ErrUnreachable, inside(err))
	}
	if err := f.fill(int(size)); err != nil {
		return fmt.Errorf("remote read: frame of %d bytes: %w: %w", size, ErrUnreachable, err)
	}
	if got, want := crc32.Checksum(f.frame, f.crc), binary.BigEndian.Uint32(sum[:]); got != want {
		return fmt.Errorf("remote read: %w: a frame has checksum %08x, want %08x", ErrDamaged, got, want)
	}
	return nil
}

// fill reads size bytes into frame, which grows only as bytes arrive: the length
// alone proves nothing.
func (f *frameReader) fill(size int) error {
	const step = 1 << 20
	f.frame = f.frame[:0]
	for len(f.frame) < size {
		from := len(f.frame)
		to := min(size, from+step)
		if cap(f.frame) < to {
			f.frame = append(make([]byte, 0, min(size, 2*to)), f.frame...)
		}
		f.frame = f.frame[:to]
		if _, err := io.ReadFull(f.r, f.frame[from:]); err != nil {
			return fmt.Errorf("after %d bytes: %w", from, inside(err))
		}
	}
	return nil
}

// inside makes the end of the answer an error: it is not between two frames.
func inside(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (f *frameReader) labels(in []prompb.Label) labels.Labels {
	f.names.Reset()
	for _, l := range in {
		f.names.Add(l.Name, l.Value)
	}
	f.names.Sort()
	return f.names.Labels()
}
