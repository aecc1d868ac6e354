package dedup

// fill puts the samples of k into the holes of out. Stale markers are no borders.
func (c *cell) fill(out []run, k *track) ([]run, error) {
	f := filling{cell: c, source: k, left: border{t: c.start, edge: true}, added: c.memory.added[:0]}
	for _, r := range out {
		if err := f.pass(r); err != nil {
			return nil, err
		}
	}
	if f.left.edge || c.offEdge(c.end-f.left.t, f.left.t) {
		if err := f.take(border{t: c.end, edge: true}); err != nil {
			return nil, err
		}
	}
	c.memory.added = f.added
	return c.join(out, f.added), nil
}

// filling is a walk over what was chosen so far.
type filling struct {
	*cell
	source *track
	left   border // what was passed last
	added  []run  // what the source has in the holes that were passed
}

// border is a sample beside a hole, or an edge of the cell.
type border struct {
	t    int64
	edge bool
	at   ref // of the sample
}

// pass goes on to the end of a row.
func (f *filling) pass(r run) error {
	u := &f.reps[r.rep].units[r.unit]
	from := u.at + r.from
	for _, mark := range r.marks(f.reps) {
		if err := f.scrapes(r, from, mark); err != nil {
			return err
		}
		from = mark + 1
	}
	return f.scrapes(r, from, u.at+r.to)
}

// scrapes goes on over the samples of a row that stand from one position to another, none of which is a stale marker.
func (f *filling) scrapes(r run, from, to int) error {
	if from == to {
		return nil
	}
	rep := f.reps[r.rep]
	times := rep.s.T[from:to]
	at := func(i int) border { return border{t: times[i], at: ref{r.rep, from + i}} }
	first := at(0)
	if f.left.edge && f.offEdge(first.t-f.start, first.t) || !f.left.edge && f.hole(f.left.t, first.t) {
		if err := f.take(first); err != nil {
			return err
		}
	}
	if short := 3 * f.shortest / 2; rep.units[r.unit].longest > short { // no distance up to that is a hole
		for i := 1; i < len(times); i++ {
			if times[i]-times[i-1] <= short || !f.hole(times[i-1], times[i]) {
				continue
			}
			f.left = at(i - 1)
			if err := f.take(at(i)); err != nil {
				return err
			}
		}
	}
	f.left = at(len(times) - 1)
	return nil
}

// take adds what the source has between two borders.
// Samples within half an interval of a border are left out: with clocks that
// differ they could be older than what stands there. So are those that start
// timestamps put on the other side of it, as long as that leaves no hole.
func (f *filling) take(right border) error {
	left := f.left
	from, to := left.t, right.t-1
	if !left.edge {
		from = left.t + f.margin(left.t)
	}
	if !right.edge {
		to = right.t - f.margin(right.t)
	}
	n := len(f.added)
	added, err := f.source.between(f.added, from, to)
	if err != nil {
		return err
	}
	rows := added[n:]
	for !left.edge && len(rows) > 0 {
		r := rows[0]
		if d, older := reversed(f.reps, left.at, r.at(f.reps, 0)); !older || tooFar(d, f.interval(left.t)) {
			break
		}
		rows = skip(rows, 1)
	}
	for !right.edge && len(rows) > 0 {
		r := &rows[len(rows)-1]
		if d, older := reversed(f.reps, r.at(f.reps, r.to-r.from-1), right.at); !older || tooFar(d, f.interval(right.t)) {
			break
		}
		if r.to--; r.from == r.to {
			rows = rows[:len(rows)-1]
		}
	}
	f.added = append(added[:n], rows...)
	return nil
}

// reversed reports whether b, which stands behind a, is known to be older: it counts for a process that had ended when that of a began.
// Start timestamps tell. Nothing follows from a lower value under the same one, which gauges carry, too. Nor from a start
// long before b, which may be a guess, of the time at which a replica first saw the series: d is how long, or how far apart the two samples are.
func reversed(reps []*replica, a, b ref) (d int64, older bool) {
	ra, rb := reps[a.rep], reps[b.rep]
	startA, startB := ra.s.Start(a.i), rb.s.Start(b.i)
	if startA == 0 || startB == 0 || startB >= startA {
		return 0, false
	}
	return rb.s.T[b.i] - min(startA, ra.s.T[a.i]), true
}
