package store

import (
	"cmp"
	"slices"
)

const (
	// maxGap is how many unwanted bytes are read rather than asking twice.
	maxGap = 64 << 10
	// maxPart is the length from which on a range is read in parallel parts.
	maxPart = 8 << 20
)

// piece is a run of bytes in one of a block's segments that somebody wants.
type piece struct {
	segment   int
	off, size int64
	// row and chunk say for whom.
	row, chunk int
}

// span is a run of bytes that is read at once for the pieces in it, which are
// sorted by offset and may overlap.
type span struct {
	segment  int
	off, end int64
	pieces   []piece
}

// coalesce sorts pieces and joins those of one segment that are no further than
// maxGap from each other.
func coalesce(pieces []piece) []span {
	slices.SortFunc(pieces, func(a, b piece) int {
		return cmp.Or(cmp.Compare(a.segment, b.segment), cmp.Compare(a.off, b.off))
	})
	var spans []span
	first := 0
	for i, p := range pieces {
		if n := len(spans) - 1; n >= 0 && spans[n].segment == p.segment && p.off-spans[n].end <= maxGap {
			spans[n].end = max(spans[n].end, p.off+p.size)
			spans[n].pieces = pieces[first : i+1]
			continue
		}
		first = i
		spans = append(spans, span{segment: p.segment, off: p.off, end: p.off + p.size, pieces: pieces[i : i+1]})
	}
	return spans
}

// parts cuts a range of size bytes into the ranges [from, to) that are read side by side.
func parts(size int64) (cuts [][2]int64) {
	for from := int64(0); from < size; from += maxPart {
		cuts = append(cuts, [2]int64{from, min(from+maxPart, size)})
	}
	return cuts
}
