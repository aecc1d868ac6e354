package bucketops

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockscan"
	"github.com/varve-io/varve/pkg/series"
)

// salvaged is what is left of a series, and what is not.
type salvaged struct {
	labels labels.Labels
	chunks []series.Chunk // sorted, none overlapping another
	lost   []blockscan.Loss
}

// tidy brings what a scan gives of a series into the form that a block wants. No
// sample inside the block's range is dropped.
func tidy(s *blockscan.Scanner, meta *block.Meta) (*salvaged, error) {
	cur := s.At()
	out := &salvaged{labels: ordered(cur.Labels), lost: slices.Clone(s.Lost())}
	r := meta.TimeRange()
	for _, c := range cur.Chunks {
		if c.MinTime < r.MinTime || c.MaxTime >= r.MaxTime { // nobody asks this block for what is outside
			outside := block.TimeRange{MinTime: c.MinTime, MaxTime: c.MaxTime}
			if c.Encoding != aggrchunk.Encoding && c.MinTime >= r.MinTime {
				outside.MinTime = max(c.MinTime, r.MaxTime)
			}
			if c.Encoding != aggrchunk.Encoding && c.MaxTime < r.MaxTime {
				outside.MaxTime = min(c.MaxTime, r.MinTime)
			}
			out.lost = append(out.lost, blockscan.Loss{TimeRange: outside, File: "outside the block's range", Offset: blockscan.Whole})
		}
	}
	inside, err := cut(cur.Chunks, r)
	if err != nil {
		return nil, err
	}
	out.chunks, err = union(inside)
	return out, err
}

// ordered puts labels in order; of two with one name the first stays.
func ordered(l labels.Labels) labels.Labels {
	b := labels.NewScratchBuilder(l.Len())
	seen := map[string]bool{}
	l.Range(func(l labels.Label) {
		if !seen[l.Name] {
			seen[l.Name] = true
			b.Add(l.Name, l.Value)
		}
	})
	b.Sort()
	return b.Labels()
}

// salvage calls fn with all that can be read of a block, in the order of labels,
// each series once. A block that is not sorted is held in memory, but for its samples.
func salvage(s *blockscan.Scanner, meta *block.Meta, sorted func() bool, fn func(*salvaged) error) error {
	if sorted() {
		for s.Next() {
			one, err := tidy(s, meta)
			if err == nil {
				err = fn(one)
			}
			if err != nil {
				return err
			}
		}
		return s.Err()
	}
	var all []*salvaged
	for s.Next() {
		one, err := tidy(s, meta)
		if err != nil {
			return err
		}
		all = append(all, one)
	}
	if err := s.Err(); err != nil {
		return err
	}
	slices.SortStableFunc(all, func(a, b *salvaged) int { return labels.Compare(a.labels, b.labels) })
	for i := 0; i < len(all); {
		one := all[i]
		for i++; i < len(all) && labels.Equal(all[i].labels, one.labels); i++ {
			var err error
			if one.chunks, err = union(one.chunks, all[i].chunks); err != nil {
				return err
			}
			one.lost = append(one.lost, all[i].lost...)
		}
		if err := fn(one); err != nil {
			return err
		}
	}
	return nil
}
