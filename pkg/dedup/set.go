package dedup

import (
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/util/annotations"

	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
)

// NewSet makes one series, with an empty Replica, of each of the set's Groups. A series that cannot be read ends the set.
func NewSet(in series.Set, o Options) *Set { return &Set{in: NewGroups(in), opts: o} }

// Set is a series.Set of deduplicated series.
type Set struct {
	in    *Groups
	opts  Options
	dedup deduplicator
	at    *series.Series
	err   error

	floats []chunkcodec.Samples
}

// Next goes on to the next series.
func (s *Set) Next() bool {
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
func (s *Set) chunks(g *Group) ([]series.Chunk, error) {
	if s.opts.Func != Penalty || slices.ContainsFunc(kinds(g.replicas), func(k kind) bool { return k.aggregate }) {
		return s.dedup.chunks(g, s.opts)
	}
	var out []series.Chunk
	parts := g.overlapping()
	for _, part := range parts {
		chunks, err := s.dedup.chunks(&part, s.opts)
		if err != nil {
			return nil, err
		}
		out = append(out, chunks...)
	}
	if len(parts) > 1 {
		s.dedup.runs = nil // of the last part alone
	}
	return out, nil
}

// At is the current series.
func (s *Set) At() *series.Series { return s.at }

// Floats are the samples of the current series in order, if they are floats that deduplication had to look at anyway, else
// there are none. They stay valid until Next, and nobody writes to them.
func (s *Set) Floats() []chunkcodec.Samples {
	s.floats = s.dedup.floats(s.floats[:0])
	return s.floats
}

// Err is the error that ended the iteration early.
func (s *Set) Err() error {
	if s.err != nil {
		return s.err
	}
	return s.in.Err()
}

// Warnings are those of the set that this one was made of.
func (s *Set) Warnings() annotations.Annotations { return s.in.Warnings() }
