package dedup

import (
	"slices"
	"sort"
)

// choose appends the samples of a cell to dst: all of the first replica, and those of
// the others that lie in holes.
func (c *cell) choose(dst []run) ([]run, error) {
	if len(c.tracks) == 1 {
		return c.tracks[0].runs(dst), nil
	}
	if err := c.measure(); err != nil {
		return nil, err
	}
	out := c.tracks[0].runs(dst)
	if c.whole(&c.tracks[0]) {
		return out, nil
	}
	var err error
	for i := range c.tracks[1:] {
		k := &c.tracks[i+1]
		if out, err = c.believe(out, k); err != nil {
			return nil, err
		}
		if out, err = c.fill(out, k); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// whole reports whether nothing that another replica has could come in or put something out.
func (c *cell) whole(k *track) bool {
	if k.stale || len(k.times) == 0 {
		return false
	}
	first, last := k.times[0], k.times[len(k.times)-1]
	if c.offEdge(first-c.start, first) || c.offEdge(c.end-last, last) {
		return false
	}
	if c.shortest < k.brief { // k.long was made for a slower rhythm
		for i := 1; i < len(k.times); i++ {
			if c.hole(k.times[i-1], k.times[i]) {
				return false
			}
		}
		return true
	}
	return !slices.ContainsFunc(k.long, func(i int) bool { return c.hole(k.times[i], k.times[i+1]) })
}

// times are those of a decoded row.
func (r run) times(reps []*replica) []int64 {
	rep := reps[r.rep]
	at := rep.units[r.unit].at
	return rep.s.T[at+r.from : at+r.to]
}

// stale reports whether sample i of a decoded row is a stale marker.
func (r run) stale(reps []*replica, i int) bool {
	rep := reps[r.rep]
	return rep.stale(rep.units[r.unit].at + r.from + i)
}

// anyStale reports whether there is a stale marker in a decoded row.
func (r run) anyStale(reps []*replica) bool {
	rep := reps[r.rep]
	u := &rep.units[r.unit]
	return u.stale && rep.anyStale(u.at+r.from, u.at+r.to)
}

// part is the piece of the row from sample i up to j.
func (r run) part(i, j int) run {
	return run{rep: r.rep, unit: r.unit, from: r.from + i, to: r.from + j}
}

// believe leaves out the stale markers that k contradicts. They come from
// failed scrapes as well as from series that end, and k knows which it was:
// where it has samples on both sides without a hole, the series went on.
func (c *cell) believe(out []run, k *track) ([]run, error) {
	if !slices.ContainsFunc(out, func(r run) bool { return r.anyStale(c.reps) }) {
		return out, nil
	}
	var kept []run
	for _, r := range out {
		from := 0
		times := r.times(c.reps)
		for i, t := range times {
			if !r.stale(c.reps, i) {
				continue
			}
			contradicted, err := c.contradicts(k, t)
			if err != nil {
				return nil, err
			}
			if contradicted {
				kept = appendRow(kept, r.part(from, i))
				from = i + 1
			}
		}
		kept = appendRow(kept, r.part(from, len(times)))
	}
	return kept, nil
}

func appendRow(dst []run, r run) []run {
	if r.from == r.to {
		return dst
	}
	return append(dst, r)
}

// contradicts reports whether k shows the series alive across t. What is
// further away than a hole is long does not count.
func (c *cell) contradicts(k *track, t int64) (bool, error) {
	interval := c.interval(t)
	far := 3*interval/2 + 1
	left, err := k.between(nil, saturate(t, -far), t)
	if err != nil {
		return false, err
	}
	right, err := k.between(nil, saturate(t, 1), saturate(t, far))
	if err != nil || len(left) == 0 && len(right) == 0 {
		return false, err
	}
	before, after := c.start, c.end
	if n := len(left); n > 0 {
		times := left[n-1].times(c.reps)
		if before = times[len(times)-1]; left[n-1].stale(c.reps, len(times)-1) {
			return false, nil
		}
	}
	if len(right) > 0 {
		if after = right[0].times(c.reps)[0]; right[0].stale(c.reps, 0) {
			return false, nil
		}
	}
	if len(left) == 0 || len(right) == 0 {
		return !offEdge(after-before, interval), nil
	}
	return !tooFar(after-before, interval), nil
}

// fill puts the samples of k into the holes of out. Stale markers are no borders.
func (c *cell) fill(out []run, k *track) (filled []run, err error) {
	var added []run
	var left *border
	near := 3 * c.shortest / 2 // no longer distance is for sure no hole
	for _, r := range out {
		stale, at := r.anyStale(c.reps), c.reps[r.rep].units[r.unit].at+r.from
		for i, t := range r.times(c.reps) {
			right := border{t, ref{r.rep, at + i}}
			switch {
			case stale && r.stale(c.reps, i):
				continue
			case left != nil && t-left.t <= near: // nearly always
			case left == nil && c.offEdge(t-c.start, t), left != nil && c.hole(left.t, t):
				if added, err = c.take(added, k, left, &right); err != nil {
					return nil, err
				}
			}
			if left == nil {
				left = new(border)
			}
			*left = right
		}
	}
	if left == nil || c.offEdge(c.end-left.t, left.t) {
		added, err = c.take(added, k, left, nil)
	}
	return c.join(out, added), err
}

// border is a sample beside a hole.
type border struct {
	t  int64
	at ref
}

// take appends what k has between two borders, nil at an edge of the cell.
// Samples within half an interval of a border are left out: with clocks that
// differ they could be older than what stands there. So are those that start
// timestamps put on the other side of it, as long as that leaves no hole.
func (c *cell) take(dst []run, k *track, left, right *border) ([]run, error) {
	from, to := c.start, c.end-1
	if left != nil {
		from = left.t + c.margin(left.t)
	}
	if right != nil {
		to = right.t - c.margin(right.t)
	}
	n := len(dst)
	dst, err := k.between(dst, from, to)
	if err != nil {
		return nil, err
	}
	rows := dst[n:]
	for left != nil && len(rows) > 0 {
		r := rows[0]
		if !reversed(c.reps, left.at, r.at(c.reps, 0), c.interval(left.t)) {
			break
		}
		rows = skip(rows, 1)
	}
	for right != nil && len(rows) > 0 {
		r := &rows[len(rows)-1]
		if !reversed(c.reps, r.at(c.reps, r.to-r.from-1), right.at, c.interval(right.t)) {
			break
		}
		if r.to--; r.from == r.to {
			rows = rows[:len(rows)-1]
		}
	}
	return append(dst[:n], rows...), nil
}

// at is where sample i of a decoded row stands.
func (r run) at(reps []*replica, i int) ref {
	return ref{r.rep, reps[r.rep].units[r.unit].at + r.from + i}
}

// reversed reports whether b, which stands behind a with no hole between them, is known to be
// older: it counts for a process that had ended when that of a began. Start timestamps
// tell. Nothing follows from a lower value under the same one, which gauges carry, too; and a start
// long before b may be a guess, of the time at which a replica first saw the series.
func reversed(reps []*replica, a, b ref, interval int64) bool {
	ra, rb := reps[a.rep], reps[b.rep]
	startA, startB := ra.s.Start(a.i), rb.s.Start(b.i)
	return startA != 0 && startB != 0 && startB < startA && !tooFar(rb.s.T[b.i]-min(startA, ra.s.T[a.i]), interval)
}

// join merges two lists; of equal times that of a stays, unless it is a stale marker.
func (c *cell) join(a, b []run) []run {
	if len(b) == 0 {
		return a
	}
	out := make([]run, 0, 2*(len(a)+len(b)))
	for len(a) > 0 && len(b) > 0 {
		ta, tb := a[0].times(c.reps), b[0].times(c.reps)
		if ta[0] == tb[0] {
			if a[0].stale(c.reps, 0) {
				a = skip(a, 1)
			} else {
				b = skip(b, 1)
			}
			continue
		}
		first, until := &a, tb[0]
		if tb[0] < ta[0] {
			first, until, ta = &b, ta[0], tb
		}
		n := sort.Search(len(ta), func(i int) bool { return ta[i] >= until })
		out = append(out, (*first)[0].part(0, n))
		*first = skip(*first, n)
	}
	return append(append(out, a...), b...)
}

// skip takes the first n samples of the first row away.
func skip(rows []run, n int) []run {
	if rows[0].from += n; rows[0].from == rows[0].to {
		return rows[1:]
	}
	return rows
}
