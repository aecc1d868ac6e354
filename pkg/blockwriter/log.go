package blockwriter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
)

// seriesLog remembers which labels each series has, in the order of the series:
// per series its reference as a difference, how many leading labels it shares
// with the one before, and the numbers of its other labels. It is read several
// times from front to end. What exceeds the limit goes to a temporary file.
type seriesLog struct {
	dir    string // of the temporary file
	limit  int64  // bytes that may stay in memory
	blocks []logBlock
	held   int64 // bytes of the blocks in memory
	spill  *os.File
	size   int64 // of the spill file

	cur     []byte // the block that is being filled
	lastRef uint32 // of the series before in cur
}

// logBlock is a run of whole records that is read without any other.
type logBlock struct {
	data []byte // nil when it is in the file
	off  int64
	size int
	sum  uint32 // of the bytes in the file
}

const logBlockSize = 256 << 10

// add logs a series of which the first shared labels are those of the series before.
func (l *seriesLog) add(ref uint32, shared int, labels []label) error {
	if len(l.cur) == 0 { // a block begins
		l.lastRef, shared = 0, 0
		if l.cur == nil {
			l.cur = make([]byte, 0, logBlockSize)
		}
	}
	l.cur = binary.AppendUvarint(l.cur, uint64(ref-l.lastRef))
	l.cur = binary.AppendUvarint(l.cur, uint64(shared))
	l.cur = binary.AppendUvarint(l.cur, uint64(len(labels)-shared))
	for _, x := range labels[shared:] {
		l.cur = binary.AppendUvarint(l.cur, uint64(x.pair))
	}
	l.lastRef = ref
	if len(l.cur) < logBlockSize {
		return nil
	}
	return l.cut()
}

// cut ends the block that is being filled.
func (l *seriesLog) cut() error {
	if len(l.cur) == 0 {
		return nil
	}
	b := logBlock{data: l.cur, size: len(l.cur)}
	if l.held+int64(b.size) <= l.limit {
		l.held += int64(b.size)
		l.cur = nil
	} else {
		if err := l.store(&b); err != nil {
			return fmt.Errorf("spill postings to a temporary file: %w", err)
		}
		l.cur = l.cur[:0]
	}
	l.blocks = append(l.blocks, b)
	return nil
}

// store moves a block to the file.
func (l *seriesLog) store(b *logBlock) error {
	if l.spill == nil {
		f, err := os.CreateTemp(l.dir, "postings-*")
		if err != nil {
			return err
		}
		l.spill = f
	}
	if _, err := l.spill.WriteAt(b.data, l.size); err != nil {
		return err
	}
	b.off, b.sum, b.data = l.size, crc32.ChecksumIEEE(b.data), nil
	l.size += int64(b.size)
	return nil
}

// walk calls visit for every series with the numbers of its labels, which stay
// valid during the call.
func (l *seriesLog) walk(visit func(ref uint32, pairs []uint32)) error {
	if err := l.cut(); err != nil {
		return err
	}
	var pairs []uint32
	var buf []byte
	for _, b := range l.blocks {
		data := b.data
		if data == nil {
			buf = append(buf[:0], make([]byte, b.size)...)
			if _, err := l.spill.ReadAt(buf, b.off); err != nil {
				return fmt.Errorf("read spilled postings: %w", err)
			}
			if crc32.ChecksumIEEE(buf) != b.sum {
				return fmt.Errorf("read spilled postings from %s: the disk gave back other bytes than it got", l.spill.Name())
			}
			data = buf
		}
		ref := uint32(0)
		for len(data) > 0 {
			var delta, shared, fresh uint32
			delta, data = cutUvarint(data)
			shared, data = cutUvarint(data)
			fresh, data = cutUvarint(data)
			pairs = pairs[:shared]
			for range fresh {
				var p uint32
				p, data = cutUvarint(data)
				pairs = append(pairs, p)
			}
			ref += delta
			visit(ref, pairs)
		}
	}
	return nil
}

// cutUvarint splits a uvarint of at most 32 bits off.
func cutUvarint(b []byte) (uint32, []byte) {
	if b[0] < 0x80 {
		return uint32(b[0]), b[1:]
	}
	v, n := binary.Uvarint(b)
	return uint32(v), b[n:]
}

// close removes the temporary file.
func (l *seriesLog) close() error {
	if l.spill == nil {
		return nil
	}
	f := l.spill
	l.spill = nil
	return errors.Join(f.Close(), os.Remove(f.Name()))
}
