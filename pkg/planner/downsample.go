package planner

import (
	"time"

	"github.com/varve-io/varve/pkg/block"
)

// downsample gives the blocks that lack their next resolution. Blocks that are
// being merged in this plan are left for the block that they become.
func (s *state) downsample() []Job {
	if s.policy.NoDownsampling {
		return nil
	}
	var jobs []Job
	for _, g := range s.groups {
		to, ok := coarser(g.key.Resolution)
		if !ok {
			continue
		}
		for _, e := range g.blocks {
			if e.NoDownsample != nil || s.taken[e.Meta.ULID] {
				continue
			}
			if why, ripe := s.ripe(e.Meta, to); ripe && s.wanted(e.Meta, to) {
				jobs = append(jobs, Downsample{Group: g.key, Source: e.Meta, Resolution: to, Reason: why})
				s.taken[e.Meta.ULID] = true
			}
		}
	}
	return jobs
}

// ripe reports whether a block is long enough, or shall not become longer
// first, and which: the range in which it could grow is closed, or finer samples of its
// time are past their retention and wait for this. A merge that is near comes first.
func (s *state) ripe(m *block.Meta, to block.Resolution) (why string, ok bool) {
	if !m.Settled(s.policy.ConsistencyDelay, s.now) {
		return "", false
	}
	after := s.policy.DownsampleAfter[to]
	if m.TimeRange().Duration() >= after.Milliseconds() {
		return "it is " + duration(after) + " long or more", true
	}
	level := s.policy.levelFor(after)
	switch {
	case s.held[m.ULID]:
		return "", false
	case s.policy.closed(window(m.MaxTime-1, level).MaxTime, s.now):
		return "its range of " + duration(level) + " is over", true
	}
	return "samples of its time are past their retention", s.overdue(m)
}

// overdue reports whether samples of the block's time, at its own or a finer
// resolution, are past their retention.
func (s *state) overdue(m *block.Meta) bool {
	for r, ok := block.Raw, true; ok && r <= m.Resolution(); r, ok = coarser(r) {
		if s.past(m, r) {
			return true
		}
	}
	return false
}

// maxSkew is how far apart the clocks of compactors may be that share a bucket.
const maxSkew = time.Hour

// wanted reports whether the block has no counterpart at resolution r yet that
// would be kept, or that a still coarser one has to be made from. What is about
// to expire may have done so by another compactor's clock, and is not made again.
func (s *state) wanted(m *block.Meta, r block.Resolution) bool {
	if s.has(m, r) {
		return false
	}
	if !s.pastAt(m, r, s.now.Add(maxSkew)) {
		return true
	}
	next, ok := coarser(r)
	return ok && s.wanted(m, next)
}

// past reports whether samples of the block's time are beyond the retention of resolution r.
func (s *state) past(m *block.Meta, r block.Resolution) bool { return s.pastAt(m, r, s.now) }

func (s *state) pastAt(m *block.Meta, r block.Resolution, at time.Time) bool {
	keep := s.policy.Retention[r]
	return keep > 0 && m.MaxTime <= at.Add(-keep).UnixMilli()
}
