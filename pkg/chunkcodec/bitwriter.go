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

// room returns buf with space for a sample of floats at w, or for a histogram of so many buckets.
func (w bitWriter) room(buf []byte, buckets int) []byte {
	if need := int(w.pos/8) + 2*reach + buckets*longestField; len(buf) < need {
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

// putZero writes a zero bit, though never the first bit: behind the open bits
// there are zeros, because put overwrites more than it writes.
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
	return w.putBehind(buf, head, in.out(change), size), in
}

// putVarint writes what bitReader.varint reads.
func (w bitWriter) putVarint(buf []byte, v int64) bitWriter {
	if v == 0 {
		return w.put(buf, 0, 1)
	}
	sign := v >> 63
	// A positive number may be one more than two's complement would have it.
	return w.putVarbit(buf, uint64(v), 1+bits.Len64(uint64(v^sign-2*sign-1)))
}

// putVaruint writes what edge.varuint reads.
func (w bitWriter) putVaruint(buf []byte, v uint64) bitWriter {
	if v == 0 {
		return w.put(buf, 0, 1)
	}
	return w.putVarbit(buf, v, bits.Len64(v))
}

// putVarbit writes a number of so many bits. Processors guess the case mostly
// rightly, and then need not wait for it, as they would for a look into a table.
func (w bitWriter) putVarbit(buf []byte, v uint64, size int) bitWriter {
	switch {
	case size <= 3:
		return w.put(buf, 0b10<<3|v&(1<<3-1), 5)
	case size <= 6:
		return w.put(buf, 0b110<<6|v&(1<<6-1), 9)
	case size <= 9:
		return w.put(buf, 0b1110<<9|v&(1<<9-1), 13)
	case size <= 12:
		return w.put(buf, 0b11110<<12|v&(1<<12-1), 17)
	case size <= 18:
		return w.put(buf, 0b111110<<18|v&(1<<18-1), 24)
	case size <= 25:
		return w.put(buf, 0b1111110<<25|v&(1<<25-1), 32)
	case size <= 56:
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
		if step == 0 {
			w = w.putZero(buf)
			continue
		}
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
