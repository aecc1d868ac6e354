package pagecache

import (
	"cmp"
	"slices"
	"strings"
)

// price is what a request costs, in bytes that could have been read instead.
type price struct {
	// always is the gap that is read rather than asking twice, whatever the load:
	// a request costs both ends that much work.
	always int64
	// most is the gap that takes as long to read as a request takes to begin.
	most int64
	// free is how many requests begin at once; more of them wait for each other.
	free int
	// part is the length from twice which on a range is read in parallel parts.
	part int64
}

// part is a range of an object that one request reads, and the pieces in it.
type part struct {
	object   Object
	off, end int64
	pieces   []*piece // sorted
	wanted   int64    // bytes of the pieces
	data     []byte   // [off, end), once it is here
	held     *buffer  // that data lie in
	lent     bool     // to the caller
	flow     *flow    // that brings it, or nil for a request of its own
}

// own takes data that were read into a buffer of the pool.
func (p *part) own(pool *buffers, data []byte) { p.data, p.held = data, newBuffer(pool, data) }

// sparse reports whether less than half of the part is wanted.
func (p *part) sparse() bool { return 2*p.wanted < p.end-p.off }

// sortPieces sorts by object and offset.
func sortPieces(pieces []*piece) {
	slices.SortFunc(pieces, func(a, b *piece) int {
		x, y := &a.key.object, &b.key.object
		if *x == *y { // nearly always
			return cmp.Compare(a.off, b.off)
		}
		return cmp.Or(strings.Compare(x.Name, y.Name), strings.Compare(x.Version, y.Version), cmp.Compare(x.Size, y.Size))
	})
}

// plan says which requests bring the pieces, which are sorted.
func plan(pieces []*piece, p price) []*part {
	var parts []*part
	for _, run := range joinFar(joinNear(pieces, p.always), p) {
		parts = append(parts, split(run, p.part)...)
	}
	return parts
}

// joinNear joins pieces that are no further from each other than gap.
func joinNear(pieces []*piece, gap int64) (runs []*part) {
	first := 0
	for i, p := range pieces {
		if n := len(runs) - 1; n >= 0 && runs[n].object == p.key.object && p.off-runs[n].end <= gap {
			runs[n].end = p.end
			runs[n].wanted += p.end - p.off
			runs[n].pieces = pieces[first : i+1]
			continue
		}
		first = i
		runs = append(runs, &part{object: p.key.object, off: p.off, end: p.end, pieces: pieces[i : i+1], wanted: p.end - p.off})
	}
	return runs
}

// joinFar joins the nearest neighbours while there are more runs than can begin at
// once, as long as a gap is cheaper than a request, and all gaps together are not
// more than what is wanted: latency must not be bought with a multiple of the bytes.
func joinFar(runs []*part, p price) []*part {
	if len(runs) <= p.free {
		return runs
	}
	var gaps []int // by the run behind them
	var wanted int64
	gap := func(i int) int64 { return runs[i].off - runs[i-1].end }
	for i, r := range runs {
		wanted += r.wanted
		if i > 0 && r.object == runs[i-1].object && gap(i) <= p.most {
			gaps = append(gaps, i)
		}
	}
	slices.SortStableFunc(gaps, func(a, b int) int { return cmp.Compare(gap(a), gap(b)) })
	joins := make([]bool, len(runs))
	for n, i := range gaps {
		if wanted -= gap(i); wanted < 0 || len(runs)-n <= p.free {
			break
		}
		joins[i] = true
	}
	var joined []*part
	for i, r := range runs {
		if !joins[i] {
			joined = append(joined, r)
			continue
		}
		last := joined[len(joined)-1]
		last.end = r.end
		last.wanted += r.wanted
		last.pieces = last.pieces[:len(last.pieces)+len(r.pieces)] // neighbours in one array
	}
	return joined
}

// split cuts a run of twice the length of a part or more into equal parts.
func split(run *part, size int64) []*part {
	n := (run.end - run.off) / size
	if n < 2 {
		return []*part{run}
	}
	size = (run.end-run.off)/n + pageSize // pieces end with pages
	var parts []*part
	first := 0
	for i, p := range run.pieces {
		if k := len(parts) - 1; k >= 0 && p.end-parts[k].off <= size {
			parts[k].end = p.end
			parts[k].wanted += p.end - p.off
			parts[k].pieces = run.pieces[first : i+1]
			continue
		}
		first = i
		parts = append(parts, &part{object: run.object, off: p.off, end: p.end, pieces: run.pieces[i : i+1], wanted: p.end - p.off})
	}
	return parts
}
