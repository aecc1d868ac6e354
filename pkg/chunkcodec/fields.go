package chunkcodec

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// What is not the hot path of floats reads field by field, each after a look
// at the edge: beyond the end fields are zero, and the edge is cut. The readers
// are handed on as values and never stored beside the tail that they may read
// from, so that nothing is allocated for them.

// look returns a reader that may read a field.
func (e *edge) look(r bitReader) bitReader {
	if r, ok := e.pass(r); ok {
		return r
	}
	return e.spoil()
}

// spoil returns a reader of zeros, enough for one field.
func (e *edge) spoil() bitReader {
	e.cut, e.last, e.limit = true, true, 1
	return bitReader{data: e.tail[reach:]}
}

// whole reports whether all that r has read was there.
func (e *edge) whole(r bitReader) bool { return !e.cut && !e.fell(r) }

// left is the number of bits that r has not read.
func (e *edge) left(r bitReader) int {
	switch {
	case !e.whole(r):
		return 0
	case e.last:
		return int(e.limit - 1 - r.pos)
	}
	return len(r.data)*8 - int(r.pos)
}

// bits reads n bits, at most 64.
func (e *edge) bits(r bitReader, n uint) (bitReader, uint64) {
	r = e.look(r)
	v := r.word(0) >> (64 - n)
	r.pos += n
	return r, v
}

func (e *edge) varint(r bitReader) (bitReader, int64) { return e.look(r).varint() }

func (e *edge) varuint(r bitReader) (bitReader, uint64) {
	r, v, _ := e.look(r).varbit()
	return r, v
}

// byteVarint reads a varint of encoding/binary's, which need not begin at a byte.
func (e *edge) byteVarint(r bitReader) (bitReader, int64) {
	var b [binary.MaxVarintLen64]byte
	for i := range b {
		var v uint64
		r, v = e.bits(r, 8)
		if b[i] = byte(v); v < 0x80 {
			break
		}
	}
	v, n := binary.Varint(b[:])
	if n <= 0 {
		r = e.spoil()
	}
	return r, v
}

// steps leaves in values what deltas add to those before, after it has changed deltas by a varint
// each. Where counts change at random a processor can guess nothing but the end, so short fields that stand in
// a peek as a whole are looked up, where there is a table. Guarded by BenchmarkDecode.
func (e *edge) steps(r bitReader, t *stepTable, before, values, deltas []int64) bitReader {
	before, deltas = before[:len(values)], deltas[:len(values)]
	many := uint64(1) << (64 - steadyFields)
	if t == nil {
		many = 1 << 63
	}
	for i := 0; i < len(values); {
		var ok bool
		if r, ok = e.pass(r); !ok {
			return e.spoil()
		}
		word := r.peek()
		if word < many { // as many deltas stay as there are zeros
			run := min(bits.LeadingZeros64(word|1<<(64-peekBits)), int(e.limit-r.pos), len(values)-i)
			for end := i + run; i < end; i++ {
				values[i] = before[i] + deltas[i]
			}
			r.pos += uint(run)
			continue
		}
		n, size := t.pack(word, before[i:], values[i:], deltas[i:])
		i += n
		if r.pos += size; n > 0 {
			continue
		}
		var d int64
		r, d = r.varint()
		deltas[i] += d
		values[i] = before[i] + deltas[i]
		i++
	}
	return r
}

const (
	// stepBits is how many bits ahead a stepTable knows: those of a field with a number of six.
	stepBits = 9
	// steadyFields is how many zeros make it worth while to look for more.
	steadyFields = 8
)

// stepTable says of the bits ahead which number stands in the field that they begin, above four bits that say
// how long it is: 0 where it is longer than they are.
type stepTable [1 << stepBits]int16

func newStepTable() *stepTable {
	var t stepTable
	var data [16]byte
	for ahead := range t {
		binary.BigEndian.PutUint64(data[:], uint64(ahead)<<(64-stepBits))
		if r, v := (bitReader{data: data[:]}).varint(); r.pos <= stepBits {
			t[ahead] = int16(v)<<4 | int16(r.pos)
		}
	}
	return &t
}

// pack is steps for the short fields that stand in a peek as a whole. It returns how many these are, and their bits.
func (t *stepTable) pack(word uint64, before, values, deltas []int64) (n int, size uint) {
	if t == nil { // said once, this is not asked again for each field
		return 0, 0
	}
	before, deltas = before[:len(values)], deltas[:len(values)]
	for size <= peekBits-stepBits && n < len(values) {
		step := t[word>>(64-stepBits)]
		if step == 0 {
			break
		}
		d := deltas[n] + int64(step>>4)
		deltas[n], values[n] = d, before[n]+d
		n++
		word <<= uint(step & 0xf)
		size += uint(step & 0xf)
	}
	return n, size
}

// xorFloat is a float with the window of its changes.
type xorFloat struct {
	bits uint64
	in   window
}

func (x xorFloat) float() float64 { return math.Float64frombits(x.bits) }

// changes reads how floats differ from before. Guarded by BenchmarkDecode.
func (e *edge) changes(r bitReader, floats []xorFloat) bitReader {
	for i := 0; i < len(floats); i++ {
		var ok bool
		if r, ok = e.pass(r); !ok {
			return e.spoil()
		}
		x := &floats[i]
		switch word := r.peek(); {
		case word>>63 == 0: // as many floats stay as there are zeros
			run := min(bits.LeadingZeros64(word|1<<(64-peekBits)), int(e.limit-r.pos), len(floats)-i)
			r.pos += uint(run)
			i += run - 1
		case word>>62 == 0b10 && x.in.size <= peekBits-2:
			x.bits ^= x.in.in(word << 2)
			r.pos += 2 + x.in.size
		default:
			in := newWindow(uint(word<<2>>59), (uint(word<<7>>58)-1)%64+1) // as openWindow does, but with this peek
			if word>>62 == 0b11 && in.size-1 < peekBits-13 {
				x.in = in
				x.bits ^= in.in(word << 13)
				r.pos += 13 + in.size
				continue
			}
			var change uint64
			if r, x.in, change = r.xorChange(x.in); x.in.size == 0 {
				return e.spoil()
			}
			x.bits ^= change
		}
	}
	return r
}
