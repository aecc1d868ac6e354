package chunkcodec

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// bitReader reads big-endian bit fields. It is a value, four words that the
// compiler keeps in registers, and never looks where the data end: whoever
// reads asks an edge before each field or sample.
type bitReader struct {
	data []byte
	pos  uint // in bits
}

// peekBits is how many bits of a peek are there for sure: it begins inside a byte.
const peekBits = 64 - 7

// peek returns what stands ahead, at the top of a word.
func (r bitReader) peek() uint64 {
	at := r.pos / 8
	return binary.BigEndian.Uint64(r.data[at:at+8:at+8]) << (r.pos % 8) // the third index saves a check
}

// word returns the whole 64 bits that begin n bits ahead.
func (r bitReader) word(n uint) uint64 {
	at, shift := (r.pos+n)/8, (r.pos+n)%8
	ahead := r.data[at : at+9 : at+9]
	return binary.BigEndian.Uint64(ahead)<<shift | uint64(ahead[8])>>(8-shift)
}

// reach is how many bytes a reader that an edge has let pass may look at: the
// longest sample of floats takes 219 bits, and a word after it nine bytes.
const reach = 40

// edge lets a bitReader pass while at least reach bytes lie ahead of it. What
// is left then goes into a buffer with zeros behind it, where the reader
// passes until it has read beyond the end of the data.
type edge struct {
	limit uint // positions below it pass
	last  bool // the reader is in the tail
	cut   bool // see look
	tail  [2 * reach]byte
}

func newEdge(data []byte) edge {
	return edge{limit: uint(max(len(data)-reach+1, 0)) * 8}
}

// pass returns a reader that may read one sample of floats or one field, false
// where r has read beyond the end.
func (e *edge) pass(r bitReader) (bitReader, bool) {
	if r.pos < e.limit {
		return r, true
	}
	return e.enterTail(r)
}

func (e *edge) enterTail(r bitReader) (bitReader, bool) {
	if e.last {
		return r, false
	}
	n := copy(e.tail[:], r.data[min(r.pos/8, uint(len(r.data))):])
	e.last, e.limit = true, uint(n)*8+1
	return bitReader{data: e.tail[:], pos: r.pos % 8}, true
}

// fell reports whether r has read beyond the end.
func (e *edge) fell(r bitReader) bool { return e.last && r.pos >= e.limit }

// wholeFloat is the window that readers begin with.
func wholeFloat() window { return newWindow(0, 64) }

// window is where the bits of a float stand that a change touches: size bits
// behind leading others. The mask selects them.
type window struct {
	mask    uint64
	leading uint
	size    uint
}

// newWindow has size 0, and holds no change, where a float has no room for it.
func newWindow(leading, size uint) window {
	if leading+size > 64 {
		return window{}
	}
	return window{mask: math.MaxUint64 << ((64 - size) & 63) >> (leading & 63), leading: leading, size: size}
}

// holds reports whether a change that is not zero fits the window.
func (w window) holds(change uint64) bool { return change&^w.mask == 0 }

// in moves the bits of a change from the top of word to their place.
func (w window) in(word uint64) uint64 { return word >> (w.leading & 63) & w.mask }

// out moves the bits of a change from their place to the bottom of a word.
func (w window) out(change uint64) uint64 { return change >> ((64 - w.leading - w.size) & 63) }

// openWindow reads a new window, 11 bits, and the change that follows in it.
func (r bitReader) openWindow() (w window, change uint64) {
	word := r.peek()
	w = newWindow(uint(word>>59), (uint(word>>53)-1)%64+1) // 0 stands for 64
	if w.size <= peekBits-11 {
		return w, w.in(word << 11)
	}
	return w, w.in(r.word(11))
}

// unbalanced is a signed number of n bits whose greatest value is one more
// than two's complement would have it.
func unbalanced(v uint64, n uint) int64 {
	if v > 1<<(n-1) {
		v -= 1 << n
	}
	return int64(v)
}

// varbit reads the field that Prometheus' varbit encoding holds: a prefix of
// up to eight ones says how many bits follow.
func (r bitReader) varbit() (next bitReader, v uint64, width uint) {
	word := r.peek()
	if word>>63 == 0 {
		r.pos++
		return r, 0, 0
	}
	const widths = 0x40_38_19_12_0c_09_06_03 // of one to eight ones, a byte each
	ones := uint(bits.LeadingZeros64(^word | 1<<55))
	width = widths >> (8 * (ones - 1)) & 0xff
	prefix := min(ones+1, 8)
	if width <= 25 {
		v = word << prefix >> (64 - width)
	} else {
		v = r.word(prefix) >> (64 - width)
	}
	r.pos += prefix + width
	return r, v, width
}

func (r bitReader) varint() (bitReader, int64) {
	r, v, width := r.varbit()
	if width > 0 && width < 64 {
		return r, unbalanced(v, width)
	}
	return r, int64(v)
}
