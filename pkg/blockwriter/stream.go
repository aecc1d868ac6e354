package blockwriter

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// bufferSize is how much of a file is gathered before it is handed on.
const bufferSize = 256 << 10

// stream is a file that is written from front to end. It knows its position,
// and the checksum of what was written since begin. The first error stays.
type stream struct {
	out   io.Writer
	buf   []byte
	pos   int64 // where the next byte goes
	table *crc32.Table
	sum   uint32 // of what was handed on since begin
	from  int    // where in buf the bytes begin that sum lacks
	err   error
}

func newStream(out io.Writer) *stream {
	return &stream{out: out, buf: make([]byte, 0, bufferSize), table: crc32.MakeTable(crc32.Castagnoli)}
}

// reset starts another file with the same memory.
func (s *stream) reset(out io.Writer) { *s = stream{out: out, buf: s.buf[:0], table: s.table} }

// write appends b.
func (s *stream) write(b []byte) {
	s.pos += int64(len(b))
	for len(b) > cap(s.buf)-len(s.buf) {
		n := cap(s.buf) - len(s.buf)
		s.buf = append(s.buf, b[:n]...)
		b = b[n:]
		s.flush()
	}
	s.buf = append(s.buf, b...)
}

// writeByte appends b.
func (s *stream) writeByte(b byte) {
	s.room(1)
	s.buf = append(s.buf, b)
}

// write32 appends a big-endian v.
func (s *stream) write32(v uint32) {
	s.room(4)
	s.buf = binary.BigEndian.AppendUint32(s.buf, v)
}

// write64 appends a big-endian v.
func (s *stream) write64(v uint64) {
	s.room(8)
	s.buf = binary.BigEndian.AppendUint64(s.buf, v)
}

// writeUvarint appends v in as few bytes as it takes.
func (s *stream) writeUvarint(v uint64) {
	s.room(uvarintLen(v))
	s.buf = binary.AppendUvarint(s.buf, v)
}

// room makes place for n bytes that are about to be appended and counts them.
func (s *stream) room(n int) {
	if n > cap(s.buf)-len(s.buf) {
		s.flush()
	}
	s.pos += int64(n)
}

// pad appends zeros until the position is a multiple of n.
func (s *stream) pad(n int64) {
	for s.pos%n != 0 {
		s.writeByte(0)
	}
}

// begin starts a checksum.
func (s *stream) begin() { s.sum, s.from = 0, len(s.buf) }

// end appends the checksum of what was written since begin.
func (s *stream) end() {
	s.write32(crc32.Update(s.sum, s.table, s.buf[s.from:]))
}

func (s *stream) flush() {
	s.sum = crc32.Update(s.sum, s.table, s.buf[s.from:])
	s.from = 0
	if s.err == nil && len(s.buf) > 0 {
		_, s.err = s.out.Write(s.buf)
	}
	s.buf = s.buf[:0]
}

// uvarintLen is how many bytes a uvarint takes.
func uvarintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

// finish hands on the rest and completes the file, or abandons it after an error.
func finish(name string, s *stream, f File) error {
	s.flush()
	if s.err != nil {
		f.Abort()
		return fmt.Errorf("write %s: %w", name, s.err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("complete %s: %w", name, err)
	}
	return nil
}
