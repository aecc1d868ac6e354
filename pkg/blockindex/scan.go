package blockindex

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
)

// scanner reads a section of an index, which has its length before and its
// checksum behind its content, from begin to end in little memory.
type scanner struct {
	begin   int64     // of the section
	left    int64     // bytes of the content that are not taken yet
	size    int64     // of the content
	src     io.Reader // behind the content
	content *bufio.Reader
	sum     hash.Hash32
	err     error
}

// scan begins to read the section at begin, where src is; it must end by end.
func scan(src io.Reader, begin, end int64) *scanner {
	s := &scanner{begin: begin, src: src, sum: crc32.New(castagnoli())}
	if begin+8 > end {
		s.err = corruptf("section at %d ends behind %d", begin, end)
		return s
	}
	var length [4]byte
	if _, err := io.ReadFull(src, length[:]); err != nil {
		s.err = fmt.Errorf("read section at %d: %w", begin, err)
		return s
	}
	s.size = int64(binary.BigEndian.Uint32(length[:]))
	s.left = s.size
	if begin+4+s.size+4 > end {
		s.err = corruptf("section at %d with %d bytes ends behind %d", begin, s.size, end)
	}
	s.content = bufio.NewReaderSize(io.TeeReader(io.LimitReader(src, s.size), s.sum), 64<<10)
	return s
}

// pos is the place of the next value in the index.
func (s *scanner) pos() int64 { return s.begin + 4 + s.size - s.left }

// peek returns the next n bytes, or all that are left.
func (s *scanner) peek(n int) []byte {
	if s.err != nil {
		return nil
	}
	n = int(min(int64(n), s.left))
	b, err := s.content.Peek(n)
	if err != nil && len(b) < n {
		s.err = fmt.Errorf("read section at %d: %w", s.begin, err)
	}
	return b
}

func (s *scanner) take(n int) {
	if s.err != nil {
		return
	}
	if _, err := s.content.Discard(n); err != nil {
		s.err = fmt.Errorf("read section at %d: %w", s.begin, err)
	}
	s.left -= int64(n)
}

func (s *scanner) broken() {
	if s.err == nil {
		s.err = corruptf("section at %d is broken at %d", s.begin, s.pos())
	}
}

func (s *scanner) uvarint() uint64 {
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

// text appends bytes with their length in front to dst.
func (s *scanner) text(dst []byte) []byte {
	n := s.uvarint()
	if n > uint64(max(s.left, 0)) {
		s.broken()
	}
	for n > 0 && s.err == nil {
		b := s.peek(int(min(n, 32<<10)))
		dst = append(dst, b...)
		n -= uint64(len(b))
		s.take(len(b))
	}
	return dst
}

// finish reads what is left and verifies the checksum.
func (s *scanner) finish() error {
	for s.err == nil && s.left > 0 {
		s.take(len(s.peek(32 << 10)))
	}
	if s.err != nil {
		return s.err
	}
	var sum [4]byte
	if _, err := io.ReadFull(s.src, sum[:]); err != nil {
		return fmt.Errorf("read section at %d: %w", s.begin, err)
	}
	if s.sum.Sum32() != binary.BigEndian.Uint32(sum[:]) {
		return corruptf("checksum of the section at %d", s.begin)
	}
	return nil
}
