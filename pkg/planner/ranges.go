package planner

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/varve-io/varve/pkg/block"
)

// ranges gives the merges of neighbours: for every complete aligned range, the
// longest first, that holds at least two blocks. Where a longer range is
// complete but for a block that is pending, its blocks wait for it instead of
// being merged into shorter ranges first. A block that crosses the border of a
// range is none of its blocks.
func (s *state) ranges(g *group, apart []*block.Entry, pending []block.TimeRange) []Job {
	newest := int64(math.MinInt64) // the latest start of a block
	for _, e := range g.blocks {
		newest = max(newest, e.Meta.MinTime)
	}
	var jobs []Job
	for _, level := range slices.Backward(s.policy.Levels) {
		var rest []*block.Entry
		for _, part := range windows(apart, level) {
			w := window(part[0].Meta.MinTime, level)
			complete := w.MaxTime <= newest || s.policy.closed(w.MaxTime, s.now)
			waiting := slices.ContainsFunc(pending, w.Overlaps)
			switch {
			case complete && waiting:
				s.hold(part)
			case complete && len(part) > 1:
				jobs = append(jobs, s.merge(g, part, "range of "+duration(level)))
			default:
				rest = append(rest, part...)
			}
		}
		apart = rest
	}
	return jobs
}

// windows cuts blocks that do not overlap into those of each aligned range of
// the given length; a block that crosses a border stands alone.
func windows(blocks []*block.Entry, length time.Duration) [][]*block.Entry {
	var parts [][]*block.Entry
	var last block.TimeRange // of the part that may still grow
	for _, e := range blocks {
		w := window(e.Meta.MinTime, length)
		fits := w.Covers(e.Meta.TimeRange())
		if !fits || len(parts) == 0 || w != last {
			parts = append(parts, nil)
		}
		parts[len(parts)-1] = append(parts[len(parts)-1], e)
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
