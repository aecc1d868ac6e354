package dedup

import (
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/varve-io/varve/pkg/series"
)

// NewSet makes one series, with an empty Replica, of neighbours that differ in
// nothing but Replica. The input is sorted by series.Compare, which puts
// replicas in the order that Chunks wants. A series that cannot be read ends the set.
func NewSet(in series.Set, o Options) series.Set { return &set{in: in, opts: o} }

type set struct {
	in     series.Set
	opts   Options
	dedup  deduplicator
	peeked *series.Series // the next series of in, which has other labels
	at     *series.Series
	err    error
}

func (s *set) Next() bool {
	if s.err != nil {
		return false
	}
	lset, replicas, ok := s.gather()
	if !ok {
		return false
	}
	chunks, err := s.dedup.chunks(replicas, s.opts)
	if err != nil {
		s.err = fmt.Errorf("series %s: %w", lset, err)
		return false
	}
	s.at = &series.Series{Labels: lset, Chunks: chunks}
	return true
}

// gather reads all series with the labels that come next. A replica that comes
// in several pieces stays one.
func (s *set) gather() (lset labels.Labels, replicas [][]series.Chunk, ok bool) {
	cur := s.peeked
	s.peeked = nil
	if cur == nil {
		if !s.in.Next() {
			return lset, nil, false
		}
		cur = s.in.At()
	}
	lset, replicas = cur.Labels, [][]series.Chunk{cur.Chunks}
	for last := cur.Replica; s.in.Next(); {
		next := s.in.At()
		if !labels.Equal(next.Labels, lset) {
			s.peeked = next
			break
		}
		if n := len(replicas) - 1; next.Replica == last {
			replicas[n] = append(slices.Clip(replicas[n]), next.Chunks...)
			continue
		}
		replicas, last = append(replicas, next.Chunks), next.Replica
	}
	// Where the input broke off, replicas of this series may be missing.
	return lset, replicas, s.in.Err() == nil
}

func (s *set) At() *series.Series { return s.at }

func (s *set) Err() error {
	if s.err != nil {
		return s.err
	}
	return s.in.Err()
}

func (s *set) Warnings() annotations.Annotations { return s.in.Warnings() }
