package dedup

import (
	"math"
	"slices"
)

// All lengths of time are in milliseconds.
const (
	// Cell is the length of the spans of UTC inside which replicas are chosen.
	Cell int64 = 2 * 60 * 60 * 1000
	// Guard is the most that Widen adds at the start of a range: a cell that
	// began before it, and the one before that.
	Guard = 2 * Cell

	// edgeReach is how far behind a cell's start samples may depend on the cell before.
	edgeReach int64 = 5 * 60 * 1000
	// unknownInterval stands in where no replica has two samples in a cell.
	unknownInterval int64 = 2 * 60 * 1000
	// reach is how many distances to either side make the local scrape interval.
	reach = 8
	// minDeltas is how many distances make a scrape interval believable.
	minDeltas = 3
)

// Widen returns the range, both ends inclusive, that has to be fetched from
// all replicas so that Chunks gives for every t in [mint, maxt] what it gives
// on all data. It reaches from the start of a cell to the end of one; the cell
// before is needed when mint lies at the beginning of its cell.
func Widen(mint, maxt int64) (int64, int64) {
	lo := cellStart(mint)
	if mint-lo < edgeReach {
		lo = saturate(lo, -Cell)
	}
	return lo, saturate(cellStart(maxt), Cell-1)
}

// cellStart is the start of the cell that t lies in.
func cellStart(t int64) int64 { return floor(t, Cell) }

// floor is the last multiple of length at or before t.
func floor(t, length int64) int64 {
	offset := t % length
	if offset < 0 {
		offset += length
	}
	return saturate(t, -offset)
}

// saturate adds and stays within int64: ranges may be open on either side.
func saturate(t, d int64) int64 {
	switch {
	case d < 0 && t < math.MinInt64-d:
		return math.MinInt64
	case d > 0 && t > math.MaxInt64-d:
		return math.MaxInt64
	}
	return t + d
}

// tooFar, offEdge and tooNear are the three comparisons with a scrape interval.
func tooFar(d, interval int64) bool  { return 2*d > 3*interval }
func offEdge(d, interval int64) bool { return 10*d > 11*interval }
func tooNear(d, interval int64) bool { return 2*d < interval }

// quantile returns the value that one of so many parts of deltas do not exceed,
// rounded down: 2 gives the median. It sorts in place.
func quantile(deltas []int64, parts int) int64 {
	if len(deltas) <= 2*reach+1 {
		sortFew(deltas)
	} else {
		slices.Sort(deltas)
	}
	return deltas[(len(deltas)-1)/parts]
}

// quantileAtMost reports whether quantile returns no more than limit.
func quantileAtMost(deltas []int64, parts int, limit int64) bool {
	n := 0
	for _, d := range deltas {
		if d <= limit {
			n++
		}
	}
	return n > (len(deltas)-1)/parts
}

// sortFew sorts by insertion, which is the fastest for so few that are mostly equal. Guarded by BenchmarkDedup.
func sortFew(v []int64) {
	for i := 1; i < len(v); i++ {
		x, j := v[i], i
		for ; j > 0 && v[j-1] > x; j-- {
			v[j] = v[j-1]
		}
		v[j] = x
	}
}

// deltas are the distances between neighbours.
func deltas(times []int64) []int64 { return appendDeltas(nil, times) }

func appendDeltas(dst, times []int64) []int64 {
	for i := 1; i < len(times); i++ {
		dst = append(dst, times[i]-times[i-1])
	}
	return dst
}

// cell is the choice to be made for one span of time.
type cell struct {
	start, end int64 // end is exclusive
	reps       []*replica
	tracks     []track                        // in the order in which they are taken
	measured   []*track                       // those whose rhythm gives the scrape interval
	guess      int64                          // the scrape interval when there are none
	shortest   int64                          // no interval in this cell is shorter
	recent     [2]struct{ t, interval int64 } // what interval gave last
	memory     memory
}

// memory is for what is chosen, and serves from one replica and one cell to the next.
type memory struct{ spare, added, beside []run }

