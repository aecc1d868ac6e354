package compact

import (
	"math"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/planner"
)

// fewest is how many sources a compaction has at least.
const fewest = 2

// bound is how many sources a compaction of a group may have, until a time.
type bound struct {
	sources int
	until   time.Time
}

// shrink halves what the compactions of a group may have, after one of them took
// more disk or memory than there is, and reports whether that makes them smaller.
// After a while they may have all again: disks are emptied, too.
func (e *Executor) shrink(j planner.Job) bool {
	c, ok := j.(planner.Compact)
	if !ok || len(c.Sources) <= fewest {
		return false
	}
	e.bounds[c.Group] = bound{max(fewest, len(c.Sources)/2), time.Now().Add(longestPause)}
	return true
}

// fit gives the part of a compaction that its group may have now: of the neighbours
// that are few enough those that are smallest together, so that what comes of them
// stays small too. Merging in two steps what one would do costs more and is right all the same.
func (e *Executor) fit(j planner.Job, sizes map[ulid.ULID]int64) planner.Job {
	c, ok := j.(planner.Compact)
	if !ok {
		return j
	}
	b, ok := e.bounds[c.Group]
	if !ok || time.Now().After(b.until) || len(c.Sources) <= b.sources {
		return j
	}
	runs := overlapping(c.Sources)
	part := runs[max(0, slices.IndexFunc(runs, func(run []*block.Meta) bool { return len(run) > b.sources }))] // more replicas than there may be
	least := int64(math.MaxInt64)
	for i := range runs {
		some := together(runs[i:], b.sources)
		if size := sumOf(some, sizes); len(some) >= fewest && size < least {
			part, least = some, size
		}
	}
	c.Sources = slices.Clone(part)
	if len(part) > b.sources {
		c.Sources = e.mergedFirst(c.Sources)[:b.sources]
	}
	c.Range = spanOf(c.Sources)
	c.Beside = nil // the whole is downsampled, not its parts
	c.Reason += ", a part of it for want of room"
	return c
}

// mergedFirst puts blocks without a replica before the others, in place. Replicas of one time that
// are merged step by step have to meet what the first step made of them: two blocks without a
// replica are two halves of one series, and all samples of both would be kept.
func (e *Executor) mergedFirst(blocks []*block.Meta) []*block.Meta {
	rank := func(m *block.Meta) int { return min(1, len(m.Replica(e.opts.Policy.ReplicaLabels))) }
	slices.SortStableFunc(blocks, func(a, b *block.Meta) int { return rank(a) - rank(b) })
	return blocks
}

// together gives the blocks of so many of the first runs that they are at most n.
func together(runs [][]*block.Meta, n int) (blocks []*block.Meta) {
	for _, run := range runs {
		if len(blocks)+len(run) > n {
			break
		}
		blocks = append(blocks, run...)
	}
	return blocks
}

// overlapping cuts blocks, in a set's order, where no block reaches over the border:
// replicas are merged with each other before they are with what follows.
func overlapping(blocks []*block.Meta) (runs [][]*block.Meta) {
	var end int64
	for _, m := range blocks {
		if len(runs) == 0 || m.MinTime >= end {
			runs = append(runs, nil)
			end = m.MaxTime
		}
		runs[len(runs)-1] = append(runs[len(runs)-1], m)
		end = max(end, m.MaxTime)
	}
	return runs
}

func spanOf(blocks []*block.Meta) block.TimeRange {
	r := blocks[0].TimeRange()
	for _, m := range blocks {
		r.MinTime, r.MaxTime = min(r.MinTime, m.MinTime), max(r.MaxTime, m.MaxTime)
	}
	return r
}

func sumOf(blocks []*block.Meta, sizes map[ulid.ULID]int64) (sum int64) {
	for _, m := range blocks {
		sum += sizes[m.ULID]
	}
	return sum
}
