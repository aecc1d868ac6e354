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
	hidden := block.Superseded(kept)
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

// stream is the blocks with the same external labels, sorted by MinTime. Shards of
// one stream are the same stream.
type stream struct {
	labels labels.Labels
	blocks []*openBlock
	parts  []part
}

// part is the blocks, sorted by MinTime, that are read for some series of a stream:
// those of a shard. Mostly there is one part, the whole.
type part struct {
	shard  block.Shard
	blocks []*openBlock
}

// newBlockSet makes a set of blocks, of which some are wanted for some shards alone.
func newBlockSet(blocks map[string]*openBlock, wanted map[ulid.ULID][]block.Shard, listed time.Time) *blockSet {
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
		st.parts = partsOf(st.blocks, wanted)
	}
	return s
}

// partsOf cuts the blocks of a stream into as many parts as its finest shard asks for.
func partsOf(blocks []*openBlock, wanted map[ulid.ULID][]block.Shard) []part {
	finest := uint64(1)
	shards := make([][]block.Shard, len(blocks))
	for i, b := range blocks {
		if shards[i] = wanted[b.meta.ULID]; shards[i] == nil {
			shards[i] = []block.Shard{b.meta.Shard()}
		}
		for _, s := range shards[i] {
			finest = max(finest, s.Of)
		}
	}
	var parts []part
	for _, s := range (block.Shard{}).Split(finest) {
		p := part{shard: s}
		for i, b := range blocks {
			if s.CoveredBy(shards[i]) {
				p.blocks = append(p.blocks, b)
			}
		}
		if len(p.blocks) > 0 {
			parts = append(parts, p)
		}
	}
	return parts
}

// pick is a block that a request reads, and the times for which it does.
type pick struct {
	block *openBlock
	times []block.TimeRange
	// only are the shards of the block that are read; nil means all of it.
	only []block.Shard
}

// shards are those that are read.
func (p *pick) shards() []block.Shard {
	if p.only == nil {
		return []block.Shard{p.block.meta.Shard()}
	}
	return p.only
}

// holds reports whether a series of the block, with the labels that it has there, is read.
func (p *pick) holds(lset labels.Labels) bool {
	return p.only == nil || slices.ContainsFunc(p.only, func(s block.Shard) bool { return s.Holds(lset) })
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

// planAll plans each part of a stream, and reads a block once where it is wanted for the same times in several.
func planAll(parts []part, want block.TimeRange, allowed, fallback block.Resolution) []pick {
	if len(parts) == 1 && parts[0].shard.Whole() {
		return plan(parts[0].blocks, want, allowed, fallback)
	}
	var picks []pick
	for _, part := range parts {
		for _, p := range plan(part.blocks, want, allowed, fallback) {
			same := slices.IndexFunc(picks, func(o pick) bool { return o.block == p.block && slices.Equal(o.times, p.times) })
			if same < 0 {
				same = len(picks)
				picks = append(picks, p)
			}
			picks[same].only = append(picks[same].only, part.shard)
		}
	}
	for i := range picks {
		if p := &picks[i]; p.block.meta.Shard().CoveredBy(p.only) {
			p.only = nil
		}
	}
	return picks
}

// heirs are the parts of a stream in which the series of a block that vanished may be
// found, with the blocks that were made of what it was made of.
func (st *stream) heirs(gone *pick) (heirs []part) {
	for _, p := range st.parts {
		blocks := slices.DeleteFunc(slices.Clone(p.blocks), func(b *openBlock) bool { return b == gone.block || !inherits(b.meta, gone.block.meta) })
		for _, s := range gone.shards() {
			switch {
			case len(blocks) == 0:
			case s.Covers(p.shard):
				heirs = append(heirs, part{p.shard, blocks})
			case p.shard.Covers(s):
				heirs = append(heirs, part{s, blocks})
			}
		}
	}
	return heirs
}

// plan picks blocks of one part of a stream for a time range: the coarsest allowed
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
