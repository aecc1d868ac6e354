package chunkcodec

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// decodeXOR decodes the samples of an XOR chunk, whose header has been
// checked. It returns how many of them stand in ts and vs for sure.
func decodeXOR(data []byte, ts []int64, vs []float64) (int, error) {
	if len(ts) == 0 {
		return 0, nil
	}
	h := byteReader{data: data[xorHeader:]}
	ts[0], vs[0] = h.varint(), h.float()
	if h.cut {
		return 0, errCut
	}
	if len(ts) == 1 {
		return 1, nil
	}
	delta := int64(h.uvarint())
	if h.cut {
		return 1, errCut
	}
	return decodeXORSteps(bitReader{data: h.data}, ts, vs, delta)
}

// decodeXORSteps decodes the samples after the first one. Times step on by
// delta plus, from the third sample on, the change of delta that stands in
// front of the value. Of a value the bits are there that differ from the one before.
func decodeXORSteps(r bitReader, ts []int64, vs []float64, delta int64) (int, error) {
	end, ok := newEdge(r.data), false
	if r, ok = end.pass(r); !ok {
		return 1, errCut
	}
	r, w, change := r.xorChange(wholeFloat())
	if w.size == 0 {
		return 1, errWindow
	}
	s := xorSteps{bitReader: r, t: ts[0] + delta, delta: delta, v: math.Float64bits(vs[0]) ^ change, in: w}
	ts[1], vs[1] = s.t, math.Float64frombits(s.v)
	n := 2
	for n < len(ts) && s.in.size > 0 {
		if s.bitReader, ok = end.pass(s.bitReader); !ok {
			break
		}
		n = s.decode(n, end.limit, ts, vs)
	}
	switch {
	case end.fell(s.bitReader):
		return n - 1, errCut
	case s.in.size == 0:
		return n, errWindow
	}
	return n, nil
}

// xorSteps are samples that are not decoded yet, and what is known of those before.
type xorSteps struct {
	bitReader

	t, delta int64
	v        uint64
	in       window // of size 0 where the bits make no sense
}

// decode fills in samples from number i on while they begin below limit, and returns where it ended. Most
// samples keep delta and change the value inside the window, and where it is small, two of them
// are there in one look. Guarded by BenchmarkDecode.
func (s *xorSteps) decode(i int, limit uint, ts []int64, vs []float64) int {
	data, pos, t, delta, v := s.data, s.pos, s.t, s.delta, s.v
	mask, turn, size := s.in.mask, 3-int(s.in.leading), s.in.size+3
	ts = ts[:len(vs)]
	for i < len(vs) && pos < limit {
		word := bitReader{data, pos}.peek()
		if word>>61 == 0b010 {
			if size > peekBits {
				v ^= bitReader{data, pos}.word(3) >> ((3 - turn) & 63) & mask
			} else {
				v ^= bits.RotateLeft64(word, turn) & mask
			}
			pos += size
			t += delta
			ts[i], vs[i] = t, math.Float64frombits(v)
			i++
			word <<= size & 63
			if size > peekBits/2 || i == len(vs) || word>>61 != 0b010 {
				continue
			}
			pos += size
			v ^= bits.RotateLeft64(word, turn) & mask
			t += delta
			ts[i], vs[i] = t, math.Float64frombits(v)
			i++
			continue
		}
		if word>>63 != 0 {
			r, step := bitReader{data, pos}.xorStep(word)
			delta += step
			pos = r.pos - 1
			word = r.peek() >> 1 // as if delta had stayed
		}
		switch word >> 61 {
		case 0b011:
			in := newWindow(uint(word<<3>>59), (uint(word<<8>>58)-1)%64+1)
			if in.size == 0 {
				s.pos, s.in = pos, in
				return i
			}
			if in.size <= peekBits-14 {
				v ^= in.in(word << 14)
			} else {
				v ^= in.in(bitReader{data, pos}.word(14))
			}
			pos += 14 + in.size
			mask, turn, size = in.mask, 3-int(in.leading), in.size+3
		case 0b010:
			v ^= bitReader{data, pos}.word(3) >> ((3 - turn) & 63) & mask
			pos += size
		default: // nothing changes, in as many samples as there are pairs of zeros
			run := max(1, min(bits.LeadingZeros64(word|1<<(64-peekBits))/2, int(limit-pos+1)/2, len(ts)-i))
			t = hold(ts[i:i+run], vs[i:], t, delta, math.Float64frombits(v))
			i += run
			pos += uint(2 * run)
			continue
		}
		t += delta
		ts[i], vs[i] = t, math.Float64frombits(v)
		i++
	}
	s.pos, s.t, s.delta, s.v, s.in = pos, t, delta, v, window{mask, uint(3 - turn), size - 3}
	return i
}

