package store

import (
	"cmp"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"

	"github.com/varve-io/varve/pkg/block"
)

// blockIDLabel is the label by which a selector names a block.
const blockIDLabel = "__block_id"

// visible returns the blocks of a set that the gateway answers for.
func (o *Options) visible(set *block.Set, now time.Time) []*block.Entry {
	bounds := o.bounds(now)
	kept := block.Select(set.Blocks, func(e *block.Entry) bool {
		return e.Meta.TimeRange().Overlaps(bounds) &&
			o.selects(e.Meta) &&
			e.Meta.Settled(o.ConsistencyDelay, now) &&
			!e.MarkedFor(o.IgnoreDeletionMarksDelay, now)
	})
	// A block that is about to be deleted hides no other, but is itself hidden.
	marked := map[ulid.ULID]bool{}
	for _, e := range kept {
		marked[e.Meta.ULID] = e.Deletion != nil
	}
	hidden := block.Superseded(block.Select(kept, func(e *block.Entry) bool { return e.Deletion == nil }))
	for id, by := range block.Superseded(kept) {
		if marked[id] && !marked[by] {
			hidden[id] = by
		}
	}
	return block.Select(kept, func(e *block.Entry) bool {
		_, ok := hidden[e.Meta.ULID]
		return !ok
	})
}

// selects reports whether the selector keeps a block.
func (o *Options) selects(m *block.Meta) bool {
	if len(o.Selector) == 0 {
		return true
	}
	b := labels.NewBuilder(m.Labels())
	b.Set(blockIDLabel, m.ULID.String())
	return relabel.ProcessBuilder(b, o.Selector...) && !b.Labels().IsEmpty()
}

// bounds is the time that the gateway answers for.
func (o *Options) bounds(now time.Time) block.TimeRange {
	r := block.TimeRange{MinTime: minTime, MaxTime: maxTime}
	if o.MinTime != nil {
		r.MinTime = o.MinTime(now).UnixMilli()
	}
	if o.MaxTime != nil {
		r.MaxTime = min(o.MaxTime(now).UnixMilli(), maxTime-1) + 1
	}
	return r
}

// minTime and maxTime stay clear of the integers' ends, so that distances are integers too.
const (
	minTime = -1 << 62
	maxTime = 1 << 62
)

// blockSet is what the gateway answers for. It is immutable.
type blockSet struct {
	blocks  map[string]*openBlock // by ULID
	streams []*stream             // sorted by labels
	listed  time.Time             // when the bucket was
}

// stream is the blocks with the same external labels, sorted by MinTime.
type stream struct {
	labels labels.Labels
	blocks []*openBlock
}

func newBlockSet(blocks map[string]*openBlock, listed time.Time) *blockSet {
	s := &blockSet{blocks: blocks, listed: listed}
	byLabels := map[string]*stream{}
	for _, b := range blocks {
		key := string(b.labels.Bytes(nil))
		if byLabels[key] == nil {
			byLabels[key] = &stream{labels: b.labels}
			s.streams = append(s.streams, byLabels[key])
		}
		byLabels[key].blocks = append(byLabels[key].blocks, b)
	}
	slices.SortFunc(s.streams, func(a, b *stream) int { return labels.Compare(a.labels, b.labels) })
	for _, st := range s.streams {
		slices.SortFunc(st.blocks, func(a, b *openBlock) int {
			return cmp.Or(cmp.Compare(a.meta.MinTime, b.meta.MinTime), a.meta.ULID.Compare(b.meta.ULID))
		})
	}
	return s
}

// pick is a block that a request reads, and the times for which it does.
type pick struct {
	block *openBlock
	times []block.TimeRange
}

// overlaps reports whether a run of samples from mint to maxt, both inclusive, is wanted.
func (p *pick) overlaps(mint, maxt int64) bool {
	for _, t := range p.times {
		if mint < t.MaxTime && t.MinTime <= maxt {
			return true
		}
	}
	return false
}

// plan picks blocks of one stream for a time range: the coarsest allowed
// resolution first, gaps filled by finer ones; what is then left open by
// resolutions up to fallback, the finest of them first. A block is read only for
// the times that no better resolution covers.
func plan(blocks []*openBlock, want block.TimeRange, allowed, fallback block.Resolution) []pick {
	var picks []pick
	open := []block.TimeRange{want}
	for _, r := range order(blocks, allowed, fallback) {
		var covered []block.TimeRange
		for _, b := range blocks {
			if b.meta.Resolution() != r {
				continue
			}
			if times := intersect(open, b.meta.TimeRange()); len(times) > 0 {
				picks = append(picks, pick{block: b, times: times})
				covered = append(covered, b.meta.TimeRange())
			}
		}
		for _, c := range covered {
			open = subtract(open, c)
		}
	}
	return picks
}

// order lists the resolutions of blocks in the order in which plan takes them.
func order(blocks []*openBlock, allowed, fallback block.Resolution) []block.Resolution {
	var finer, coarser []block.Resolution
	for _, b := range blocks {
		switch r := b.meta.Resolution(); {
		case r <= allowed && !slices.Contains(finer, r):
			finer = append(finer, r)
		case r > allowed && r <= fallback && !slices.Contains(coarser, r):
			coarser = append(coarser, r)
		}
	}
	slices.Sort(finer)
	slices.Reverse(finer)
	slices.Sort(coarser)
	return append(finer, coarser...)
}

// intersect returns the parts of ranges that lie in r.
func intersect(ranges []block.TimeRange, r block.TimeRange) []block.TimeRange {
	var parts []block.TimeRange
	for _, x := range ranges {
		if x.Overlaps(r) {
			parts = append(parts, block.TimeRange{MinTime: max(x.MinTime, r.MinTime), MaxTime: min(x.MaxTime, r.MaxTime)})
		}
	}
	return parts
}

// subtract returns the parts of ranges that lie outside r.
func subtract(ranges []block.TimeRange, r block.TimeRange) []block.TimeRange {
	var parts []block.TimeRange
	for _, x := range ranges {
		if !x.Overlaps(r) {
			parts = append(parts, x)
			continue
		}
		if x.MinTime < r.MinTime {
			parts = append(parts, block.TimeRange{MinTime: x.MinTime, MaxTime: r.MinTime})
		}
		if r.MaxTime < x.MaxTime {
			parts = append(parts, block.TimeRange{MinTime: r.MaxTime, MaxTime: x.MaxTime})
		}
	}
	return parts
}
