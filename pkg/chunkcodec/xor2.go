package chunkcodec

import (
	"encoding/binary"
	"math"
	"math/bits"

	"github.com/prometheus/prometheus/model/value"
)

// decodeXOR2 decodes the samples of an XOR2 chunk, whose header has been
// checked. It returns how many of them stand in the columns for sure; st may
// be nil where the header promises no start timestamps.
func decodeXOR2(data []byte, ts []int64, vs []float64, st []int64) (int, error) {
	if len(ts) == 0 {
		return 0, nil
	}
	s := readStarts(data[xor2Header-1], st)
	h := byteReader{data: data[xor2Header:]}
	ts[0], vs[0] = h.varint(), h.float()
	start := int64(0)
	if data[xor2Header-1]&startKnown != 0 {
		start = ts[0] - h.varint()
	}
	if h.cut {
		return 0, errCut
	}
	for i := range st {
		st[i] = start // until the first change
	}
	if len(ts) == 1 {
		return 1, nil
	}
	delta := int64(h.uvarint())
	if h.cut {
		return 1, errCut
	}
	return decodeXOR2Steps(bitReader{data: h.data}, ts, vs, delta, s)
}

// decodeXOR2Steps is decodeXORSteps with one control field for time and value,
// a sign for staleness that leaves the value to compare with alone, and start timestamps.
// Guarded by BenchmarkDecode.
func decodeXOR2Steps(r bitReader, ts []int64, vs []float64, delta int64, s starts) (int, error) {
	end, ok := newEdge(r.data), false
	if r, ok = end.pass(r); !ok {
		return 1, errCut
	}
	vs = vs[:len(ts)]
	t, v := ts[0]+delta, math.Float64bits(vs[0])
	if v == value.StaleNaN {
		v = 0
	}
	r, w, change := r.xor2Change(wholeFloat())
	if w.size == 0 {
		return 1, errWindow
	}
	v ^= change.bits
	ts[1], vs[1] = t, change.after(v)
	if s.from == 1 {
		r = s.read(r, 1, ts[0])
	}
	for i := 2; i < len(ts); i++ {
		if r, ok = end.pass(r); !ok {
			return i - 1, errCut
		}
		word := r.peek()
		now := v
		switch {
		case word>>63 == 0: // nothing changes
			if i < s.from { // nor in as many samples as there are zeros
				run := min(bits.LeadingZeros64(word|1<<(64-peekBits)), int(end.limit-r.pos), len(ts)-i, s.from-i)
				t = hold(ts[i:i+run], vs[i:], t, delta, math.Float64frombits(v))
				i += run - 1
				r.pos += uint(run)
				continue
			}
			r.pos++
		case word>>61 == 0b100: // the value changes inside the window
			if w.size <= peekBits-3 {
				v ^= w.in(word << 3)
			} else {
				v ^= w.in(r.word(3))
			}
			r.pos += 3 + w.size
			now = v
		case word>>61 == 0b101:
			r.pos += 3
			if w, change.bits = r.openWindow(); w.size == 0 {
				return i, errWindow
			}
			v ^= change.bits
			r.pos += 11 + w.size
			now = v
		case word>>59 == 0b11111:
			r.pos += 5
			now = value.StaleNaN
		default:
			var step int64
			r, step = r.xor2Step(word)
			delta += step
			if r, w, change = r.xor2Change(w); w.size == 0 {
				return i, errWindow
			}
			v ^= change.bits
			now = math.Float64bits(change.after(v))
		}
		t += delta
		ts[i], vs[i] = t, math.Float64frombits(now)
		if i >= s.from {
			r = s.read(r, i, ts[i-1])
		}
	}
	if end.fell(r) {
		return len(ts) - 1, errCut
	}
	return len(ts), nil
}

// xor2Step reads a change of delta, which is not 0; word is what stands ahead.
func (r bitReader) xor2Step(word uint64) (bitReader, int64) {
	switch {
	case word>>61 == 0b110:
		r.pos += 16
		return r, int64(word<<3) >> 51
	case word>>60 == 0b1110:
		r.pos += 24
		return r, int64(word<<4) >> 44
	}
	step := int64(r.word(5))
	r.pos += 69
	return r, step
}

// change is how a float differs from the last one that was no stale marker.
type change struct {
	bits  uint64
	stale bool
}

func (c change) after(v uint64) float64 {
	if c.stale {
		v = value.StaleNaN
	}
	return math.Float64frombits(v)
}

