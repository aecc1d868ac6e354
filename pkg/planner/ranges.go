package planner

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/varve-io/varve/pkg/block"
)

// The limits of one merge.
const (
	// maxSources is how many blocks it reads: of each, parts of the files are in memory.
	maxSources = 200
	// maxIndexes is how many bytes their indexes have together. A merge keeps four
	// bytes for each symbol of each source, and a symbol takes some 64 bytes of an
	// index: in its table, in that of the postings, and in the lists.
	maxIndexes = 1 << 30
)

// ranges gives the merges of neighbours: for every complete aligned range, the
// longest first, that holds at least two runs of overlapping blocks. All of them are
// merged at once, or each sample would be read and written a second time. Where a
// longer range is complete but for a block that is pending, its blocks wait for it
// instead of being merged into shorter ranges first. A run that crosses the border of a
// range is none of its runs.
//
// The rest are the runs that are in no range.
func (s *state) ranges(g *group, runs [][]*block.Entry, pending []block.TimeRange) (jobs []Job, rest [][]*block.Entry) {
	for _, level := range slices.Backward(s.policy.Levels) {
		rest = nil
		for _, part := range windows(runs, level) {
			w := window(part[0][0].Meta.MinTime, level)
			complete := s.complete(g, w)
			waiting := slices.ContainsFunc(pending, w.Overlaps)
			switch {
			case complete && waiting:
				s.hold(slices.Concat(part...))
			case complete && len(part) > 1:
				jobs = append(jobs, s.mergeAll(g, part, "range of "+duration(level))...)
			default:
				rest = append(rest, part...)
			}
		}
		runs = rest
	}
	return jobs, rest
}

// complete reports whether a range has all that it will get: something newer has
// begun, or the stream has stopped.
func (s *state) complete(g *group, w block.TimeRange) bool {
	return w.MaxTime <= g.newest || s.policy.closed(w.MaxTime, s.now)
}

// mergeAll merges the runs of a range, in several portions if they are too many for
// one. The next plan merges what these become.
func (s *state) mergeAll(g *group, runs [][]*block.Entry, reason string) (jobs []Job) {
	all := portions(runs)
	if len(all) == 1 {
		return []Job{s.finish(g, slices.Concat(runs...), reason)}
	}
	for _, portion := range all {
		if blocks := slices.Concat(portion...); len(blocks) > 1 {
			jobs = append(jobs, s.merge(g, blocks, "part of a "+reason))
		} else {
			s.hold(blocks)
		}
	}
	return jobs
}

// portions cuts runs into what one merge can take, but never less than two.
func portions(runs [][]*block.Entry) (out [][][]*block.Entry) {
	var left room
	for _, run := range runs {
		last := len(out) - 1
		if last >= 0 && (left.take(run) || len(out[last]) < 2) {
			out[last] = append(out[last], run)
			continue
		}
		out = append(out, [][]*block.Entry{run})
		left = room{maxSources, maxIndexes}
		left.take(run)
	}
	return out
}

// room is what a merge can still take.
type room struct {
	sources int
	indexes int64
}

// take takes the blocks and reports whether there was room for them.
func (r *room) take(blocks []*block.Entry) bool {
	r.sources -= len(blocks)
	for _, e := range blocks {
		r.indexes -= e.Objects[block.IndexFile]
	}
	return r.sources >= 0 && r.indexes >= 0
}

// windows cuts runs, which do not overlap with each other, into those of each aligned
// range of the given length; a run that crosses a border stands alone.
func windows(runs [][]*block.Entry, length time.Duration) [][][]*block.Entry {
	var parts [][][]*block.Entry
	var last block.TimeRange // of the part that may still grow
	for _, run := range runs {
		r := span(run)
		w := window(r.MinTime, length)
		fits := w.Covers(r)
		if !fits || len(parts) == 0 || w != last {
			parts = append(parts, nil)
		}
		parts[len(parts)-1] = append(parts[len(parts)-1], run)
		last = w
		if !fits {
			last = block.TimeRange{}
		}
	}
	return parts
}

// duration writes 14d, 8h and 5m where Go writes 336h0m0s, 8h0m0s and 5m0s.
func duration(d time.Duration) string {
	if d >= day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	text := d.String()
	if d%time.Minute == 0 {
		text = strings.TrimSuffix(text, "0s")
	}
	if d%time.Hour == 0 {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
