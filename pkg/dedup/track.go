package dedup

import (
	"math"
	"slices"
)

// run is a row of samples of one unit, which may not be decoded yet.
type run struct {
	rep, unit int
	from, to  int // positions in the unit, to exclusive
}

// track is what one replica has in a cell. Until load, only the chunks that
// cross an edge of the cell are decoded.
type track struct {
	rep      int // index of the replica
	r        *replica
	lo, hi   int // its units
	from, to int // the first sample of the first unit in the cell, and the end of those of the last one

	times   []int64 // of all its samples but stale markers; filled by load
	lazy    bool    // whether load has not been called
	stale   bool    // whether there are stale markers
	brief   int64   // no median of neighbouring distances is shorter
	usual   int64   // the median that was found last
	longest int64   // no distance is longer
	long    []int   // where distances begin that could be holes by the replica's own rhythm
}

// medians are of the distances around some samples. What was found out is asked for again.
type medians [32]struct {
	at     int // position in times, plus one
	median int64
}

// newTrack finds what lies in [start, end) from unit lo on. It is empty when the two units are equal.
func newTrack(rep int, r *replica, lo int, start, end int64) (track, error) {
	k := track{rep: rep, r: r, lo: lo, hi: lo, lazy: true}
	for k.hi < len(r.units) && r.units[k.hi].minTime < end {
		k.hi++
	}
	for k.lo < k.hi {
		first := &r.units[k.lo]
		if first.minTime >= start {
			break
		}
		if err := r.read(k.lo); err != nil {
			return k, err
		}
		if k.from = position(r, first, start); k.from < first.n {
			break
		}
		k.from = 0
		k.lo++
	}
	for k.lo < k.hi {
		last := &r.units[k.hi-1]
		k.to = last.n
		if last.maxTime < end {
			break
		}
		if err := r.read(k.hi - 1); err != nil {
			return k, err
		}
		if k.to = position(r, last, end); k.to > 0 && (k.hi-k.lo > 1 || k.to > k.from) {
			break
		}
		k.hi--
	}
	return k, nil
}

// position is that of the first sample of a unit at t or later; it is decoded up to there.
func position(r *replica, u *unit, t int64) int {
	n, _ := search(r.s.T[u.at:u.at+u.have], t)
	return n
}

// evenly is where t stands among n evenly spaced times, the first of which is not the last.
func evenly(first, last, t int64, n int) int {
	return int(float64(t-first) / float64(last-first) * float64(n-1))
}

// search is slices.BinarySearch that begins where t stands if times are evenly
// spaced, as they nearly are. Guarded by BenchmarkDedup.
func search(times []int64, t int64) (at int, found bool) {
	last := len(times) - 1
	if last < 0 || t <= times[0] {
		return 0, last >= 0 && t == times[0]
	}
	if t > times[last] {
		return last + 1, false
	}
	at = min(max(evenly(times[0], times[last], t, last+1), 1), last)
	for range 2 * reach {
		switch {
		case times[at] < t:
			at++
		case times[at-1] >= t:
			at--
		default:
			return at, times[at] == t
		}
	}
	return slices.BinarySearch(times, t)
}

// span is the part of unit u that lies in the cell.
func (k *track) span(u int) run {
	s := run{rep: k.rep, unit: u, to: k.r.units[u].n}
	if u == k.lo {
		s.from = k.from
	}
	if u == k.hi-1 {
		s.to = k.to
	}
	return s
}

// len is the number of samples, stale markers included.
func (k *track) len() (n int) {
	for u := k.lo; u < k.hi; u++ {
		s := k.span(u)
		n += s.to - s.from
	}
	return n
}

// ends are the times of the first and of the last sample.
func (k *track) ends() (first, last int64) {
	a, b := &k.r.units[k.lo], &k.r.units[k.hi-1]
	first, last = a.minTime, b.maxTime
	if k.from > 0 {
		first = k.r.s.T[a.at+k.from]
	}
	if k.to < b.n {
		last = k.r.s.T[b.at+k.to-1]
	}
	return first, last
}