// xor2Change reads the value of a sample whose delta changed. The window it
// returns has size 0 where the bits make no sense.
func (r bitReader) xor2Change(w window) (next bitReader, after window, c change) {
	word := r.peek()
	switch {
	case word>>63 == 0:
		r.pos++
		return r, w, c
	case word>>62 == 0b10:
		c.bits = w.in(r.word(2))
		r.pos += 2 + w.size
		return r, w, c
	case word>>61 == 0b111:
		r.pos += 3
		return r, w, change{stale: true}
	}
	r.pos += 3
	w, c.bits = r.openWindow()
	r.pos += 11 + w.size
	return r, w, c
}

// appendXOR2 appends an XOR2 chunk to dst; st is empty where no start
// timestamp is known. Guarded by BenchmarkEncode.
func appendXOR2(dst []byte, ts []int64, vs []float64, st []int64) []byte {
	s := findStarts(st, len(ts))
	dst = append(binary.BigEndian.AppendUint16(dst, uint16(len(ts))), s.header())
	if len(ts) == 0 {
		return dst
	}
	dst = appendFirst(dst, ts[0], vs[0])
	if s.at(0) != 0 {
		dst = binary.AppendVarint(dst, ts[0]-s.at(0))
	}
	if len(ts) == 1 {
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(ts[1]-ts[0]))
	w := bitWriter{pos: uint(len(dst)) * 8}
	return w.appendXOR2Steps(dst, ts, vs, s)
}

// appendXOR2Steps is the inverse of decodeXOR2Steps.
func (w bitWriter) appendXOR2Steps(dst []byte, ts []int64, vs []float64, s starts) []byte {
	buf := w.room(dst[:cap(dst)], 0)
	vs = vs[:len(ts)]
	v, delta := math.Float64bits(vs[0]), ts[1]-ts[0]
	if v == value.StaleNaN {
		v = 0
	}
	w, in := w.putXOR2Change(buf, field{}, window{}, math.Float64bits(vs[1]), v)
	if s.from == 1 {
		s.last = s.distance(1, ts[0])
		w = w.putVarint(buf, s.last)
	}
	if now := math.Float64bits(vs[1]); now != value.StaleNaN {
		v = now
	}
	for i := 2; i < len(ts); i++ {
		buf = w.room(buf, 0)
		now := math.Float64bits(vs[i])
		change := now ^ v
		if step := ts[i] - ts[i-1] - delta; step != 0 {
			late := field{0b110<<13 | uint64(step)&(1<<13-1), 16}
			if step < -1<<12 || 1<<12 <= step {
				w, late = w.putXOR2Step(buf, step)
			}
			w, in = w.putXOR2Change(buf, late, in, now, v)
			delta += step
			if now == value.StaleNaN {
				now = v
			}
		} else if change == 0 {
			w = w.putZero(buf)
		} else if now == value.StaleNaN {
			w = w.put(buf, 0b11111, 5)
			now = v
		} else if !in.holds(change) {
			w, in = w.openWindow(buf, field{0b101, 3}, change)
		} else if in.size <= putBits-3 {
			w = w.put(buf, 0b100<<in.size|in.out(change), 3+in.size)
		} else {
			w = w.put(buf, 0b100, 3).putLong(buf, in.out(change), in.size)
		}
		if i >= s.from {
			distance := s.distance(i, ts[i-1])
			step := distance - s.last
			s.last = distance
			if f := startField(step); f.n > 0 {
				w = w.put(buf, f.v, f.n)
			} else {
				w = w.putVarint(buf, step)
			}
		}
		v = now
	}
	return w.bytes(buf)
}

// putXOR2Step writes what bitReader.xor2Step reads, but for the shortest form,
// or returns a field for it.
func (w bitWriter) putXOR2Step(buf []byte, step int64) (bitWriter, field) {
	if -1<<19 <= step && step < 1<<19 {
		return w, field{0b1110<<20 | uint64(step)&(1<<20-1), 24}
	}
	return w.put(buf, 0b11110, 5).putLong(buf, uint64(step), 64), field{}
}

// putXOR2Change writes, behind a head, what bitReader.xor2Change reads.
func (w bitWriter) putXOR2Change(buf []byte, head field, in window, now, before uint64) (bitWriter, window) {
	change := now ^ before
	switch {
	case change == 0:
		return w.put(buf, head.v<<1, head.n+1), in
	case now == value.StaleNaN:
		return w.put(buf, head.v<<3|0b111, head.n+3), in
	case in.holds(change):
		return w.putBehind(buf, head.then(0b10, 2), in.out(change), in.size), in
	}
	return w.openWindow(buf, head.then(0b110, 3), change)
}
