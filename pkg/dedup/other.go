package dedup

import (
	"cmp"
	"math"
	"slices"
)

// ref is one sample: of which replica, and where in its decoded samples.
type ref struct{ rep, i int }

// compress says samples as rows.
func compress(reps []*replica, refs []ref) (out []run) {
	for i := 0; i < len(refs); {
		first, r := refs[i], reps[refs[i].rep]
		unit := r.unitOf(first.i)
		u := &r.units[unit]
		n := 1
		for i+n < len(refs) && refs[i+n] == (ref{first.rep, first.i + n}) && first.i+n < u.at+u.n {
			n++
		}
		out = append(out, run{rep: first.rep, unit: unit, from: first.i - u.at, to: first.i - u.at + n})
		i += n
	}
	return out
}

// chain takes every sample, of equal times that of the first replica.
func chain(reps []*replica) []ref {
	var out []ref
	for i, r := range reps {
		for j := range r.s.T {
			out = append(out, ref{i, j})
		}
	}
	time := func(r ref) int64 { return reps[r.rep].s.T[r.i] }
	slices.SortStableFunc(out, func(a, b ref) int { return cmp.Compare(time(a), time(b)) })
	return slices.CompactFunc(out, func(a, b ref) bool { return time(a) == time(b) })
}

// firstPenalty is what the side that was not taken first is held back by, in milliseconds.
const firstPenalty = 5000

// penalty folds the replicas from the left. Whichever side was not taken is
// held back by twice the distance between the last two samples taken, so the
// fold stays with a side until that side is late.
func penalty(reps []*replica) []ref {
	var out []ref
	for i, r := range reps {
		side := make([]ref, r.s.Len())
		for j := range side {
			side[j] = ref{i, j}
		}
		if i == 0 {
			out = side
			continue
		}
		out = penalize(reps, out, side)
	}
	return out
}

func penalize(reps []*replica, a, b []ref) []ref {
	time := func(r ref) int64 { return reps[r.rep].s.T[r.i] }
	seek := func(side []ref, t int64) []ref {
		n, _ := slices.BinarySearchFunc(side, t, func(r ref, t int64) int { return cmp.Compare(time(r), t) })
		return side[n:]
	}
	var out []ref
	last := int64(math.MinInt64)
	var heldA, heldB int64
	for {
		if len(out) > 0 {
			a, b = seek(a, last+1+heldA), seek(b, last+1+heldB)
		}
		if len(a) == 0 && len(b) == 0 {
			return out
		}
		taken, held := a, &heldB
		if len(a) == 0 || len(b) > 0 && time(b[0]) < time(a[0]) {
			taken, held = b, &heldA
		}
		t := time(taken[0])
		heldA, heldB = 0, 0
		switch {
		case len(a) == 0 || len(b) == 0:
		case len(out) == 0:
			*held = firstPenalty
		default:
			*held = 2 * (t - last)
		}
		out = append(out, taken[0])
		last = t
	}
}