// beginning appends the times of its first few samples, stale markers included.
func (k *track) beginning(times []int64) (_ []int64, err error) {
	const enough = minDeltas + 1
	for u := k.lo; u < k.hi && len(times) < enough; u++ {
		unit, row := &k.r.units[u], k.span(u)
		if unit.at == unread { // and wholly in the cell
			if times, err = k.r.peek(times, enough, k.r.chunks[unit.lo]); err != nil {
				return nil, err
			}
			continue
		}
		n := min(row.to-row.from, enough-len(times), unit.have-row.from)
		times = append(times, k.r.s.T[unit.at+row.from:unit.at+row.from+n]...)
	}
	return times, nil
}

// runs are all its samples.
func (k *track) runs(dst []run) []run {
	for u := k.lo; u < k.hi; u++ {
		dst = append(dst, k.span(u))
	}
	return dst
}

// between appends what it has from one time to another, both inclusive, and decodes it.
func (k *track) between(dst []run, from, to int64) ([]run, error) {
	for u := k.lo; u < k.hi; u++ {
		unit := &k.r.units[u]
		if unit.maxTime < from {
			continue
		}
		if unit.minTime > to {
			break
		}
		if err := k.r.readUntil(u, to); err != nil {
			return dst, err
		}
		row := k.span(u)
		row.from = max(row.from, position(k.r, unit, from))
		if to < math.MaxInt64 {
			row.to = min(row.to, position(k.r, unit, to+1))
		}
		if row.from < row.to {
			dst = append(dst, row)
		}
	}
	return dst, nil
}

// load decodes the track and takes its rhythm.
func (k *track) load() error {
	if !k.lazy {
		return nil
	}
	k.lazy = false
	for u := k.lo; u < k.hi; u++ {
		if err := k.r.read(u); err != nil {
			return err
		}
	}
	k.scrapes()
	clear(k.r.medians[:])
	k.brief, k.longest = k.bounds()
	if k.stale || !tooFar(k.longest, k.brief) {
		k.findLong(0, len(k.times)-1)
		return nil
	}
	at := -k.from // of a unit's first sample in times
	for u := k.lo; u < k.hi; u++ {
		unit, span := &k.r.units[u], k.span(u)
		if tooFar(unit.longest, k.brief) {
			k.findLong(at+span.from, at+span.to-1)
		}
		at += unit.n
		k.findLong(at-1, min(at, len(k.times)-1)) // from this unit to the next
	}
	return nil
}

// findLong looks for long distances between the samples from one position to another.
func (k *track) findLong(from, to int) {
	if tooFar(k.longest, k.brief) {
		for i := from; i < to; i++ {
			if tooFar(k.times[i+1]-k.times[i], k.brief) {
				k.long = append(k.long, i)
			}
		}
	}
}

// bounds returns what spread does, or less and more: what is known from the units.
func (k *track) bounds() (brief, longest int64) {
	if k.stale || len(k.times) < 2 {
		return spread(k.times)
	}
	brief = math.MaxInt64
	for u := k.lo; u < k.hi; u++ {
		unit := &k.r.units[u]
		brief, longest = min(brief, unit.shortest), max(longest, unit.longest)
		if u > k.lo {
			d := unit.minTime - k.r.units[u-1].maxTime
			brief, longest = min(brief, d), max(longest, d)
		}
	}
	return brief, longest
}

// scrapes collects the times. Where nothing has to be left out they are those that were decoded.
func (k *track) scrapes() {
	s, joined, n := &k.r.s, true, 0
	for u := k.lo; u < k.hi; u++ {
		unit, span := &k.r.units[u], k.span(u)
		joined = joined && (u == k.lo || unit.at == k.r.units[u-1].at+k.r.units[u-1].n)
		k.stale = k.stale || len(k.r.marksIn(unit, span.from, span.to)) > 0
		n += span.to - span.from
	}
	if joined && !k.stale {
		at := k.r.units[k.lo].at + k.from
		k.times = s.T[at : at+n : at+n]
		return
	}
	k.times = slices.Grow(k.r.times[:0], n)
	for u := k.lo; u < k.hi; u++ {
		unit, span := &k.r.units[u], k.span(u)
		from := unit.at + span.from
		for _, mark := range k.r.marksIn(unit, span.from, span.to) {
			k.times = append(k.times, s.T[from:mark]...)
			from = mark + 1
		}
		k.times = append(k.times, s.T[from:unit.at+span.to]...)
	}
	k.r.times = k.times
}

// measured reports whether there are enough samples to show a scrape interval.
func (k *track) measured() bool { return len(k.times) > minDeltas }

