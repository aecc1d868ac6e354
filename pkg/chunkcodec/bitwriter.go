package chunkcodec

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
)

// bitWriter writes big-endian bit fields into a buffer that its caller holds
// and makes room in. It is a value that the compiler keeps in registers.
type bitWriter struct {
	open uint64 // the bits of the byte that is begun, at the top
	pos  uint   // in bits
}

// putBits is the longest field that fits beside a begun byte.
const putBits = 64 - 8

// longestField is the room for the longest field, in bytes: 77 bits in front of a float.
const longestField = 10

// room returns buf with space for a sample of floats, or a field, at w.
func (w bitWriter) room(buf []byte) []byte {
	if uint(len(buf)) < w.pos/8+reach {
		buf = slices.Grow(buf, 2*reach)
		buf = buf[:cap(buf)]
	}
	return buf
}

// roomFor returns buf with space for so many fields, and for the rest of a histogram beside its buckets.
func (w bitWriter) roomFor(buf []byte, fields int) []byte {
	if need := int(w.pos/8) + 2*reach + fields*longestField; len(buf) < need {
		buf = slices.Grow(buf, need-len(buf))
		buf = buf[:cap(buf)]
	}
	return buf
}

// bytes returns what was written.
func (w bitWriter) bytes(buf []byte) []byte { return buf[:(w.pos+7)/8] }

// put writes the n low bits of v, which has no others; n is at most putBits.
// It overwrites eight bytes.
func (w bitWriter) put(buf []byte, v uint64, n uint) bitWriter {
	used := w.pos%8 + n
	w.open |= v << ((64 - used) & 63)
	binary.BigEndian.PutUint64(buf[w.pos/8:], w.open)
	w.open <<= used &^ 7 & 63
	w.pos += n
	return w
}

// putZero writes a zero bit. What follows the open bits is zero already, eight bytes far.
func (w bitWriter) putZero(buf []byte) bitWriter {
	if w.pos++; w.pos%8 == 0 {
		w.open = 0
		binary.BigEndian.PutUint64(buf[w.pos/8:], 0)
	}
	return w
}

// putLong is put for fields of up to 64 bits.
func (w bitWriter) putLong(buf []byte, v uint64, n uint) bitWriter {
	if n > putBits {
		w = w.put(buf, v>>32, n-32)
		v, n = v&math.MaxUint32, 32
	}
	return w.put(buf, v, n)
}

// field is the n low bits of v, which has no others.
type field struct {
	v uint64
	n uint
}

// then is f with a field of n bits behind it.
func (f field) then(v uint64, n uint) field { return field{f.v<<(n&63) | v, f.n + n} }

// putBehind writes a head of up to 40 bits and a field of up to 64 behind it.
func (w bitWriter) putBehind(buf []byte, head field, v uint64, n uint) bitWriter {
	if head.n+n <= putBits {
		return w.put(buf, head.v<<n|v, head.n+n)
	}
	return w.put(buf, head.v, head.n).putLong(buf, v, n)
}

// openWindow writes, behind a head of up to 28 bits, a change in the window that fits it best.
func (w bitWriter) openWindow(buf []byte, head field, change uint64) (bitWriter, window) {
	leading := uint(min(bits.LeadingZeros64(change), 31)) // five bits hold no more
	size := 64 - leading - uint(bits.TrailingZeros64(change))
	in := newWindow(leading, size)
	head = head.then(uint64(leading)<<6|uint64(size%64), 11)
	if head.n+size <= putBits {
		return w.put(buf, head.v<<size|in.out(change), head.n+size), in
	}
	return w.put(buf, head.v, head.n).putLong(buf, in.out(change), size), in
}

// varbitOnes says for each length of a number, in bits, with how many ones its
// varbit field begins. 65 is the length that signedLen gives to 0.
const varbitOnes = "011122233344455555566666667777777777777777777777777777777888888880"

// signedLen is how many bits a signed number takes whose greatest value is one
// more than two's complement would have it.
func signedLen(v int64) int {
	sign := v >> 63
	return 1 + bits.Len64(uint64(v^sign-2*sign-1)) // of v-1, or of -v
}

// varbit returns the field that bitReader.varbit reads, and its length; 0 if it is longer than 32 bits.
func varbit(v uint64, size int) (field uint64, n uint) {
	ones := uint(varbitOnes[size] - '0')
	if ones > 6 {
		return 0, 0
	}
	width := uint(0x19_12_0c_09_06_03_00>>(8*ones)) & 0xff
	n = ones + 1 + width
	return (1<<(n&63) - 2<<(width&63)) | v&(1<<(width&63)-1), n
}

// putVarint writes what bitReader.varint reads.
func (w bitWriter) putVarint(buf []byte, v int64) bitWriter {
	size := signedLen(v)
	if field, n := varbit(uint64(v), size); n > 0 {
		return w.put(buf, field, n)
	}
	return w.putLongVarbit(buf, uint64(v), size)
}

// putVaruint writes what edge.varuint reads.
func (w bitWriter) putVaruint(buf []byte, v uint64) bitWriter {
	size := bits.Len64(v)
	if field, n := varbit(v, size); n > 0 {
		return w.put(buf, field, n)
	}
	return w.putLongVarbit(buf, v, size)
}

// putLongVarbit writes the fields for which varbit has no length.
func (w bitWriter) putLongVarbit(buf []byte, v uint64, size int) bitWriter {
	if size <= 56 {
		return w.put(buf, 0b11111110, 8).put(buf, v&(1<<56-1), 56)
	}
	return w.put(buf, 0b11111111, 8).putLong(buf, v, 64)
}

// putByteVarint writes what edge.byteVarint reads.
func (w bitWriter) putByteVarint(buf []byte, v int64) bitWriter {
	var b [binary.MaxVarintLen64]byte
	for _, octet := range b[:binary.PutVarint(b[:], v)] {
		w = w.put(buf, uint64(octet), 8)
	}
	return w
}

// putSteps writes what edge.steps reads: how the values differ from last, by
// more than deltas, both of which it moves on. Guarded by BenchmarkEncode.
func (w bitWriter) putSteps(buf []byte, values, last, deltas []int64) bitWriter {
	last, deltas = last[:len(values)], deltas[:len(values)]
	for i, v := range values {
		delta := v - last[i]
		step := delta - deltas[i]
		last[i], deltas[i] = v, delta
		w = w.putVarint(buf, step)
	}
	return w
}

// putChanges writes what edge.changes reads. Guarded by BenchmarkEncode.
func (w bitWriter) putChanges(buf []byte, values []float64, last []xorFloat) bitWriter {
	last = last[:len(values)]
	for i, v := range values {
		x := &last[i]
		now := math.Float64bits(v)
		w, x.in = w.putXORChange(buf, x.in, now^x.bits)
		x.bits = now
	}
	return w
}

// putFloats writes the values that changes begin with.
func (w bitWriter) putFloats(buf []byte, values []float64, last []xorFloat) bitWriter {
	for i, v := range values {
		last[i] = xorFloat{bits: math.Float64bits(v)}
		w = w.putLong(buf, last[i].bits, 64)
	}
	return w
}
