package series

import (
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"
)

// Final gives a stored series the labels under which it is served: external
// labels are added and win over equal names (one with an empty value counts as
// absent), then the replica labels named by without are taken out and become
// the replica.
//
// The replica holds one value for each name, in the order of the names, empty
// for a name that the series does not carry, joined by ReplicaSep; it is
// empty when the series carries none of them. The order of without does not matter.
//
// Applied to series that are sorted by lset, the results may be out of order; see Sort.
func Final(lset, external labels.Labels, without []string) (labels.Labels, string) {
	b := labels.NewBuilder(lset)
	external.Range(func(l labels.Label) {
		if l.Value != "" {
			b.Set(l.Name, l.Value)
		}
	})
	if len(without) == 0 {
		return b.Labels(), ""
	}
	names := without
	if !slices.IsSorted(names) {
		names = slices.Sorted(slices.Values(without))
	}
	names = slices.Compact(slices.Clone(names))

	values := make([]string, len(names))
	carried := false
	for i, name := range names {
		values[i] = b.Get(name)
		carried = carried || values[i] != ""
	}
	if !carried {
		return b.Labels(), ""
	}
	return b.Del(names...).Labels(), strings.Join(values, ReplicaSep)
}

// Sort puts a set whose labels were changed back in order, by Compare; series
// that compare equal keep their order. It reads the whole set at the first
// Next and holds it, so it is for sets that the caller keeps within a budget:
// the series of one block or one store, chunk bytes aliased. A set that is in
// order costs one comparison a series.
func Sort(set Set) Set { return &sorted{in: set} }

type sorted struct {
	in  Set
	all *sliceSet
}

func (s *sorted) Next() bool {
	if s.all == nil {
		all, _, err := Collect(s.in)
		byLabels := func(a, b Series) int { return Compare(&a, &b) }
		if !slices.IsSortedFunc(all, byLabels) {
			slices.SortStableFunc(all, byLabels)
		}
		s.all = &sliceSet{series: all, at: -1, err: err}
	}
	// What a broken set held is in order, too, but not complete: others would miss what sorts before it.
	return s.all.err == nil && s.all.Next()
}

func (s *sorted) At() *Series                       { return s.all.At() }
func (s *sorted) Err() error                        { return s.in.Err() }
func (s *sorted) Warnings() annotations.Annotations { return s.in.Warnings() }
