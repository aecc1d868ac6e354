package blockindex

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/index"
)

// valueGroup is a run of neighbours in the postings offset table: up to 32
// entries of one label name, beginning with value.
type valueGroup struct {
	value      string
	begin, end int64
}

// readValues remembers every 32nd entry of each label name. In version 1 the
// table is in no order, and each entry is remembered.
func (x *Index) readValues(ctx context.Context, off uint64) error {
	sect, err := sectionAt(ctx, x.src, off)
	if err != nil {
		return err
	}
	var name, value []byte // of the entry before
	inGroup := 0
	s := scan(ctx, x.src, sect)
	for range s.be32() {
		begin := s.pos()
		if keys := s.uvarint(); s.err == nil && keys != 2 {
			return corruptf("postings offset entry at %d has %d keys", begin, keys)
		}
		nextName := s.text()
		sameName := bytes.Equal(name, nextName)
		name = append(name[:0], nextName...)
		nextValue := s.text()
		rises := sameName && bytes.Compare(value, nextValue) < 0
		value = append(value[:0], nextValue...)
		if s.uvarint(); s.err != nil {
			break
		}
		groups := x.values[string(name)]
		if x.version != index.FormatV1 && !rises && len(groups) > 0 {
			return corruptf("postings offset entry at %d is out of order", begin)
		}
		if inGroup++; !sameName || inGroup > every || len(groups) == 0 || x.version == index.FormatV1 {
			inGroup = 1
			groups = append(groups, valueGroup{value: string(value), begin: begin})
			x.values[string(name)] = groups
		}
		groups[len(groups)-1].end = s.pos()
	}
	if err := s.finish(); err != nil {
		return err
	}
	if x.version == index.FormatV1 {
		for _, groups := range x.values {
			slices.SortFunc(groups, func(a, b valueGroup) int { return strings.Compare(a.value, b.value) })
		}
	}
	return nil
}

// maxListing is how many bytes of the offset table are read at once.
const maxListing = 256 << 10

// eachValue calls fn for the entries of groups, in order, until it returns false.
func (x *Index) eachValue(ctx context.Context, groups []valueGroup, fn func(value []byte, postings uint64) (bool, error)) error {
	for len(groups) > 0 {
		n := 1
		for n < len(groups) && groups[n].begin == groups[n-1].end && groups[n].end-groups[0].begin <= maxListing {
			n++
		}
		b := make([]byte, groups[n-1].end-groups[0].begin)
		if err := x.src.ReadAt(ctx, b, groups[0].begin); err != nil {
			return err
		}
		for d := (decoder{b: b}); len(d.b) > 0; {
			d.uvarint() // number of keys
			d.text()    // name
			value, off := d.text(), d.uvarint()
			if d.bad {
				return corruptf("postings offsets at %d", groups[0].begin)
			}
			if more, err := fn(value, off); err != nil || !more {
				return err
			}
		}
		groups = groups[n:]
	}
	return nil
}

// LabelValues returns the sorted values of one label, at most limit if that is
// above zero.
func (x *Index) LabelValues(ctx context.Context, name string, limit int) ([]string, error) {
	if name == "" {
		return nil, nil
	}
	var values []string
	err := x.eachValue(ctx, x.values[name], func(value []byte, _ uint64) (bool, error) {
		values = append(values, string(value))
		return limit <= 0 || len(values) < limit, nil
	})
	if err != nil {
		return nil, fmt.Errorf("list values of label %s: %w", name, err)
	}
	return values, nil
}

