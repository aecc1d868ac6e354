package planner

import (
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/block"
)

// beside gives the coarser resolutions that the block made by a merge lacks and is
// ripe for: what the next plans would ask for.
func (s *state) beside(j Compact) (out []block.Resolution) {
	if s.policy.NoDownsampling {
		return nil
	}
	m := s.merged(j)
	for to, ok := coarser(m.Resolution()); ok; to, ok = coarser(to) {
		if _, ripe := s.ripe(m, to); !ripe || !s.wanted(m, to) {
			break
		}
		out = append(out, to)
		next := *m
		next.Thanos.Downsample.Resolution = to
		if m = &next; s.joins(m) {
			break
		}
	}
	return out
}

// merged is what is known of the block that a merge will make.
func (s *state) merged(j Compact) *block.Meta {
	m := &block.Meta{MinTime: j.Range.MinTime, MaxTime: j.Range.MaxTime}
	for _, source := range j.Sources {
		m.Compaction.Sources = append(m.Compaction.Sources, source.Origin()...)
	}
	m.Compaction.Sources = block.SortedIDs(m.Compaction.Sources)
	m.Thanos.Labels = j.Labels(j.Group.Shard, s.policy.ReplicaLabels).Map()
	m.Thanos.Downsample = j.Sources[0].Thanos.Downsample
	m.Thanos.Source = block.SourceCompactor
	return m
}

// joins reports whether a block that is to be made will be merged with others that
// are there: a still coarser form of it would be made in vain.
func (s *state) joins(m *block.Meta) bool {
	g := s.byKey[m.Group(s.policy.ReplicaLabels)]
	if g == nil {
		return false
	}
	mine := map[ulid.ULID]bool{}
	for _, id := range m.Origin() {
		mine[id] = true
	}
	w := window(m.MinTime, s.policy.Levels[len(s.policy.Levels)-1])
	return slices.ContainsFunc(g.blocks, func(e *block.Entry) bool {
		return w.Overlaps(e.Meta.TimeRange()) &&
			slices.ContainsFunc(e.Meta.Origin(), func(id ulid.ULID) bool { return !mine[id] })
	})
}
