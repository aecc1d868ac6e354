package dedup

import "slices"

// edgeDeltas is how many distances to either side of an edge are looked at.
const edgeDeltas = reach + 1

// line is a choice over several cells.
type line struct {
	reps []*replica
	runs []run
	cell int64 // start of the last cell
	from int   // where it begins in runs

	before, after [edgeDeltas + 1]int64 // memory for times beside an edge
	tail, head    ref                   // the two samples beside it
}

// add appends the choice of the next cell, rows. Where the replica changed exactly
// at the edge, its first sample may be older than the last one before the
// edge by clock skew; so a sample that breaks the rhythm which holds around it
// is left out. This looks at the result alone, so that it comes out the
// same when blocks that were deduplicated one by one are read together.
func (l *line) add(start int64, rows []run) error {
	if l.touches(start, rows) {
		tail, err := l.last(l.runs[l.from:])
		if err != nil {
			return err
		}
		for len(rows) > 0 {
			head, err := l.first(rows)
			if err != nil {
				return err
			}
			if !l.breaksRhythm(start, tail, head) {
				break
			}
			rows = l.without(rows, head[0])
		}
	}
	l.cell, l.from = start, len(l.runs)
	l.runs = append(l.runs, rows...)
	return nil
}

// touches reports whether a sample of rows can be near enough to the cell before.
func (l *line) touches(start int64, rows []run) bool {
	if len(rows) == 0 || l.from == len(l.runs) || l.cell+Cell != start {
		return false
	}
	before, after := l.runs[len(l.runs)-1], rows[0]
	head := l.unit(after).minTime
	if after.from > 0 {
		head = after.times(l.reps)[0]
	}
	tail := l.unit(before).maxTime
	if before.to < l.unit(before).n {
		times := before.times(l.reps)
		tail = times[len(times)-1]
	}
	return head-start < edgeReach && head-tail < edgeReach
}

func (l *line) unit(r run) *unit { return &l.reps[r.rep].units[r.unit] }

// first are the first few times of rows, stale markers left out.
func (l *line) first(rows []run) ([]int64, error) {
	out := l.after[:0]
	for _, r := range rows {
		if err := l.reps[r.rep].readFirst(r.unit, r.to); err != nil {
			return nil, err
		}
		for i, t := range r.times(l.reps) {
			if r.stale(l.reps, i) {
				continue
			}
			if len(out) == 0 {
				l.head = r.at(l.reps, i)
			}
			if out = append(out, t); len(out) == cap(out) {
				return out, nil
			}
		}
	}
	return out, nil
}

// last are the last few times of rows, in rising order, stale markers left out. Those
// so near the start of the cell that the cell before could put them out do not count.
func (l *line) last(rows []run) ([]int64, error) {
	out := l.before[:0]
	for _, r := range slices.Backward(rows) {
		if err := l.reps[r.rep].readFirst(r.unit, r.to); err != nil {
			return nil, err
		}
		for i, t := range slices.Backward(r.times(l.reps)) {
			if r.stale(l.reps, i) {
				continue
			}
			if len(out) == cap(out) || t-l.cell < edgeReach {
				slices.Reverse(out)
				return out, nil
			}
			if len(out) == 0 {
				l.tail = r.at(l.reps, i)
			}
			out = append(out, t)
		}
	}
	slices.Reverse(out)
	return out, nil
}

// without takes the sample at t, which is no stale marker, out of decoded rows.
func (l *line) without(rows []run, t int64) []run {
	for i, r := range rows {
		for j, at := range r.times(l.reps) {
			if at != t || r.stale(l.reps, j) {
				continue
			}
			kept := appendRow(appendRow(nil, r.part(0, j)), r.part(j+1, r.to-r.from))
			return slices.Replace(rows, i, i+1, kept...)
		}
	}
	return rows
}

// breaksRhythm reports whether head[0], the first time after the edge, is
// nearer to the last before than half the distance at which samples come around
// it, or no hole away and known to be older. That is the lower quartile of both
// sides together, so missed scrapes do not hide the rhythm and a burst, or a change of replica, does not pretend one.
func (l *line) breaksRhythm(edge int64, tail, head []int64) bool {
	if len(tail) == 0 || len(head) == 0 || head[0]-edge >= edgeReach {
		return false
	}
	var buf [2 * edgeDeltas]int64
	distances := appendDeltas(appendDeltas(buf[:0], tail), head)
	if len(distances) < minDeltas {
		return false
	}
	across := head[0] - tail[len(tail)-1]
	d, older := reversed(l.reps, l.tail, l.head)
	if !older && quantileAtMost(distances, 4, 2*across) { // nearly always, and no need to sort
		return false
	}
	rhythm := quantile(distances, 4)
	if rhythm > 2*edgeReach {
		return false
	}
	return tooNear(across, rhythm) || older && !tooFar(d, rhythm)
}
