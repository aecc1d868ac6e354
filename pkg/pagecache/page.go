package pagecache

import (
	"cmp"
	"slices"
	"sort"
)

// pageSize is the window of an object that one page stands for. A page holds
// only those bytes of its window that somebody wanted; the size bounds how many
// extents have to be searched.
const pageSize = 64 << 10

// pageKey names a page: the n-th of an object.
type pageKey struct {
	object Object
	n      int64
}

// window returns the range of the object that the page stands for.
func (k pageKey) window() (off, end int64) {
	return k.n * pageSize, min((k.n+1)*pageSize, k.object.Size)
}

// extent is a run of an object's bytes that begins at off. The bytes are never
// written to.
type extent struct {
	off  int64
	data []byte
}

func (e extent) end() int64 { return e.off + int64(len(e.data)) }

// slice returns the bytes of [off, end), which must lie in e.
func (e extent) slice(off, end int64) []byte {
	return e.data[off-e.off : end-e.off : end-e.off]
}

// extents are sorted and disjoint, and no two of them touch.
type extents []extent

// from returns the extents that end after off.
func (x extents) from(off int64) extents {
	return x[sort.Search(len(x), func(i int) bool { return x[i].end() > off }):]
}

// covering returns the extent that holds all of [off, end).
func (x extents) covering(off, end int64) (extent, bool) {
	if rest := x.from(off); len(rest) > 0 && rest[0].off <= off && end <= rest[0].end() {
		return rest[0], true
	}
	return extent{}, false
}

func (x extents) size() (n int64) {
	for _, e := range x {
		n += int64(len(e.data))
	}
	return n
}

// same reports whether x and y are one and the same, not only alike.
func (x extents) same(y extents) bool {
	return len(x) == len(y) && (len(x) == 0 || &x[0] == &y[0])
}

// with returns the union of x and more, which may be in any order. Bytes of more
// are copied: they may lie in a buffer that is used again. Where both have a byte,
// they agree.
func (x extents) with(more []extent) extents {
	all := append(slices.Clone(x), more...)
	slices.SortStableFunc(all, func(a, b extent) int { return cmp.Compare(a.off, b.off) })
	kept := make(extents, 0, len(all))
	for i := 0; i < len(all); {
		end, run := all[i].end(), i+1
		for run < len(all) && all[run].off <= end {
			end = max(end, all[run].end())
			run++
		}
		if e, ok := x.covering(all[i].off, end); ok {
			kept = append(kept, e) // nothing new
		} else {
			kept = append(kept, joined(all[i:run], end))
		}
		i = run
	}
	return kept
}

// joined copies extents that touch or overlap, sorted by offset, into one.
func joined(run []extent, end int64) extent {
	e := extent{off: run[0].off, data: make([]byte, end-run[0].off)}
	for _, r := range run {
		copy(e.data[r.off-e.off:], r.data)
	}
	return e
}
