package series

import "github.com/prometheus/prometheus/util/annotations"

type sliceSet struct {
	series   []Series
	at       int
	warnings annotations.Annotations
	err      error
}

// NewSet returns a set over series that are sorted already.
func NewSet(series []Series, warnings annotations.Annotations) Set {
	return &sliceSet{series: series, at: -1, warnings: warnings}
}

// EmptySet returns a set without series.
func EmptySet() Set { return &sliceSet{at: -1} }

// ErrSet returns a set that only has an error.
func ErrSet(err error) Set { return &sliceSet{at: -1, err: err} }

func (s *sliceSet) Next() bool {
	if s.at+1 >= len(s.series) {
		return false
	}
	s.at++
	return true
}

func (s *sliceSet) At() *Series                       { return &s.series[s.at] }
func (s *sliceSet) Err() error                        { return s.err }
func (s *sliceSet) Warnings() annotations.Annotations { return s.warnings }

// Collect drains a set into a slice.
func Collect(set Set) ([]Series, annotations.Annotations, error) {
	var out []Series
	for set.Next() {
		out = append(out, *set.At())
	}
	return out, set.Warnings(), set.Err()
}
