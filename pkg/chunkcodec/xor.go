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
// Guarded by BenchmarkDecode.
func decodeXORSteps(r bitReader, ts []int64, vs []float64, delta int64) (int, error) {
	end, ok := newEdge(r.data), false
	if r, ok = end.pass(r); !ok {
		return 1, errCut
	}
	r, w, change := r.xorChange(wholeFloat())
	if w.size == 0 {
		return 1, errWindow
	}
	vs = vs[:len(ts)]
	t, v := ts[0]+delta, math.Float64bits(vs[0])^change
	ts[1], vs[1] = t, math.Float64frombits(v)
	for i := 2; i < len(ts); i++ {
		if r, ok = end.pass(r); !ok {
			return i - 1, errCut
		}
		word := r.peek()
		switch {
		case word>>62 == 0: // nothing changes, in as many samples as there are pairs of zeros
			run := min(bits.LeadingZeros64(word|1<<(64-peekBits))/2, int(end.limit-r.pos+1)/2, len(ts)-i)
			t = hold(ts[i:i+run], vs[i:], t, delta, math.Float64frombits(v))
			i += run - 1
			r.pos += uint(2 * run)
			continue
		case word>>62 == 0b01 && w.size <= peekBits-3: // delta stays
			if run := r.xorRun(end.limit, w, vs[i:], v); run.samples > 0 {
				t = tick(ts[i:i+run.samples], t, delta)
				i += run.samples - 1
				r.pos, w, v = run.pos, run.in, run.bits
				continue
			}
		}
		if word>>63 == 0 {
			word <<= 1
			r.pos++
		} else {
			var step int64
			r, step = r.xorStep(word)
			delta += step
			word = r.peek()
		}
		t += delta
		switch {
		case word>>63 == 0: // the value stays
			r.pos++
		case word>>62 == 0b10: // it changes inside the window
			if w.size <= peekBits-3 {
				v ^= w.in(word << 2)
			} else {
				v ^= w.in(r.word(2))
			}
			r.pos += 2 + w.size
		default:
			r.pos += 2
			if w, change = r.openWindow(); w.size == 0 {
				return i, errWindow
			}
			v ^= change
			r.pos += 11 + w.size
		}
		ts[i], vs[i] = t, math.Float64frombits(v)
	}
	if end.fell(r) {
		return len(ts) - 1, errCut
	}
	return len(ts), nil
}

// xorRun are samples that stand between pos and where they began to be decoded.
type xorRun struct {
	samples int
	pos     uint
	in      window
	bits    uint64
}

// xorRun decodes the values of samples that keep delta and change the value inside a window of
// moderate size, as most samples do. It is a function of its own so that its loop has the registers to itself.
func (r bitReader) xorRun(limit uint, w window, vs []float64, v uint64) xorRun {
	data, pos := r.data[:limit/8+7], r.pos
	for i := range vs {
		at := pos / 8
		if at+8 > uint(len(data)) {
			return xorRun{i, pos, w, v}
		}
		word := binary.BigEndian.Uint64(data[at:at+8:at+8]) << (pos % 8)
		if word>>61 == 0b010 {
			v ^= word << 3 >> (w.leading & 63) & w.mask
			pos += 3 + w.size
		} else {
			in := newWindow(uint(word<<3>>59), (uint(word<<8>>58)-1)%64+1)
			if word>>61 != 0b011 || in.size-1 >= peekBits-14 {
				return xorRun{i, pos, w, v}
			}
			w = in
			v ^= w.in(word << 14)
			pos += 14 + w.size
		}
		vs[i] = math.Float64frombits(v)
	}
	return xorRun{len(vs), pos, w, v}
}

// tick fills in times, after time t, that step on by delta. It returns the last one.
func tick(ts []int64, t, delta int64) int64 {
	for i := range ts {
		t += delta
		ts[i] = t
	}
	return t
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
