package store

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/blockindex"
)

// sample is what can be said of a request that is refused: some series of the block in which
// most match or, before any are known, the largest index that was looked at.
type sample struct {
	mu       sync.Mutex
	index    *blockindex.Index
	matchers []*labels.Matcher // of it
	selected blockindex.Selection
	of       int
}

const (
	// sampled is how many series are looked at to say what would cut an answer.
	sampled = 64
	// patience is how long one looks.
	patience = 5 * time.Second
	// worthCut is the part of the series that a label must leave at most to be named, and mostCuts how many are.
	worthCut = 0.7
	mostCuts = 3
)

// look notes an index in which series are to be found.
func (s *sample) look(index *blockindex.Index, matchers []*labels.Matcher) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == 0 && (s.index == nil || index.Size() > s.index.Size()) {
		s.index, s.matchers = index, matchers
	}
}

// take notes what a block selects.
func (s *sample) take(index *blockindex.Index, selected blockindex.Selection) {
	n := len(selected.Refs)
	s.mu.Lock()
	defer s.mu.Unlock()
	if n <= s.of {
		return
	}
	var some []uint32
	for i := range min(n, sampled) {
		some = append(some, selected.Refs[i*n/min(n, sampled)])
	}
	selected.Refs = some
	s.index, s.selected, s.of = index, selected, n
}

// advise adds to the error of a limit which matchers would cut the answer most.
func (s *sample) advise(ctx context.Context, err error, matchers []*labels.Matcher) error {
	ctx, cancel := context.WithTimeout(unlimited(ctx), patience)
	defer cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.index == nil {
		return err
	}
	if s.of == 0 {
		return s.adviseEarly(ctx, err, matchers)
	}
	var some []labels.Labels
	reader := s.index.Series(s.selected)
	for e := (blockindex.Entry{}); reader.Next(ctx, math.MinInt64, math.MaxInt64, &e); {
		some = append(some, e.Labels)
	}
	return nameCuts(err, cutsOf(some), matchers)
}

// adviseEarly is advise before series are known. The directory of the index tells which
// matcher has most to be read, and which labels leave least of all series.
func (s *sample) adviseEarly(ctx context.Context, err error, matchers []*labels.Matcher) error {
	if e, unknown := s.index.Estimate(ctx, s.matchers...); unknown == nil && len(e.Postings) > 0 {
		if most := slices.Max(e.Postings); most > 0 {
			err = fmt.Errorf("%w; %s has most to be looked through, %d bytes of a block", err, s.matchers[slices.Index(e.Postings, most)], most)
		}
	}
	all, _ := s.index.Selective(ctx, mostCuts+len(matchers)) // those that are known help, too
	var cuts []labelCut
	for _, l := range all {
		cuts = append(cuts, labelCut{l.Name, l.Share})
	}
	return nameCuts(err, cuts, matchers)
}

// given reports whether one value of a label is asked for already.
func given(matchers []*labels.Matcher, name string) bool {
	return slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return m.Name == name && m.Type == labels.MatchEqual })
}

// labelCut is a label and the share of series that is left by one value of it.
type labelCut struct {
	name string
	left float64
}

// cutsOf says of each label of some series what one of their values leaves of them.
func cutsOf(some []labels.Labels) (cuts []labelCut) {
	counts := map[string]map[string]int{}
	for _, ls := range some {
		ls.Range(func(l labels.Label) {
			if counts[l.Name] == nil {
				counts[l.Name] = map[string]int{}
			}
			counts[l.Name][l.Value]++
		})
	}
	for name, values := range counts {
		left, n := 0.0, float64(len(some))
		for _, k := range values {
			left += float64(k) / n * float64(k) / n
		}
		cuts = append(cuts, labelCut{name, left})
	}
	return cuts
}

// nameCuts adds to an error the labels that leave least, but for those of which one value is asked for already.
func nameCuts(err error, cuts []labelCut, matchers []*labels.Matcher) error {
	cuts = slices.DeleteFunc(cuts, func(c labelCut) bool { return c.left >= worthCut || given(matchers, c.name) })
	slices.SortFunc(cuts, func(a, b labelCut) int { return cmp.Or(cmp.Compare(a.left, b.left), strings.Compare(a.name, b.name)) })
	var texts []string
	for _, c := range cuts[:min(len(cuts), mostCuts)] {
		texts = append(texts, fmt.Sprintf("%s (leaves about 1 series in %.0f)", c.name, 1/c.left))
	}
	if len(texts) == 0 {
		return err
	}
	return fmt.Errorf("%w; what would cut it most: a matcher on %s", err, strings.Join(texts, ", "))
}