// hold fills in samples, after time t, that step on by delta with one value. It returns the last time.
func hold(ts []int64, vs []float64, t, delta int64, v float64) int64 {
	vs = vs[:len(ts)]
	for i := range ts {
		t += delta
		ts[i], vs[i] = t, v
	}
	return t
}

// xorStep reads a change of delta, which is not 0; word is what stands ahead.
func (r bitReader) xorStep(word uint64) (bitReader, int64) {
	switch {
	case word>>62 == 0b10:
		r.pos += 16
		return r, unbalanced(word<<2>>50, 14)
	case word>>61 == 0b110:
		r.pos += 20
		return r, unbalanced(word<<3>>47, 17)
	case word>>60 == 0b1110:
		r.pos += 24
		return r, unbalanced(word<<4>>44, 20)
	}
	step := int64(r.word(4))
	r.pos += 68
	return r, step
}

// xorChange reads how a float differs from the one before. The window it
// returns has size 0 where the bits make no sense.
func (r bitReader) xorChange(w window) (next bitReader, after window, change uint64) {
	word := r.peek()
	switch {
	case word>>63 == 0:
		r.pos++
		return r, w, 0
	case word>>62 == 0b10:
		change = w.in(r.word(2))
		r.pos += 2 + w.size
		return r, w, change
	}
	r.pos += 2
	w, change = r.openWindow()
	r.pos += 11 + w.size
	return r, w, change
}

// appendXOR appends an XOR chunk to dst. Guarded by BenchmarkEncode.
func appendXOR(dst []byte, ts []int64, vs []float64) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(ts)))
	if len(ts) == 0 {
		return dst
	}
	dst = appendFirst(dst, ts[0], vs[0])
	if len(ts) == 1 {
		return dst
	}
	vs = vs[:len(ts)]
	t, v, delta := ts[1], math.Float64bits(vs[1]), ts[1]-ts[0]
	dst = binary.AppendUvarint(dst, uint64(delta))
	w := bitWriter{pos: uint(len(dst)) * 8}
	buf := w.room(dst[:cap(dst)], 0)
	w, in := w.putXORChange(buf, window{}, v^math.Float64bits(vs[0]))
	for i := 2; i < len(ts); i++ {
		buf = w.room(buf, 0)
		prefix := uint(1) // a zero: delta stays
		if step := ts[i] - t - delta; step != 0 {
			w = w.putXORStep(buf, step)
			delta += step
			prefix = 0
		}
		change := math.Float64bits(vs[i]) ^ v
		t, v = ts[i], math.Float64bits(vs[i])
		switch {
		case change == 0 && prefix == 1:
			run := steady(ts[i-1:min(i+putBits/2, len(ts))], vs[i-1:])
			w = w.put(buf, 0, uint(2*run))
			i += run - 1
			t = ts[i]
		case change == 0:
			w = w.put(buf, 0, 1)
		case !in.holds(change):
			w, in = w.openWindow(buf, field{0b11, prefix + 2}, change)
		case in.size <= putBits-3:
			w = w.put(buf, 0b10<<in.size|in.out(change), prefix+2+in.size)
		default:
			w = w.put(buf, 0b10, prefix+2).putLong(buf, in.out(change), in.size)
		}
	}
	return w.bytes(buf)
}

// steady counts the samples after the second one whose delta and value are
// those of the second, which it counts too.
func steady(ts []int64, vs []float64) int {
	n, delta, v := 1, ts[1]-ts[0], math.Float64bits(vs[1])
	for n+1 < len(ts) && ts[n+1]-ts[n] == delta && math.Float64bits(vs[n+1]) == v {
		n++
	}
	return n
}

// appendFirst appends the first sample of a chunk of floats.
func appendFirst(dst []byte, t int64, v float64) []byte {
	return binary.BigEndian.AppendUint64(binary.AppendVarint(dst, t), math.Float64bits(v))
}

// putXORStep writes what bitReader.xorStep reads.
func (w bitWriter) putXORStep(buf []byte, step int64) bitWriter {
	switch {
	case -1<<13 < step && step <= 1<<13:
		return w.put(buf, 0b10<<14|uint64(step)&(1<<14-1), 16)
	case -1<<16 < step && step <= 1<<16:
		return w.put(buf, 0b110<<17|uint64(step)&(1<<17-1), 20)
	case -1<<19 < step && step <= 1<<19:
		return w.put(buf, 0b1110<<20|uint64(step)&(1<<20-1), 24)
	}
	return w.put(buf, 0b1111, 4).putLong(buf, uint64(step), 64)
}

// putXORChange writes what bitReader.xorChange reads.
func (w bitWriter) putXORChange(buf []byte, in window, change uint64) (bitWriter, window) {
	switch {
	case change == 0:
		return w.put(buf, 0, 1), in
	case in.holds(change):
		return w.put(buf, 0b10, 2).putLong(buf, in.out(change), in.size), in
	}
	return w.openWindow(buf, field{0b11, 2}, change)
}
