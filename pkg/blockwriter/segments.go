package blockwriter

import (
	"fmt"

	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/series"
)

// segments writes chunks one behind the other into files of limited size.
type segments struct {
	files  Files
	limit  int64
	number int // of the current file, counted from one; zero before the first
	file   File
	*stream
}

// segmentVersion follows the magic number; three zeros follow both.
const segmentVersion = 1

// add writes a chunk and returns its reference: the file, counted from zero, and the place in it.
func (s *segments) add(c series.Chunk) (ref uint64, err error) {
	if size := recordSize(len(c.Data)); s.number == 0 || s.pos > chunks.SegmentHeaderSize && s.pos+size > s.limit {
		if err := s.cut(); err != nil {
			return 0, err
		}
	}
	ref = uint64(chunks.NewBlockChunkRef(uint64(s.number-1), uint64(s.pos)))
	s.writeUvarint(uint64(len(c.Data)))
	s.begin()
	s.writeByte(byte(c.Encoding))
	s.write(c.Data)
	s.end()
	return ref, s.err
}

// cut completes the current file and starts the next.
func (s *segments) cut() error {
	if err := s.close(); err != nil {
		return err
	}
	name := block.SegmentFile(s.number + 1)
	f, err := s.files.Create(name)
	if err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	s.number++
	s.file = f
	if s.stream == nil {
		s.stream = newStream(f)
	} else {
		s.reset(f)
	}
	s.write32(chunks.MagicChunks)
	s.writeByte(segmentVersion)
	s.pad(chunks.SegmentHeaderSize)
	return nil
}

// close completes the current file.
func (s *segments) close() error {
	if s.file == nil {
		return nil
	}
	f := s.file
	s.file = nil
	return finish(block.SegmentFile(s.number), s.stream, f)
}

// abort gives the current file up.
func (s *segments) abort() {
	if s.file != nil {
		s.file.Abort()
		s.file = nil
	}
}

// recordSize is the size of a chunk in a segment: length, encoding, payload, checksum.
func recordSize(payload int) int64 {
	return int64(uvarintLen(uint64(payload)) + 1 + payload + 4)
}
