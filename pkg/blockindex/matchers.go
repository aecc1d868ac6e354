package blockindex

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
)

// Selection is what matchers select.
type Selection struct {
	// Refs name series in the order of their labels: all that are selected, and if
	// there is a Rest, more. They have 32 bits in every index.
	Refs []uint32
	// Rest are the matchers that are still to be applied to the labels of the series,
	// because their postings would cost more. SeriesReader does that.
	Rest []*labels.Matcher

	matchers []*labels.Matcher
}

// term is a matcher as a question to the postings.
type term struct {
	matcher *labels.Matcher
	label   label
	// away means that the series of the lists are taken away. A matcher that accepts
	// "" accepts series without the label: it takes away what it does not accept. Any
	// other keeps only what it accepts.
	away bool
	// known means that lists are known, or of every value at least posts and series.
	known  bool
	every  bool // every value of the label is meant
	lists  []extent
	posts  int64 // bytes of the lists
	series int64 // in them at most
}

// Select returns the series that all matchers accept.
func (x *Index) Select(ctx context.Context, matchers ...*labels.Matcher) (Selection, error) {
	p, err := x.Plan(ctx, matchers...)
	if err != nil {
		return Selection{}, err
	}
	return p.Select(ctx)
}

// Select returns the series that all matchers accept. It is called once.
func (p *Plan) Select(ctx context.Context) (Selection, error) {
	if p.nothing {
		return Selection{}, nil
	}
	s := Selection{matchers: p.matchers}
	terms, rest, err := p.index.choose(ctx, p.terms)
	if err == nil {
		s.Rest = rest
		s.Refs, err = p.index.expand(ctx, terms)
	}
	switch {
	case errors.Is(err, errNothing):
		return Selection{}, nil
	case err != nil:
		return Selection{}, err
	}
	return s, nil
}

// errNothing says that no series can match.
var errNothing = errors.New("nothing matches")

// terms asks the page directory what matchers mean.
func (x *Index) terms(ctx context.Context, matchers []*labels.Matcher) (terms []*term, err error) {
	for _, m := range matchers {
		away := m.Matches("")
		switch {
		case m.Type == labels.MatchRegexp && m.Value == ".*":
			continue
		case m.Type == labels.MatchNotRegexp && m.Value == ".*":
			return nil, errNothing
		}
		l, ok, err := x.label(ctx, m.Name)
		switch {
		case err != nil:
			return nil, fmt.Errorf("look label %s up: %w", m.Name, err)
		case !ok && away:
			continue
		case !ok:
			return nil, errNothing
		}
		t := &term{matcher: m, label: l, away: away}
		if err := x.resolve(ctx, t); err != nil {
			return nil, fmt.Errorf("look {%s} up: %w", m, err)
		}
		terms = append(terms, t)
	}
	return terms, nil
}

// resolve finds what can be known of a term without looking at all values of its label.
func (x *Index) resolve(ctx context.Context, t *term) error {
	m := t.matcher
	regex := m.Type == labels.MatchRegexp || m.Type == labels.MatchNotRegexp
	positive := m.Type == labels.MatchEqual || m.Type == labels.MatchRegexp
	// The lists are those of the values that equal, or match, what the matcher says.
	named := positive != t.away
	switch {
	case regex && named && len(m.SetMatches()) > 0:
		return x.find(ctx, t, m.SetMatches())
	case !regex && named:
		return x.find(ctx, t, []string{m.Value})
	case !regex && m.Value == "", regex && m.Value == ".+":
		t.known, t.every = true, true
		t.posts = t.label.posts
		t.series = min(t.posts/4, x.dir.all.count())
	}
	return nil
}

// find looks the lists of some values up.
func (x *Index) find(ctx context.Context, t *term, values []string) error {
	t.known = true
	for _, v := range slices.Compact(slices.Sorted(slices.Values(values))) {
		at, ok, err := x.postings(ctx, t.label, v)
		if err != nil {
			return err
		}
		if ok {
			t.add(at)
		}
	}
	return nil
}

// turn is after how many values others may go first: some expressions take long for each, there
// may be hundreds who look at some, and who needs little has to wait for them.
const turn = 16

