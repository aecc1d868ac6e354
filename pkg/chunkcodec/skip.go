package chunkcodec

import "math/bits"

// fieldBits is how many bits ahead a fieldTable knows.
const fieldBits = 12

// fieldTable says of the bits ahead how many fields of varbit encoding stand in them as a whole, in the
// upper half of a byte, and how many bits these take: 0 where the first field is longer.
type fieldTable [1 << fieldBits]uint8

func newFieldTable() *fieldTable {
	var t fieldTable
	for ahead := range t {
		word, fields, size := uint64(ahead)<<(64-fieldBits), uint8(0), uint(0)
		for {
			length := fieldLength(word)
			if size+length > fieldBits {
				break
			}
			word <<= length
			size += length
			fields++
		}
		t[ahead] = fields<<4 | uint8(size)
	}
	return &t
}

// fieldLength is that of the field at the top of word, too long a one for longer ones than 64 bits.
func fieldLength(word uint64) uint {
	const lengths = 0x40_20_18_11_0d_09_05_01 // of fields that begin with no one to seven of them, a byte each
	ones := uint(bits.LeadingZeros64(^word | 1<<56))
	return uint(lengths >> (8 * ones) & 0xff)
}

// skip passes over n fields of varbit encoding. Guarded by BenchmarkDedup.
func (e *edge) skip(r bitReader, n int, t *fieldTable) bitReader {
	for n > 0 {
		var ok bool
		if r, ok = e.pass(r); !ok {
			return e.spoil()
		}
		fields, size := t.pack(r.peek(), n)
		if fields == 0 { // longer than a peek
			r, _, _ = r.varbit()
			fields = 1
		}
		n -= fields
		r.pos += size
	}
	return r
}

// pack counts fields, up to n, that stand in a peek as a whole, and their bits. Where counts change at random
// a processor can guess nothing but the end, so most fields are passed several at a time without a branch.
func (t *fieldTable) pack(word uint64, n int) (fields int, size uint) {
	for size <= peekBits-fieldBits {
		entry := t[word>>(64-fieldBits)]
		if entry == 0 || int(entry>>4) > n-fields {
			break
		}
		fields += int(entry >> 4)
		size += uint(entry & 0xf)
		word <<= entry & 0xf
	}
	if fields > 0 {
		return fields, size
	}
	for fields < n { // a long one, or the last ones
		length := fieldLength(word)
		if size+length > peekBits {
			break
		}
		word <<= length
		size += length
		fields++
	}
	return fields, size
}
