package blockindex

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// ErrCorrupt marks an index whose bytes contradict its format or its checksums.
var ErrCorrupt = errors.New("corrupt index")

func corruptf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

// checksum is the CRC32 that guards every part of an index.
func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// decoder takes values off the front of b. Once a value is not there bad is set,
// and every further value is zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

// text returns bytes with their length in front; they alias the input.
func (d *decoder) text() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.b, d.bad = nil, true
		return nil
	}
	text := d.b[:n]
	d.b = d.b[n:]
	return text
}

// section is a run of an index that has its length before and its checksum behind it.
type section struct {
	begin, end int64 // of the content
}

// sectionAt finds the section at off.
func sectionAt(ctx context.Context, src Source, off uint64) (section, error) {
	size := src.Size()
	if size < 8 || off > uint64(size-8) {
		return section{}, corruptf("section at %d of %d bytes", off, size)
	}
	var length [4]byte
	if err := src.ReadAt(ctx, length[:], int64(off)); err != nil {
		return section{}, err
	}
	s := section{begin: int64(off) + 4}
	s.end = s.begin + int64(binary.BigEndian.Uint32(length[:]))
	if s.end > size-4 {
		return section{}, corruptf("section at %d ends at %d of %d bytes", off, s.end, size)
	}
	return s, nil
}

// read returns the whole content.
func (s section) read(ctx context.Context, src Source) ([]byte, error) {
	b := make([]byte, s.end-s.begin+4)
	if err := src.ReadAt(ctx, b, s.begin); err != nil {
		return nil, err
	}
	content, sum := b[:len(b)-4], b[len(b)-4:]
	if checksum(content) != binary.BigEndian.Uint32(sum) {
		return nil, corruptf("checksum of the section at %d", s.begin-4)
	}
	return content, nil
}

// scanWindow is how many bytes of a section a scanner holds.
const scanWindow = 512 << 10

// scanner reads a section from begin to end in bounded memory.
type scanner struct {
	section
	read func(p []byte, off int64) error
	buf  []byte // what was read and not taken yet
	at   int64  // where buf ends in the index
	sum  uint32
	err  error
}

func scan(ctx context.Context, src Source, s section) *scanner {
	return &scanner{section: s, at: s.begin, read: func(p []byte, off int64) error { return src.ReadAt(ctx, p, off) }}
}

// pos is the place of the next value in the index.
func (s *scanner) pos() int64 { return s.at - int64(len(s.buf)) }

// left is how many bytes of the section are not taken yet.
func (s *scanner) left() int64 { return s.end - s.pos() }

// fill makes at least n bytes ready, or all that are left.
func (s *scanner) fill(n int64) {
	n = min(n, s.left())
	if s.err != nil || int64(len(s.buf)) >= n {
		return
	}
	window := make([]byte, max(n, min(scanWindow, s.left())))
	fresh := window[copy(window, s.buf):]
	if s.err = s.read(fresh, s.at); s.err != nil {
		s.buf = nil
		return
	}
	s.sum = crc32.Update(s.sum, crc32.MakeTable(crc32.Castagnoli), fresh)
	s.buf = window
	s.at += int64(len(fresh))
}

// decode takes one value of at most size bytes.
func (s *scanner) decode(size int64, take func(d *decoder)) {
	s.fill(size)
	if s.err != nil {
		return
	}
	d := decoder{b: s.buf}
	take(&d)
	if d.bad {
		s.err = corruptf("section at %d is broken at %d", s.begin-4, s.pos())
		return
	}
	s.buf = d.b
}

func (s *scanner) uvarint() (v uint64) {
	s.decode(binary.MaxVarintLen64, func(d *decoder) { v = d.uvarint() })
	return v
}

func (s *scanner) be32() (v uint32) {
	s.decode(4, func(d *decoder) {
		if d.bad = len(d.b) < 4; !d.bad {
			v, d.b = binary.BigEndian.Uint32(d.b), d.b[4:]
		}
	})
	return v
}

// text returns bytes that are valid until the next call.
func (s *scanner) text() (text []byte) {
	n := s.uvarint()
	if s.err == nil && n > uint64(s.left()) {
		s.err = corruptf("section at %d is broken at %d", s.begin-4, s.pos())
	}
	s.decode(int64(n), func(d *decoder) {
		text, d.b = d.b[:n], d.b[n:]
	})
	return text
}

// finish reads what is left and verifies the checksum.
func (s *scanner) finish() error {
	for s.err == nil && s.left() > 0 {
		s.fill(1)
		s.buf = nil
	}
	if s.err != nil {
		return s.err
	}
	var sum [4]byte
	if err := s.read(sum[:], s.end); err != nil {
		return err
	}
	if s.sum != binary.BigEndian.Uint32(sum[:]) {
		return corruptf("checksum of the section at %d", s.begin-4)
	}
	return nil
}
