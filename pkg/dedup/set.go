package dedup

import (
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/util/annotations"

	"github.com/varve-io/varve/pkg/series"
)

// NewSet makes one series, with an empty Replica, of each of the set's Groups. A series that cannot be read ends the set.
func NewSet(in series.Set, o Options) series.Set { return &set{in: NewGroups(in), opts: o} }

type set struct {
	in    *Groups
	opts  Options
	dedup deduplicator
	at    *series.Series
	err   error
}

func (s *set) Next() bool {
	if s.err != nil || !s.in.Next() {
		return false
	}
	g := s.in.At()
	chunks, err := s.chunks(g)
	if err != nil {
		s.err = fmt.Errorf("series %s: %w", g.Labels, err)
		return false
	}
	s.at = &series.Series{Labels: g.Labels, Chunks: chunks}
	return true
}

// chunks deduplicates a group; penalty does so only where chunks overlap, as Thanos' compactor does. Its walk would
// lose the first samples of every block that is merged with what was merged before, which it takes for another replica.
func (s *set) chunks(g *Group) ([]series.Chunk, error) {
	if s.opts.Func != Penalty || slices.ContainsFunc(kinds(g.replicas), func(k kind) bool { return k.aggregate }) {
		return s.dedup.chunks(g, s.opts)
	}
	var out []series.Chunk
	for _, part := range g.overlapping() {
		chunks, err := s.dedup.chunks(&part, s.opts)
		if err != nil {
			return nil, err
		}
		out = append(out, chunks...)
	}
	return out, nil
}

func (s *set) At() *series.Series { return s.at }

func (s *set) Err() error {
	if s.err != nil {
		return s.err
	}
	return s.in.Err()
}

func (s *set) Warnings() annotations.Annotations { return s.in.Warnings() }
