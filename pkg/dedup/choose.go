package dedup

import "slices"

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

// values are those of a decoded row; in place of histograms their sums.
func (r run) values(reps []*replica) []float64 {
	rep := reps[r.rep]
	at := rep.units[r.unit].at
	return rep.s.V[at+r.from : at+r.to]
}

// stale reports whether sample i of a decoded row is a stale marker.
func (r run) stale(reps []*replica, i int) bool {
	rep := reps[r.rep]
	return rep.stale(rep.units[r.unit].at + r.from + i)
}

// marks are where stale markers of a decoded row stand.
func (r run) marks(reps []*replica) []int {
	rep := reps[r.rep]
	return rep.marksIn(&rep.units[r.unit], r.from, r.to)
}

// part is the piece of the row from sample i up to j.
func (r run) part(i, j int) run {
	return run{rep: r.rep, unit: r.unit, from: r.from + i, to: r.from + j}
}

// believe leaves out the stale markers that k contradicts. They come from
// failed scrapes as well as from series that end, and k knows which it was:
// where it has samples on both sides without a hole, the series went on.
func (c *cell) believe(out []run, k *track) ([]run, error) {
	if !slices.ContainsFunc(out, func(r run) bool { return len(r.marks(c.reps)) > 0 }) {
		return out, nil
	}
	kept := c.memory.spare[:0]
	for _, r := range out {
		rep, from := c.reps[r.rep], 0
		begin := rep.units[r.unit].at + r.from
		for _, mark := range r.marks(c.reps) {
			contradicted, err := c.contradicts(k, rep.s.T[mark])
			if err != nil {
				return nil, err
			}
			if contradicted {
				kept = appendRow(kept, r.part(from, mark-begin))
				from = mark - begin + 1
			}
		}
		kept = appendRow(kept, r.part(from, r.to-r.from))
	}
	c.memory.spare = out
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
	rows, err := k.between(c.memory.beside[:0], saturate(t, -far), saturate(t, far))
	c.memory.beside = rows
	if err != nil || len(rows) == 0 {
		return false, err
	}
	var left, right struct{ found, stale bool }
	before, after := c.start, c.end
rows:
	for _, r := range rows {
		for i, at := range r.times(c.reps) {
			if at > t {
				after, right.found, right.stale = at, true, r.stale(c.reps, i)
				break rows
			}
			before, left.found, left.stale = at, true, r.stale(c.reps, i)
		}
	}
	switch {
	case left.stale || right.stale:
		return false, nil
	case left.found && right.found:
		return !tooFar(after-before, interval), nil
	}
	return !offEdge(after-before, interval), nil
}

// at is where sample i of a decoded row stands.
func (r run) at(reps []*replica, i int) ref {
	return ref{r.rep, reps[r.rep].units[r.unit].at + r.from + i}
}

// join merges two lists; of equal times that of a stays, unless it is a stale marker.
func (c *cell) join(a, b []run) []run {
	if len(b) == 0 {
		return a
	}
	out, all := c.memory.spare[:0], a
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
		n, _ := search(ta, until)
		out = append(out, (*first)[0].part(0, n))
		*first = skip(*first, n)
	}
	c.memory.spare = all
	return append(append(out, a...), b...)
}

// skip takes the first n samples of the first row away.
func skip(rows []run, n int) []run {
	if rows[0].from += n; rows[0].from == rows[0].to {
		return rows[1:]
	}
	return rows
}