// scan looks at all values of the label that the matcher may mean.
func (x *Index) scan(ctx context.Context, t *term) error {
	prefix := ""
	if t.matcher.Type == labels.MatchRegexp && !t.away || t.matcher.Type == labels.MatchNotRegexp && t.away {
		prefix = t.matcher.Prefix()
	}
	every, looked := t.every, 0
	t.known, t.every, t.lists, t.posts, t.series = true, false, nil, 0, 0
	return x.eachValue(ctx, t.label, prefix, func(value string, at extent) (bool, error) {
		if !strings.HasPrefix(value, prefix) {
			return false, nil
		}
		if looked++; looked%turn == 0 {
			runtime.Gosched()
		}
		if every || t.matcher.Matches(value) != t.away {
			t.add(at)
		}
		return true, nil
	})
}

func (t *term) add(at extent) {
	t.lists = append(t.lists, at)
	t.posts += at.size
	t.series += at.count()
}

// What else takes time, in bytes that could be read meanwhile.
const (
	// valueCost is that of looking at a value of a label.
	valueCost = 16
	// rangeCost is that of one more range to read. It is well below the distance that
	// makes two ranges two requests.
	rangeCost = 64 << 10
)

// choose divides terms into those whose postings are read and the rest: matchers
// for which it is cheaper to read the entries of all series that the others leave.
func (x *Index) choose(ctx context.Context, terms []*term) (expand []*term, rest []*labels.Matcher, err error) {
	slices.SortStableFunc(terms, func(a, b *term) int {
		return cmp.Or(rank(a)-rank(b), cmp.Compare(a.series, b.series), cmp.Compare(a.label.values, b.label.values))
	})
	candidates := x.dir.all.count()
	for _, t := range terms {
		entries := candidates * max(x.entryBytes(), 1)
		if len(expand) > 0 {
			entries -= rangeCost
		}
		if !t.known {
			if t.label.values*valueCost > entries {
				rest = append(rest, t.matcher)
				continue
			}
			if err := x.scan(ctx, t); err != nil {
				return nil, nil, fmt.Errorf("look {%s} up: %w", t.matcher, err)
			}
		}
		switch {
		case t.posts == 0 && t.away:
			continue
		case t.posts == 0:
			return nil, nil, errNothing
		case t.posts > entries && len(expand) > 0:
			rest = append(rest, t.matcher)
			continue
		}
		expand = append(expand, t)
		if !t.away {
			candidates = min(candidates, t.series)
		}
	}
	return expand, rest, nil
}

// rank orders terms by how early they should be looked at: what is known before
// what is not, what keeps before what takes away.
func rank(t *term) int {
	switch {
	case t.known && !t.away:
		return 0
	case t.known:
		return 1
	case !t.away:
		return 2
	}
	return 3
}

// expand reads the postings of terms and returns the series that they leave.
func (x *Index) expand(ctx context.Context, terms []*term) ([]uint32, error) {
	var lists []wanted
	sets := make([]*refSet, len(terms))
	keeps := false
	for i, t := range terms {
		if t.every {
			if err := x.scan(ctx, t); err != nil {
				return nil, fmt.Errorf("look {%s} up: %w", t.matcher, err)
			}
		}
		sets[i] = x.newRefSet()
		for _, l := range t.lists {
			lists = append(lists, wanted{l, sets[i].add})
		}
		keeps = keeps || !t.away
	}
	all := x.newRefSet()
	if !keeps && x.dir.all.size > 0 {
		lists = append(lists, wanted{x.dir.all, all.add})
	}
	if err := x.readLists(ctx, lists); err != nil {
		return nil, err
	}

	var refs []uint32
	base := slices.IndexFunc(terms, func(t *term) bool { return !t.away })
	for _, s := range sets {
		s.settle()
	}
	if base < 0 {
		refs = all.expand()
	} else {
		refs = sets[base].expand()
	}
	for i, s := range sets {
		if i != base {
			has := s.has()
			refs = slices.DeleteFunc(refs, func(ref uint32) bool { return has(ref) == terms[i].away })
		}
	}
	return refs, ctx.Err()
}
