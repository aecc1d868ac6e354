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

// sample is some series of the block in which most match.
type sample struct {
	mu       sync.Mutex
	index    *blockindex.Index
	selected blockindex.Selection
	of       int
}

// sampled is how many series are looked at to say what would cut an answer.
const sampled = 64

// sample notes what a block selects.
func (r *request) sample(index *blockindex.Index, selected blockindex.Selection) {
	s, n := &r.sampled, len(selected.Refs)
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
func (r *request) advise(err error) error {
	const patience = 5 * time.Second
	ctx, cancel := context.WithTimeout(unlimited(r.ctx), patience)
	defer cancel()
	s := &r.sampled
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.index == nil {
		return err
	}
	var some []labels.Labels
	reader := s.index.Series(s.selected)
	for e := (blockindex.Entry{}); reader.Next(ctx, math.MinInt64, math.MaxInt64, &e); {
		some = append(some, e.Labels)
	}
	if cuts := cuttingLabels(some, r.Matchers); len(cuts) > 0 {
		return fmt.Errorf("%w; what would cut it most: a matcher on %s", err, strings.Join(cuts, ", "))
	}
	return err
}

// cuttingLabels are the labels by one value of which least is left of some series, as texts.
func cuttingLabels(some []labels.Labels, matchers []*labels.Matcher) (texts []string) {
	const most, worth = 3, 0.7
	counts := map[string]map[string]int{}
	for _, ls := range some {
		ls.Range(func(l labels.Label) {
			if counts[l.Name] == nil {
				counts[l.Name] = map[string]int{}
			}
			counts[l.Name][l.Value]++
		})
	}
	type cut struct {
		name string
		left float64 // the share of the series that has the value of one of them
	}
	var cuts []cut
	for name, values := range counts {
		left, n := 0.0, float64(len(some))
		for _, k := range values {
			left += float64(k) / n * float64(k) / n
		}
		given := slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return m.Name == name && m.Type == labels.MatchEqual })
		if left < worth && !given {
			cuts = append(cuts, cut{name, left})
		}
	}
	slices.SortFunc(cuts, func(a, b cut) int { return cmp.Or(cmp.Compare(a.left, b.left), strings.Compare(a.name, b.name)) })
	for _, c := range cuts[:min(len(cuts), most)] {
		texts = append(texts, fmt.Sprintf("%s (leaves about 1 series in %.0f)", c.name, 1/c.left))
	}
	return texts
}