// around is the median distance between samples near t; it needs two of them.
func (k *track) around(t int64) int64 {
	i, found := search(k.times, t)
	if !found {
		i--
	}
	n := len(k.times) - 1
	i = min(max(i, 0), n-1)
	known := &k.r.medians[i%len(k.r.medians)]
	if known.at != i+1 {
		k.usual = median(k.times[max(0, i-reach):min(n, i+reach+1)+1], k.usual)
		known.at, known.median = i+1, k.usual
	}
	return known.median
}

// median is that of the distances between so many times as around asks for; guess mostly is, too. Guarded by BenchmarkDedup.
func median(times []int64, guess int64) int64 {
	shorter, equal, last := 0, 0, times[0]
	for _, t := range times[1:] {
		if t-last < guess {
			shorter++
		}
		if t-last == guess {
			equal++
		}
		last = t
	}
	if middle := (len(times) - 2) / 2; shorter <= middle && middle < shorter+equal {
		return guess
	}
	var buf [2*reach + 1]int64
	return quantile(appendDeltas(buf[:0], times), 2)
}

// away is the distance from t to the nearest sample.
func (k *track) away(t int64) int64 {
	i, _ := search(k.times, t)
	nearest := int64(math.MaxInt64)
	if i < len(k.times) {
		nearest = k.times[i] - t
	}
	if i > 0 {
		nearest = min(nearest, t-k.times[i-1])
	}
	return nearest
}

// even reports whether all distances are nearly alike.
func (k *track) even() bool {
	shortest, longest := extent(k.times)
	return 7*longest <= 9*shortest
}

// changes reports whether the rhythm does, and some long distances are no holes.
func (k *track) changes() bool {
	slower := func(i int) bool {
		return tooFar(k.times[i+1]-k.times[i], k.brief) && tooFar(k.around(k.times[i]), k.brief)
	}
	if !slices.ContainsFunc(k.long, slower) {
		return false
	}
	k.brief, _ = spread(k.times) // what bounds gave may be less
	return slices.ContainsFunc(k.long, slower)
}

// typical is the median distance in the whole cell, 0 when there is none.
func (k *track) typical() int64 {
	if len(k.times) < 2 {
		return 0
	}
	return quantile(deltas(k.times), 2)
}

// beat is the position of t in the rhythm of the track, in thousandths of a
// scrape since the first one. A distance counts as one scrape, a hole as many as are missing in it.
func (k *track) beat(t int64) int64 {
	i, found := search(k.times, t)
	if !found {
		i--
	}
	last := len(k.times) - 1
	switch {
	case i < 0:
		return 1000 * (t - k.times[0]) / k.around(k.times[0])
	case i == last:
		return k.beats(last) + 1000*(t-k.times[last])/k.around(k.times[last])
	}
	left, right := k.times[i], k.times[i+1]
	return k.beats(i) + k.step(i)*(t-left)/(right-left)
}

// beats is the position of scrape i.
func (k *track) beats(i int) int64 {
	n := 1000 * int64(i)
	for _, j := range k.long {
		if j >= i {
			break
		}
		n += k.step(j) - 1000
	}
	return n
}

// step is the number of scrapes, in thousandths, from i to the next.
func (k *track) step(i int) int64 {
	left, right := k.times[i], k.times[i+1]
	d := right - left
	if !tooFar(d, k.brief) {
		return 1000
	}
	if interval := min(k.around(left), k.around(right)); tooFar(d, interval) {
		return 1000 * d / interval
	}
	return 1000
}

// spread returns the longest distance, and a lower bound of the medians that around gives:
// with nine distances or more each median has four others below it, with three it has one.
func spread(times []int64) (brief, longest int64) {
	n := len(times) - 1
	if n < 1 {
		return 0, 0
	}
	var least [reach/2 + 1]int64 // in rising order
	keep := min((min(n, reach+1)-1)/2+1, len(least))
	for i := range keep {
		least[i] = times[i+1] - times[i]
		longest = max(longest, least[i])
	}
	slices.Sort(least[:keep])
	limit, last := least[keep-1], times[keep]
	for _, t := range times[keep+1:] {
		d := t - last
		last = t
		longest = max(longest, d)
		if d >= limit {
			continue
		}
		at := keep - 1
		for ; at > 0 && least[at-1] > d; at-- {
			least[at] = least[at-1]
		}
		least[at] = d
		limit = least[keep-1]
	}
	return limit, longest
}
