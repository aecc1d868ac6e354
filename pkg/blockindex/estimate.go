package blockindex

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
)

// Estimate is what the page directory tells of matchers, without anything of the index
// being read.
type Estimate struct {
	// Series are selected at most.
	Series int64
	// Memory is about the most that it takes to find them, and then their label names or
	// the values of a label.
	Memory int64
	// Postings are the bytes of the lists that each matcher may need, at most.
	Postings []int64
}

// Estimate says what matchers may cost.
func (x *Index) Estimate(ctx context.Context, matchers ...*labels.Matcher) (Estimate, error) {
	e := Estimate{Series: x.dir.all.count(), Postings: make([]int64, len(matchers))}
	if len(matchers) == 0 {
		return e, nil
	}
	terms, err := x.terms(ctx, matchers)
	if errors.Is(err, errNothing) {
		return Estimate{Postings: e.Postings}, nil
	}
	if err != nil {
		return e, err
	}
	bits := int64(x.maxRef()) / 8
	lists := int64(0)
	for _, t := range terms {
		most := t.label.posts
		if t.known {
			most = t.posts
		}
		if t.known && !t.away {
			e.Series = min(e.Series, t.series)
		}
		e.Postings[slices.Index(matchers, t.matcher)] = most
		lists += most
		e.Memory += min(bits, most)
		if !t.known || t.every {
			e.Memory += t.label.values * perList
		}
	}
	// At a time there is a group of lists, or a window of series entries with what was found in them.
	entries := min(e.Series*(x.entryBytes()+perReady), 2*MaxWindow)
	e.Memory += e.Series*4 + min(bits, e.Series*x.entryBytes()) + max(entries, min(lists, maxGroup), min(e.Series*x.entryBytes(), maxGroup))
	return e, nil
}

// Selective is a label that most series have, and the share of them that has one of its
// values, on average.
type Selective struct {
	Name  string
	Share float64
}

// Selective returns the labels by one value of which least series are left, best first, at most n.
func (x *Index) Selective(ctx context.Context, n int) ([]Selective, error) {
	var all []Selective
	err := x.eachLabel(ctx, func(name string, l label) (bool, error) {
		if series := (l.posts - l.values*listOverhead) / 4; l.values > 1 && 2*series >= x.dir.all.count() {
			all = append(all, Selective{name, 1 / float64(l.values)})
			slices.SortStableFunc(all, func(a, b Selective) int { return cmp.Compare(a.Share, b.Share) })
			all = all[:min(len(all), n)]
		}
		return true, nil
	})
	for i := range all {
		all[i].Name = strings.Clone(all[i].Name) // it is a part of a page
	}
	return all, err
}

// Values is how many values a label has, and about how many bytes they have on average.
func (x *Index) Values(ctx context.Context, name string) (number, bytes int64, err error) {
	l, ok, err := x.label(ctx, name)
	if err != nil || !ok {
		return 0, 0, err
	}
	const few = 64
	n := int64(0)
	err = x.eachValue(ctx, l, "", func(value string, _ extent) (bool, error) {
		bytes += int64(len(value))
		n++
		return n < few, nil
	})
	return l.values, bytes / max(n, 1), err
}
