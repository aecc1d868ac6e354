package chunkcodec

import "math"

// The start-timestamp byte of encodings 4 to 6.
const (
	startKnown = 1 << 7         // the first sample has a start
	lastChange = startKnown - 1 // the lower bits: with which sample starts begin to be written, 0 never
)

// starts are the start timestamps of a chunk. Until they change for the first
// time they equal that of the first sample; from there on each is written, as
// its distance from the time of the sample before. What the header holds of
// that position ends at lastChange: there it is taken for a change.
type starts struct {
	st   []int64 // empty where the chunk has none
	from int     // the first sample whose start is written; math.MaxInt where there is none
	last int64   // the last distance that was read or written
}

// readStarts prepares the starts of a chunk with that byte in its header; st is
// filled by the caller, and may be nil when the byte is 0.
func readStarts(header byte, st []int64) starts {
	s := starts{st: st, from: int(header & lastChange)}
	if s.from == 0 {
		s.from = math.MaxInt
	}
	return s
}

// findStarts prepares the starts of n samples for writing.
func findStarts(st []int64, n int) starts {
	s := starts{st: st, from: math.MaxInt}
	if n > lastChange {
		s.from = lastChange
	}
	for i, start := range st[:min(n, lastChange, len(st))] {
		if start != st[0] {
			s.from = i
			break
		}
	}
	return s
}

func (s starts) at(i int) int64 {
	if i < len(s.st) {
		return s.st[i]
	}
	return 0
}

func (s starts) header() (b byte) {
	if s.at(0) != 0 {
		b = startKnown
	}
	if s.from <= lastChange {
		b |= byte(s.from)
	}
	return b
}

// read reads the start of sample i, which follows one at time before. The
// distance stands as its difference from the last one.
func (s *starts) read(r bitReader, i int, before int64) bitReader {
	r, d := r.varint()
	s.last += d
	s.st[i] = before - s.last
	return r
}

// distance is what is written of the start of sample i, which follows one at time before.
func (s starts) distance(i int, before int64) int64 { return before - s.at(i) }

// startField is the field of a step of the distance where it is the time
// between two scrapes, from a quarter of a second to two minutes: where a start stays,
// each step is. Processors guess that it is, which a look into a table would keep them from.
func startField(step int64) field {
	switch v := uint64(step); {
	case v+1<<8-1 < 1<<9:
	case v+1<<11-1 < 1<<12:
		return field{0b11110<<12 | v&(1<<12-1), 17}
	case v+1<<17-1 < 1<<18:
		return field{0b111110<<18 | v&(1<<18-1), 24}
	}
	return field{}
}
