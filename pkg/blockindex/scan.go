package blockindex

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
)

// windows hands out the bytes of a part of an index, one run after the other. A run is
// never written to again. It ends with io.EOF.
type windows func() ([]byte, error)

// scanner reads a section of an index, which has its length before and its
// checksum behind its content, from begin to end, holding a window or two.
type scanner struct {
	begin int64 // of the section
	size  int64 // of the content
	left  int64 // bytes of the content that are not taken yet
	src   windows
	ready []byte // of src, not taken yet
	tail  int64  // bytes of the content that are not in sum yet
	sum   uint32
	err   error
}

// scan begins to read the section at begin, where src is after its first bytes, ready;
// it must end by end.
func scan(ready []byte, src windows, begin, end int64) *scanner {
	s := &scanner{begin: begin, src: src, ready: ready, left: 4}
	if begin+8 > end {
		s.err = corruptf("section at %d ends behind %d", begin, end)
		return s
	}
	length := s.peek(4)
	if s.err != nil {
		return s
	}
	s.size = int64(binary.BigEndian.Uint32(length))
	s.ready = s.ready[4:]
	s.left, s.tail = s.size, s.size
	if begin+4+s.size+4 > end {
		s.err = corruptf("section at %d with %d bytes ends behind %d", begin, s.size, end)
	}
	s.add(s.ready)
	return s
}

// add takes bytes that came into the checksum, as far as they are content.
func (s *scanner) add(b []byte) {
	b = b[:min(int64(len(b)), s.tail)]
	s.sum = crc32.Update(s.sum, castagnoli(), b)
	s.tail -= int64(len(b))
}

// need has n bytes ready, whatever they are.
func (s *scanner) need(n int) {
	for s.err == nil && len(s.ready) < n {
		more, err := s.src()
		if err != nil {
			if err == io.EOF { //nolint:errorlint // as io.Reader has it
				err = io.ErrUnexpectedEOF
			}
			s.err = fmt.Errorf("read section at %d: %w", s.begin, err)
			return
		}
		s.add(more)
		if len(s.ready) > 0 {
			more = slices.Concat(s.ready, more)
		}
		s.ready = more
	}
}

// pos is the place of the next value in the index.
func (s *scanner) pos() int64 { return s.begin + 4 + s.size - s.left }

// peek returns the next n bytes, or all that are left.
func (s *scanner) peek(n int) []byte {
	n = int(min(int64(n), s.left))
	if len(s.ready) < n {
		s.need(n)
	}
	if s.err != nil {
		return nil
	}
	return s.ready[:n]
}

func (s *scanner) take(n int) {
	if s.err == nil {
		s.ready = s.ready[n:]
		s.left -= int64(n)
	}
}

func (s *scanner) broken() {
	if s.err == nil {
		s.err = corruptf("section at %d is broken at %d", s.begin, s.pos())
	}
}

func (s *scanner) uvarint() uint64 {
	if len(s.ready) > 0 && s.left > 0 && s.ready[0] < 0x80 && s.err == nil { // the common case
		v := uint64(s.ready[0])
		s.take(1)
		return v
	}
	v, n := binary.Uvarint(s.peek(binary.MaxVarintLen64))
	if n <= 0 {
		s.broken()
		return 0
	}
	s.take(n)
	return v
}

func (s *scanner) be32() uint32 {
	b := s.peek(4)
	if len(b) < 4 {
		s.broken()
		return 0
	}
	v := binary.BigEndian.Uint32(b)
	s.take(4)
	return v
}

// text returns bytes that have their length in front.
func (s *scanner) text() []byte {
	n := s.uvarint()
	if n > uint64(max(s.left, 0)) {
		s.broken()
		return nil
	}
	b := s.peek(int(n))
	s.take(len(b))
	return b
}

// finish reads what is left and verifies the checksum.
func (s *scanner) finish() error {
	for s.err == nil && s.left > 0 {
		s.take(len(s.peek(32 << 10)))
	}
	s.left = 4
	sum := s.peek(4)
	if s.err != nil {
		return s.err
	}
	if s.sum != binary.BigEndian.Uint32(sum) {
		return corruptf("checksum of the section at %d", s.begin)
	}
	return nil
}
