package blockindex

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
)

const (
	// firstGroup is how many bytes of postings are read first when the first few may
	// do; each further group may be four times as large.
	firstGroup = 64 << 10
	// sample is how many series are asked for their label names before postings are.
	sample = 128
)

// HasLabel reports whether any series has the label.
func (x *Index) HasLabel(ctx context.Context, name string) (bool, error) {
	_, ok, err := x.label(ctx, name)
	return ok, err
}

// Any reports whether any series is selected.
func (x *Index) Any(ctx context.Context, matchers ...*labels.Matcher) (bool, error) {
	s, err := x.Select(ctx, matchers...)
	if err != nil || len(s.Rest) == 0 {
		return len(s.Refs) > 0, err
	}
	r := x.Series(s)
	_, _, ok := r.next(ctx)
	return ok, r.err
}

// LabelValues calls fn for the values that a label has in the selected series, in any
// order, and for some of them again. Of more than limit, if that is above zero, at least
// the first are among them. The values are valid until fn returns, whose error ends the call.
func (x *Index) LabelValues(ctx context.Context, name string, limit int, fn func(value string) error, matchers ...*labels.Matcher) error {
	l, ok, err := x.label(ctx, name)
	if err != nil || !ok {
		return err
	}
	left := int64(limit)
	if limit <= 0 {
		left = l.values
	}
	take := func(value string) (more bool, err error) {
		left--
		return left > 0, fn(value)
	}
	if len(matchers) == 0 {
		return x.eachValue(ctx, l, "", func(value string, _ extent) (bool, error) { return take(value) })
	}
	s, err := x.Select(ctx, matchers...)
	if err != nil || len(s.Refs) == 0 {
		return err
	}
	if len(s.Rest) > 0 || int64(len(s.Refs))*x.entryBytes() < l.posts {
		return valuesFromSeries(ctx, x.Series(s), name, fn)
	}
	return x.meeting(ctx, l, x.bitsOf(s), take)
}

func valuesFromSeries(ctx context.Context, r *SeriesReader, name string, fn func(value string) error) error {
	for {
		if _, _, ok := r.next(ctx); !ok {
			return r.err
		}
		value, _, err := r.value(ctx, name)
		if err == nil && value != "" {
			err = fn(value)
		}
		if err != nil {
			return err
		}
	}
}

// perList is about what a list of postings takes besides its bytes, with its value.
const perList = 128

// meeting calls fn for the values of a label whose postings have a series of the
// set, in order, until it returns false.
func (x *Index) meeting(ctx context.Context, l label, set *refSet, fn func(value string) (more bool, err error)) error {
	var names []string
	var lists []wanted
	bytes, group, more := int64(0), int64(firstGroup), true
	met := map[string]bool{}
	read := func() error {
		if err := x.readLists(ctx, lists); err != nil {
			return err
		}
		for _, v := range names {
			if !met[v] || !more {
				continue
			}
			var err error
			if more, err = fn(v); err != nil {
				return err
			}
		}
		names, lists, bytes, group = nil, nil, 0, min(4*group, maxGroup)
		clear(met)
		return nil
	}
	err := x.eachValue(ctx, l, "", func(value string, at extent) (bool, error) {
		value = strings.Clone(value)
		names = append(names, value)
		lists = append(lists, wanted{at, func(refs []byte) error {
			if set.meets(refs) {
				met[value] = true
			}
			return nil
		}})
		if bytes += at.size + perList; bytes < group {
			return true, nil
		}
		err := read()
		return more, err
	})
	if err == nil && more {
		err = read()
	}
	return err
}

// bitsOf is the set of the selected series as bits.
func (x *Index) bitsOf(s Selection) *refSet {
	set := x.newRefSet()
	set.useBits()
	for _, ref := range s.Refs {
		set.bits[ref/64] |= 1 << (ref % 64)
	}
	return set
}

// LabelNames returns the sorted names of the labels of the selected series.
func (x *Index) LabelNames(ctx context.Context, matchers ...*labels.Matcher) ([]string, error) {
	if len(matchers) == 0 {
		var names []string
		err := x.eachLabel(ctx, func(name string, _ label) (bool, error) {
			names = append(names, strings.Clone(name))
			return true, nil
		})
		return names, err
	}
	s, err := x.Select(ctx, matchers...)
	if err != nil || len(s.Refs) == 0 {
		return nil, err
	}
	found := map[string]struct{}{}
	if len(s.Rest) == 0 && len(s.Refs) > sample {
		// A few series have nearly all names. For the others, postings may be cheaper
		// than the entries of all series.
		some := Selection{Refs: s.Refs[:sample]}
		if err := x.namesFromSeries(ctx, x.Series(some), found); err != nil {
			return nil, err
		}
		done, err := x.namesFromPostings(ctx, s, found)
		if err != nil || done {
			return slices.Sorted(maps.Keys(found)), err
		}
	}
	err = x.namesFromSeries(ctx, x.Series(s), found)
	return slices.Sorted(maps.Keys(found)), err
}

func (x *Index) namesFromSeries(ctx context.Context, r *SeriesReader, found map[string]struct{}) error {
	for {
		if _, _, ok := r.next(ctx); !ok {
			return r.err
		}
		for i := 0; i < len(r.pairs); i += 2 {
			name, err := r.text(ctx, i)
			if err != nil {
				return err
			}
			note(found, name)
		}
	}
}

// note adds a text to a set, as one of its own.
func note(found map[string]struct{}, text string) {
	if _, ok := found[text]; !ok {
		found[strings.Clone(text)] = struct{}{}
	}
}

// namesFromPostings adds the label names whose postings have a selected series,
// unless reading the series is cheaper.
func (x *Index) namesFromPostings(ctx context.Context, s Selection, found map[string]struct{}) (done bool, err error) {
	open := map[string]label{}
	posts := int64(0)
	err = x.eachLabel(ctx, func(name string, l label) (bool, error) {
		if _, ok := found[name]; !ok {
			open[strings.Clone(name)] = l
			posts += l.posts
		}
		return true, nil
	})
	if err != nil || posts > int64(len(s.Refs))*x.entryBytes() {
		return false, err
	}
	set := x.bitsOf(s)
	for name, l := range open {
		err := x.meeting(ctx, l, set, func(string) (bool, error) {
			found[name] = struct{}{}
			return false, nil
		})
		if err != nil {
			return false, fmt.Errorf("postings of label %s: %w", name, err)
		}
	}
	return true, nil
}
