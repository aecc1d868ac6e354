package compact

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockwriter"
	"github.com/varve-io/varve/pkg/planner"
)

// fewest is how many sources a compaction has at least.
const fewest = 2

// bound is how a compaction of a group has to be made smaller, until a time.
type bound struct {
	sources int    // that it may have; 0 stands for any number
	split   uint64 // into how many shards it splits its series at least
	until   time.Time
}

// bounded gives the bound of a group, if there is one now.
func (e *Executor) bounded(g block.GroupKey) bound {
	b := e.bounds[g]
	if time.Now().After(b.until) {
		return bound{}
	}
	return b
}

// shrink makes the compactions of a group smaller, after one of them took more disk or
// memory than there is or the format has, and reports whether that is possible. It halves how many
// sources they may have; those of the fewest sources split their series in twice as many shards. Disks are
// emptied, too, and a split is for good: for want of disk or memory there is none before the job was tried again.
// After a while compactions may have all again.
func (e *Executor) shrink(j planner.Job, err error) bool {
	c, ok := j.(planner.Compact)
	if !ok {
		return false
	}
	b := e.bounded(c.Group)
	switch {
	case len(c.Sources) > fewest:
		b.sources = max(fewest, len(c.Sources)/2)
	case !c.Splittable() || !errors.Is(err, blockwriter.ErrTooLarge) && e.failed[j.String()].times == 0:
		return false
	default:
		b.split = 2 * c.Parts()
	}
	b.until = time.Now().Add(longestPause)
	e.bounds[c.Group] = b
	return true
}

// fit gives a compaction as its group may have it now.
func (e *Executor) fit(j planner.Job, sizes map[ulid.ULID]int64) planner.Job {
	c, ok := j.(planner.Compact)
	if !ok {
		return j
	}
	b := e.bounded(c.Group)
	if b.sources > 0 && len(c.Sources) > b.sources {
		c = e.portion(c, b.sources, sizes)
	}
	if b.split > c.Parts() {
		c.Into = c.Group.Shard.Split(b.split)
		c.Reason += fmt.Sprintf(", split in %d for want of room", b.split)
	}
	return c
}

// portion gives a part of a compaction that has at most so many sources: of the neighbours
// that are few enough those that are smallest together, so that what comes of them
// stays small too. Merging in two steps what one would do costs more and is right all the same.
func (e *Executor) portion(c planner.Compact, most int, sizes map[ulid.ULID]int64) planner.Compact {
	runs := overlapping(c.Sources)
	part := runs[max(0, slices.IndexFunc(runs, func(run []*block.Meta) bool { return len(run) > most }))] // more replicas than there may be
	least := int64(math.MaxInt64)
	for i := range runs {
		some := together(runs[i:], most)
		if size := sumOf(some, sizes); len(some) >= fewest && size < least {
			part, least = some, size
		}
	}
	c.Sources = slices.Clone(part)
	if len(part) > most {
		c.Sources = e.mergedFirst(c.Sources)[:most]
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