// measure finds out what the scrape interval is. Replicas that keep step with
// the first one have the same, so they are not looked into. As soon as one does not,
// all of them are.
//
// What was deduplicated already has no rhythm of its own: where replicas took turns, its distances are those between their
// phases. So its sources say what the interval is, and it counts only as one that keeps an even step with them.
func (c *cell) measure() error {
	first := &c.tracks[0]
	if err := first.load(); err != nil {
		return err
	}
	if first.measured() && (!first.r.merged || first.even()) {
		if same, err := c.inStep(); same || err != nil {
			c.measured, c.shortest = append(c.measured, first), first.brief
			return err
		}
	}
	for i := range c.tracks {
		if err := c.tracks[i].load(); err != nil {
			return err
		}
	}
	c.order()
	c.shortest = math.MaxInt64
	for i := range c.tracks {
		if k := &c.tracks[i]; k.measured() && !k.r.merged {
			c.measured = append(c.measured, k)
			c.shortest = min(c.shortest, k.brief)
		}
	}
	if len(c.measured) == 0 {
		c.guess = c.guessed()
		c.shortest = c.guess
	}
	return nil
}

// guessed stands in for a scrape interval that no replica shows. Of a handful of samples long distances are rather holes.
// Those of what was deduplicated before are longer than half the interval that it went by.
func (c *cell) guessed() int64 {
	var few []int64
	longest := edgeReach
	for i := range c.tracks {
		switch k := &c.tracks[i]; {
		case k.measured():
			longest = min(longest, 2*k.typical())
		default:
			few = append(few, deltas(k.times)...)
		}
	}
	if len(few) == 0 {
		return min(unknownInterval, longest)
	}
	return min(quantile(few, 2), longest)
}

// inStep reports whether all replicas scraped as the first one did. Each has, between its first and its last
// sample in the cell, as many as the first replica would have had without its
// holes, to within half a scrape: one with more may scrape at a higher
// density, one with fewer might do so between outages. And none begins with distances
// that are holes the other way round, so that the two do not make up for each other. A first replica
// that changes its interval in the cell is no measure.
func (c *cell) inStep() (bool, error) {
	first := &c.tracks[0]
	if first.changes() {
		return false, nil
	}
	for i := range c.tracks[1:] {
		k := &c.tracks[i+1]
		n := k.len()
		if n <= minDeltas {
			continue // shows no interval of its own
		}
		from, to := k.ends()
		off := 1000*int64(n-1) - (first.beat(to) - first.beat(from))
		if off < -500 || off > 500 {
			return false, nil
		}
		var few [minDeltas + 1]int64
		times, err := k.beginning(few[:0])
		if err != nil {
			return false, err
		}
		if shortest, _ := extent(times); tooFar(first.around(from), shortest) {
			return false, nil
		}
	}
	return true, nil
}

// order sorts the tracks: a replica that scrapes at a lower density than
// another throughout the cell goes behind, else replicas keep their order.
func (c *cell) order() {
	densest := int64(math.MaxInt64)
	for i := range c.tracks {
		if k := &c.tracks[i]; k.measured() && !k.r.merged {
			densest = min(densest, k.typical())
		}
	}
	if densest == math.MaxInt64 {
		return
	}
	var first, behind []track
	for _, k := range c.tracks {
		if tooFar(k.typical(), densest) {
			behind = append(behind, k)
		} else {
			first = append(first, k)
		}
	}
	copy(c.tracks, append(first, behind...))
}

// interval is the scrape interval near t: that of the replica which scrapes most often there. One that is silent for longer
// than its interval counts for as long a one, though not for a longer one than any shows.
func (c *cell) interval(t int64) int64 {
	if len(c.measured) == 0 {
		return c.guess
	}
	for _, known := range c.recent {
		if known.t == t && known.interval > 0 {
			return known.interval
		}
	}
	best, longest := int64(math.MaxInt64), int64(0)
	for _, k := range c.measured {
		interval := k.around(t)
		longest = max(longest, interval)
		if len(c.measured) > 1 {
			interval = max(interval, k.away(t))
		}
		best = min(best, interval)
	}
	c.recent[1] = c.recent[0]
	c.recent[0].t, c.recent[0].interval = t, min(best, longest)
	return c.recent[0].interval
}

// hole reports whether there is one between two neighbours.
func (c *cell) hole(left, right int64) bool {
	d := right - left
	return tooFar(d, c.shortest) && tooFar(d, min(c.interval(left), c.interval(right)))
}

// offEdge reports whether d, from t to an edge of the cell, is a hole.
func (c *cell) offEdge(d, t int64) bool {
	return offEdge(d, c.shortest) && offEdge(d, c.interval(t))
}

// margin is the distance that samples of another replica keep from t.
func (c *cell) margin(t int64) int64 { return (c.interval(t) + 1) / 2 }
