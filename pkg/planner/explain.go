package planner

import (
	"fmt"
	"slices"
	"time"

	"github.com/varve-io/varve/pkg/block"
)

// Held is a block that no job of a plan has although something is still to become
// of it, with the reason.
type Held struct {
	Group block.GroupKey
	Block *block.Meta
	Why   Hold
	// Until is when the reason ends by itself, at the latest; zero if only somebody
	// else, or another job, can end it.
	Until time.Time
	// Detail is the reason in words.
	Detail string
}

// Hold is why a block is held.
type Hold string

// The reasons why blocks are held.
const (
	// HeldFresh is a block that came a moment ago.
	HeldFresh Hold = "fresh"
	// HeldForReplica is a block whose replica is still to come.
	HeldForReplica Hold = "replica"
	// HeldForNeighbour is a block whose range waits for another of its blocks.
	HeldForNeighbour Hold = "neighbour"
	// HeldForRange is a block whose range is not complete.
	HeldForRange Hold = "range"
	// HeldForCoarser is a block past its retention of which something coarser has to be made first.
	HeldForCoarser Hold = "coarser"
	// HeldByMark is a block that a mark keeps out.
	HeldByMark Hold = "mark"
)

// Explain gives the jobs of Plan, and why blocks that could become something else
// are in none of them, in the order of their groups.
func Explain(set *block.Set, policy Policy, now time.Time) ([]Job, []Held) {
	s := look(set, policy, now)
	jobs := s.plan(set)
	var held []Held
	for _, g := range s.groups {
		for _, run := range overlaps(g.blocks) {
			whole, awaited := span(run), s.awaited(run)
			for _, e := range run {
				if s.taken[e.Meta.ULID] {
					continue
				}
				if h, ok := s.explain(g, e, whole, awaited); ok {
					h.Group, h.Block = g.key, e.Meta
					held = append(held, h)
				}
			}
		}
	}
	return jobs, held
}

// awaited is until when the blocks of a run wait for a replica, or zero.
func (s *state) awaited(run []*block.Entry) time.Time {
	run = block.Select(run, func(e *block.Entry) bool { return e.NoCompact == nil })
	if len(run) < 2 || !s.settled(run) || s.assembled(run) {
		return time.Time{}
	}
	return time.UnixMilli(span(run).MaxTime + 2*s.policy.Levels[0].Milliseconds())
}

// explain says why a block is in no job that is one of overlapping ones, which span
// a range and may wait for a replica; ok is false if nothing is to become of it.
func (s *state) explain(g *group, e *block.Entry, run block.TimeRange, awaited time.Time) (h Held, ok bool) {
	m := e.Meta
	switch {
	case s.past(m, m.Resolution()) && s.needed(e):
		h = Held{Why: HeldForCoarser, Detail: "past its retention, and kept until what outlives it is made of it"}
		if e.NoDownsample != nil {
			h.Detail += fmt.Sprintf(", which %s (%s) prevents", block.NoDownsampleMark, e.NoDownsample.Reason)
		}
		return h, true
	case e.NoCompact != nil:
		return Held{Why: HeldByMark, Detail: fmt.Sprintf("%s (%s): %s", block.NoCompactMark, e.NoCompact.Reason, e.NoCompact.Details)}, true
	case !m.Settled(s.policy.ConsistencyDelay, s.now):
		return Held{Why: HeldFresh, Until: m.Arrived().Add(s.policy.ConsistencyDelay), Detail: "it came a moment ago; --consistency-delay says how long it is left alone"}, true
	case !awaited.IsZero():
		return Held{Why: HeldForReplica, Until: awaited, Detail: "a replica of its stream has no block here yet"}, true
	case s.held[m.ULID]:
		return Held{Why: HeldForNeighbour, Detail: "another block of its range is not ready"}, true
	}
	w, level, ok := s.growing(g, run)
	if !ok {
		return Held{}, false
	}
	end := time.UnixMilli(w.MaxTime).UTC()
	return Held{
		Why: HeldForRange, Until: end.Add(s.policy.CloseAfter),
		Detail: fmt.Sprintf("its range of %s ends at %s and is complete when something newer comes", duration(level), end.Format(time.RFC3339)),
	}, true
}

// growing gives the shortest range that a span can still grow into.
func (s *state) growing(g *group, r block.TimeRange) (w block.TimeRange, level time.Duration, ok bool) {
	i := slices.IndexFunc(s.policy.Levels, func(l time.Duration) bool {
		w = window(r.MinTime, l)
		return w != r && w.Covers(r) && !s.complete(g, w)
	})
	if i < 0 {
		return block.TimeRange{}, 0, false
	}
	return w, s.policy.Levels[i], true
}