// Select returns references to the series that all matchers accept, in the order
// of their labels.
func (x *Index) Select(ctx context.Context, matchers ...*labels.Matcher) ([]storage.SeriesRef, error) {
	var in, out []index.Postings
	for _, m := range matchers {
		// A matcher that accepts "" accepts series without the label: it takes away
		// what it does not accept. Any other keeps only what it accepts.
		takesAway := m.Matches("")
		list, err := x.valuesMatching(ctx, m, !takesAway)
		switch {
		case err != nil:
			return nil, fmt.Errorf("postings of {%s}: %w", m, err)
		case takesAway:
			out = append(out, list)
		case index.IsEmptyPostingsType(list):
			return nil, nil
		default:
			in = append(in, list)
		}
	}
	if len(in) == 0 {
		all, err := x.allSeries(ctx)
		if err != nil {
			return nil, fmt.Errorf("postings of all series: %w", err)
		}
		in = append(in, all)
	}
	selected := index.Intersect(in...)
	for _, list := range out {
		selected = index.Without(selected, list)
	}

	var refs []storage.SeriesRef
	for selected.Next() {
		ref := selected.At()
		if len(refs) > 0 && ref <= refs[len(refs)-1] {
			return nil, corruptf("postings are out of order")
		}
		if refs = append(refs, ref); len(refs)%4096 == 0 && ctx.Err() != nil {
			break
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("select series: %w", err)
	}
	return refs, selected.Err()
}

// valuesMatching returns the series with a label value that m accepts, or, if
// accepted is false, one that it does not accept.
func (x *Index) valuesMatching(ctx context.Context, m *labels.Matcher, accepted bool) (index.Postings, error) {
	regex := m.Type == labels.MatchRegexp || m.Type == labels.MatchNotRegexp
	positive := m.Type == labels.MatchEqual || m.Type == labels.MatchRegexp
	// wanted means: the series wanted are those whose value equals, or is matched by, m.Value.
	wanted := positive == accepted
	switch {
	case regex && m.Value == ".*" && !wanted:
		return index.EmptyPostings(), nil
	case !regex && wanted:
		return x.postings(ctx, m.Name, []string{m.Value})
	case regex && wanted && len(m.SetMatches()) > 0:
		return x.postings(ctx, m.Name, m.SetMatches())
	}
	return x.postingsWhere(ctx, m.Name, func(value string) bool { return m.Matches(value) == accepted })
}

// postings returns the series that have one of the values.
func (x *Index) postings(ctx context.Context, name string, values []string) (index.Postings, error) {
	groups := x.values[name]
	var lists []index.Postings
	values = slices.Compact(slices.Sorted(slices.Values(values)))
	for len(values) > 0 && name != "" {
		// The last group that begins at or before the first value, and the values it may hold.
		g := sort.Search(len(groups), func(i int) bool { return groups[i].value > values[0] }) - 1
		n := 1
		for ; n < len(values) && (g+1 >= len(groups) || values[n] < groups[g+1].value); n++ {
		}
		if g >= 0 {
			err := x.eachValue(ctx, groups[g:g+1], func(value []byte, off uint64) (bool, error) {
				if _, found := slices.BinarySearch(values[:n], string(value)); !found {
					return string(value) < values[n-1], nil
				}
				list, err := x.list(ctx, off)
				lists = append(lists, list)
				return true, err
			})
			if err != nil {
				return nil, err
			}
		}
		values = values[n:]
	}
	return index.Merge(ctx, lists...), nil
}

// postingsWhere returns the series whose value of the label is accepted.
func (x *Index) postingsWhere(ctx context.Context, name string, accept func(string) bool) (index.Postings, error) {
	if name == "" {
		return index.EmptyPostings(), nil
	}
	var lists []index.Postings
	err := x.eachValue(ctx, x.values[name], func(value []byte, off uint64) (bool, error) {
		if !accept(string(value)) {
			return true, nil
		}
		list, err := x.list(ctx, off)
		lists = append(lists, list)
		return true, err
	})
	if err != nil {
		return nil, err
	}
	return index.Merge(ctx, lists...), nil
}

// allSeries returns every series: the list that stands under the empty label.
func (x *Index) allSeries(ctx context.Context) (index.Postings, error) {
	all := index.EmptyPostings()
	err := x.eachValue(ctx, x.values[""], func(_ []byte, off uint64) (more bool, err error) {
		all, err = x.list(ctx, off)
		return false, err
	})
	return all, err
}

// list reads one list of postings.
func (x *Index) list(ctx context.Context, off uint64) (index.Postings, error) {
	sect, err := sectionAt(ctx, x.src, off)
	if err != nil {
		return nil, err
	}
	content, err := sect.read(ctx, x.src)
	if err != nil {
		return nil, err
	}
	_, list, err := index.DecodePostingsRaw(encoding.Decbuf{B: content})
	if err != nil {
		return nil, corruptf("postings at %d: %v", off, err)
	}
	return list, nil
}
