package storeapi

import (
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// MatchExternal tests the matchers that name one of the external labels and
// returns the others, which the data must satisfy. It returns false when one of
// the former contradicts, so that nothing can match. An external label with an
// empty value counts as absent.
func MatchExternal(external labels.Labels, matchers []*labels.Matcher) (rest []*labels.Matcher, ok bool) {
	for _, m := range matchers {
		value := external.Get(m.Name)
		switch {
		case value == "":
			rest = append(rest, m)
		case !m.Matches(value):
			return nil, false
		}
	}
	return rest, true
}

// Keeps reports whether the series with the final labels lset is of the shard. A nil
// shard keeps all. The hash is xxhash64 over name, 0xff, value, 0xff of each label
// that counts, in the order of the labels.
func (s *Shard) Keeps(lset labels.Labels) bool {
	if s == nil || s.Total < 1 {
		return true
	}
	var stack [512]byte
	b := stack[:0]
	lset.Range(func(l labels.Label) {
		if slices.Contains(s.Labels, l.Name) == s.By {
			b = append(append(append(append(b, l.Name...), 0xff), l.Value...), 0xff)
		}
	})
	return xxhash.Sum64(b)%uint64(s.Total) == uint64(s.Index)
}
