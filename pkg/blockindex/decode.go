package blockindex

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"
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
	v, n := uvarint(d.b)
	if n <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

// uvarint is binary.Uvarint, quicker for one or two bytes.
func uvarint(b []byte) (v uint64, n int) {
	if len(b) > 1 {
		if b[0] < 0x80 {
			return uint64(b[0]), 1
		}
		if b[1] < 0x80 {
			return uint64(b[0]&0x7f) | uint64(b[1])<<7, 2
		}
	}
	return binary.Uvarint(b)
}

// pairs appends the symbols of a label set, names and values in turn, which has its length in front.
func (d *decoder) pairs(dst []uint64) []uint64 {
	n := d.uvarint()
	b := d.b
	d.bad = d.bad || n > uint64(len(b))
	for n *= 2; n > 0 && !d.bad; n-- {
		v, size := uvarint(b)
		if size <= 0 {
			d.bad = true
			break
		}
		b = b[size:]
		dst = append(dst, v)
	}
	d.b = b
	return dst
}

// skipPairs drops what pairs appends.
func (d *decoder) skipPairs() {
	n := d.uvarint()
	b := d.b
	d.bad = d.bad || n > uint64(len(b))
	for n *= 2; n >= 8 && len(b) >= 8; b = b[8:] { // eight bytes end eight integers at most
		const goesOn = 0x8080808080808080 // the bits of bytes that are not the last of one
		n -= uint64(bits.OnesCount64(^binary.LittleEndian.Uint64(b) & goesOn))
	}
	i := 0
	for ; n > 0 && i < len(b); i++ {
		if b[i] < 0x80 {
			n--
		}
	}
	d.b = b[i:]
	d.bad = d.bad || n > 0
}

func (d *decoder) varint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1) // zigzag
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
