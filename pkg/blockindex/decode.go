package blockindex

import (
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

// castagnoli is the polynomial of the checksums that guard every part of an index.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli()) }

// decoder takes values off the front of b. Once a value is not there bad is set,
// and every further value is zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	if len(d.b) > 0 && d.b[0] < 0x80 { // the common case
		v := uint64(d.b[0])
		d.b = d.b[1:]
		return v
	}
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

// skip drops n variable-length integers.
func (d *decoder) skip(n uint64) {
	i := 0
	for ; n > 0 && i < len(d.b); i++ {
		if d.b[i] < 0x80 { // the last byte of one
			n--
		}
	}
	d.b = d.b[i:]
	d.bad = d.bad || n > 0
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
