package planner

import (
	"slices"

	"github.com/varve-io/varve/pkg/block"
)

// compact gives the compactions of one group: complete ranges, with all that overlaps
// in them, and the overlaps that are in none.
func (s *state) compact(g *group) []Job {
	candidates := block.Select(g.blocks, func(e *block.Entry) bool {
		return e.NoCompact == nil && !s.taken[e.Meta.ULID]
	})
	strays, candidates := s.strays(g, candidates)
	unsplit := s.unsplit(g)
	var ready [][]*block.Entry    // runs, most of them of one block
	var pending []block.TimeRange // where a block is still to come, or to settle
	for _, run := range overlaps(candidates) {
		if !s.settled(run) || len(run) > 1 && !s.assembled(run) || anyOverlaps(unsplit, span(run)) {
			pending = append(pending, span(run))
			s.hold(run)
			continue
		}
		ready = append(ready, run)
	}
	jobs, rest := s.ranges(g, ready, pending)
	for _, run := range rest {
		if len(run) == 1 {
			if job, ok := s.leftover(g, run[0]); ok {
				jobs = append(jobs, job)
			}
		} else if !s.early(g, run) {
			jobs = append(jobs, s.finish(g, run, "overlap"))
		}
	}
	return append(jobs, strays...)
}

// overlaps cuts blocks, in a set's order, into the longest runs in which each
// block overlaps with what comes before it.
func overlaps(blocks []*block.Entry) [][]*block.Entry {
	var runs [][]*block.Entry
	var end int64
	for _, e := range blocks {
		if len(runs) == 0 || e.Meta.MinTime >= end {
			runs = append(runs, nil)
			end = e.Meta.MaxTime
		}
		runs[len(runs)-1] = append(runs[len(runs)-1], e)
		end = max(end, e.Meta.MaxTime)
	}
	return runs
}

// anyOverlaps reports whether a block overlaps with a time.
func anyOverlaps(blocks []*block.Entry, r block.TimeRange) bool {
	return slices.ContainsFunc(blocks, func(e *block.Entry) bool { return e.Meta.TimeRange().Overlaps(r) })
}

// span is the range from the first block's start to the last end.
func span(blocks []*block.Entry) block.TimeRange {
	r := blocks[0].Meta.TimeRange()
	for _, e := range blocks {
		r.MinTime, r.MaxTime = min(r.MinTime, e.Meta.MinTime), max(r.MaxTime, e.Meta.MaxTime)
	}
	return r
}

// settled reports whether every block has been there for the consistency delay.
func (s *state) settled(blocks []*block.Entry) bool {
	for _, e := range blocks {
		if !e.Meta.Settled(s.policy.ConsistencyDelay, s.now) {
			return false
		}
	}
	return true
}

// assembled reports whether it is time to merge overlapping blocks: when every
// known replica of the stream is among them, or when they ended two arriving
// blocks ago and the missing one will come late or never. Merging is right at
// any time; waiting only saves doing it twice. What was merged before, and
// streams without replicas, need not wait.
func (s *state) assembled(run []*block.Entry) bool {
	here := map[string]bool{}
	for _, e := range run {
		r := e.Meta.Replica(s.policy.ReplicaLabels)
		if r == "" {
			return true
		}
		here[r] = true
	}
	stream := run[0].Meta.Group(s.policy.ReplicaLabels).Stream
	if len(here) == len(s.replicas[stream]) {
		return true
	}
	return span(run).MaxTime+2*s.policy.Levels[0].Milliseconds() <= s.now.UnixMilli()
}

// early reports whether overlapping blocks are arrivals of one time, each of another
// replica, and the shortest range of several arrivals is not complete: they are merged
// with it, or each sample would be moved once more. Readers know how to read replicas.
func (s *state) early(g *group, run []*block.Entry) bool {
	if len(s.policy.Levels) < 2 {
		return false
	}
	here := map[string]bool{}
	for _, e := range run {
		r := e.Meta.Replica(s.policy.ReplicaLabels)
		if r == "" || here[r] {
			return false
		}
		here[r] = true
	}
	w := window(run[0].Meta.MinTime, s.policy.Levels[1])
	return w.Covers(span(run)) && !s.complete(g, w)
}

// finish gives the job that makes one block of several, and the coarser ones that it
// is ripe for.
func (s *state) finish(g *group, blocks []*block.Entry, reason string) Job {
	job := s.merge(g, blocks, reason)
	job.Beside = s.beside(job)
	return job
}

// merge gives the job that makes one block of several, or shards of one, and takes them.
func (s *state) merge(g *group, blocks []*block.Entry, reason string) Compact {
	job := Compact{Group: g.key, Range: span(blocks), Reason: reason}
	for _, e := range blocks {
		job.Sources = append(job.Sources, e.Meta)
		s.taken[e.Meta.ULID] = true
	}
	n, why := s.split(g, blocks)
	if n > 1 {
		job.Reason += ", " + why
	}
	job.Into = s.lacking(g, blocks, n)
	return job
}
