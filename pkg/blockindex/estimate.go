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
	// Finding is about the most memory that it takes to find them, and Memory that for their
	// label names, or the values of a label, as well.
	Finding, Memory int64
	// Postings are the bytes of the lists that each matcher may need, at most.
	Postings []int64
}

// Estimate says what matchers may cost.
func (x *Index) Estimate(ctx context.Context, matchers ...*labels.Matcher) (Estimate, error) {
	p, err := x.Plan(ctx, matchers...)
	return p.Estimate, err
}

// Plan is a question to an index, with what is known of the answer before it is looked for.
type Plan struct {
	Estimate

	index    *Index
	matchers []*labels.Matcher
	terms    []*term
	nothing  bool // can match
}

// Plan looks matchers up in the page directory.
func (x *Index) Plan(ctx context.Context, matchers ...*labels.Matcher) (Plan, error) {
	p := Plan{index: x, matchers: matchers}
	p.Series, p.Postings = x.dir.all.count(), make([]int64, len(matchers))
	if len(matchers) == 0 { // their labels are known without finding them
		p.Finding = p.Series*4 + x.dir.all.size
		return p, nil
	}
	var err error
	p.terms, err = x.terms(ctx, matchers)
	switch {
	case errors.Is(err, errNothing):
		p.Series, p.nothing = 0, true
	case err != nil:
		return p, err
	default:
		p.reckon()
	}
	return p, nil
}

// reckon makes the estimate.
func (p *Plan) reckon() {
	x, e := p.index, &p.Estimate
	bits := int64(x.maxRef()) / 8
	lists, longest, keeps := int64(0), int64(0), false
	for _, t := range p.terms {
		most := t.label.posts
		if t.known {
			most = t.posts
		}
		if t.known && !t.away {
			e.Series = min(e.Series, t.series)
		}
		e.Postings[slices.Index(p.matchers, t.matcher)] = most
		lists += most
		keeps = keeps || !t.away
		for _, l := range t.lists {
			longest = max(longest, l.size)
		}
		e.Finding += min(bits, most)
		if !t.known || t.every {
			e.Finding += t.label.values * perList
		}
	}
	if !keeps {
		lists, longest = lists+x.dir.all.size, max(longest, x.dir.all.size)
	}
	e.Finding += e.Series * 4
	// At a time there is a group of lists, or a window of series entries with what was found in them.
	group, entries := max(min(lists, maxGroup), longest), min(e.Series*(x.entryBytes()+perReady), 2*MaxWindow)
	e.Memory = e.Finding + min(bits, e.Series*x.entryBytes()) + max(entries, group, min(e.Series*x.entryBytes(), maxGroup))
	e.Finding += group
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
