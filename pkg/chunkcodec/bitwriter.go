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

// room returns buf with space for a sample of floats, or a field, at w.
func (w bitWriter) room(buf []byte) []byte {
	if uint(len(buf)) < w.pos/8+reach {
		buf = slices.Grow(buf, 2*reach)
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

// putLong is put for fields of up to 64 bits.
func (w bitWriter) putLong(buf []byte, v uint64, n uint) bitWriter {
	if n > putBits {
		w = w.put(buf, v>>32, n-32)
		v, n = v&math.MaxUint32, 32
	}
	return w.put(buf, v, n)
}

// openWindow writes an n-bit prefix and a change in the window that fits it best.
func (w bitWriter) openWindow(buf []byte, prefix uint64, n uint, change uint64) (bitWriter, window) {
	leading := uint(min(bits.LeadingZeros64(change), 31)) // five bits hold no more
	size := 64 - leading - uint(bits.TrailingZeros64(change))
	in := newWindow(leading, size)
	w = w.put(buf, prefix<<11|uint64(leading)<<6|uint64(size%64), n+11)
	return w.putLong(buf, in.out(change), size), in
}

// putVarint writes what bitReader.varint reads.
func (w bitWriter) putVarint(buf []byte, v int64) bitWriter {
	if v == 0 {
		return w.put(buf, 0, 1)
	}
	sign := v >> 63
	u, need := uint64(v), 1+bits.Len64(uint64(v^sign-2*sign-1)) // of v-1, or of -v
	switch {
	case need <= 3:
		return w.put(buf, 0b10<<3|u&(1<<3-1), 5)
	case need <= 6:
		return w.put(buf, 0b110<<6|u&(1<<6-1), 9)
	case need <= 9:
		return w.put(buf, 0b1110<<9|u&(1<<9-1), 13)
	case need <= 12:
		return w.put(buf, 0b11110<<12|u&(1<<12-1), 17)
	case need <= 18:
		return w.put(buf, 0b111110<<18|u&(1<<18-1), 24)
	case need <= 25:
		return w.put(buf, 0b1111110<<25|u&(1<<25-1), 32)
	case need <= 56:
		return w.put(buf, 0b11111110, 8).put(buf, u&(1<<56-1), 56)
	}
	return w.put(buf, 0b11111111, 8).putLong(buf, u, 64)
}
