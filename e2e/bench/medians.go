package main

import (
	"cmp"
	"errors"
	"slices"
	"time"
)

// medians is one report of several runs of the same. The times of each row are the medians of all
// runs, its memory is the most that any run took, and the rest is that of the run with the median CPU time.
func medians(runs []*report) *report {
	m := &report{}
	for _, run := range runs {
		for _, r := range run.rows {
			if m.find(r.group, r.phase, r.subject) == nil {
				m.rows = append(m.rows, typical(all(runs, r)))
			}
		}
		m.notes = append(m.notes, run.notes...)
	}
	return m
}

// all gives the rows of all runs that measured what r did.
func all(runs []*report, r *row) (same []*row) {
	for _, run := range runs {
		if one := run.find(r.group, r.phase, r.subject); one != nil {
			same = append(same, one)
		}
	}
	return same
}

// typical is what rows, of which there is one at least, have in common.
func typical(rows []*row) *row {
	slices.SortFunc(rows, func(a, b *row) int { return cmp.Compare(a.cpu, b.cpu) })
	t := *rows[len(rows)/2]
	median := func(of func(*row) time.Duration) time.Duration {
		times := make([]time.Duration, len(rows))
		for i, r := range rows {
			times[i] = of(r)
		}
		slices.Sort(times)
		return (times[(len(times)-1)/2] + times[len(times)/2]) / 2
	}
	t.wall = median(func(r *row) time.Duration { return r.wall })
	t.cpu = median(func(r *row) time.Duration { return r.cpu })
	t.rig = median(func(r *row) time.Duration { return r.rig })
	t.server = median(func(r *row) time.Duration { return r.server })
	t.err = nil
	for _, r := range rows {
		t.rss, t.peak = max(t.rss, r.rss), max(t.peak, r.peak)
		t.err = errors.Join(t.err, r.err)
	}
	return &t
}
