package blockindex_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/blockindex"
)

// sharer reads some of the series that others read as well.
type sharer struct {
	all    []testSeries
	added  labels.Labels
	reader *blockindex.SeriesReader
}

// sharers read indexes of which each lacks some series of the others, a few or long runs of them, and has
// other numbers for its symbols; the labels that are added replace some of the series' own. Two of three indexes
// have their page directories in common, which make pages with the same symbols one.
func sharers(t *testing.T, seed uint64, shared *blockindex.SharedLabels) []*sharer {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 7))
	all := randomSeries(2500, int64(seed))
	added := []labels.Labels{labels.EmptyLabels(), labels.FromStrings("few", "added", "zone", "x"), labels.FromStrings("few", "added", "zone", "y")}
	out := make([]*sharer, 6)
	common := directories(t, t.TempDir(), 1<<20)
	for i := range out {
		s := &sharer{added: added[i%len(added)]}
		lacks := 0
		for _, one := range all {
			switch {
			case lacks > 0:
				lacks--
				continue
			case len(one.chunks) == 0:
				continue
			case rnd.IntN(40) == 0:
				lacks = rnd.IntN(30)
			}
			s.all = append(s.all, one)
		}
		dirs := common
		if i%3 == 0 {
			dirs = directories(t, t.TempDir(), 1<<20)
		}
		x, _ := openIn(t, dirs, writeIndex(t, s.all, fmt.Sprintf("a symbol of index %d alone", i)))
		selected, err := x.Select(t.Context())
		check(t, err)
		s.reader = x.Series(selected)
		s.reader.Window(smallWindow)
		s.reader.Add(s.added)
		s.reader.Share(shared)
		out[i] = s
	}
	return out
}

// step reads the next series and compares it with the one that was written.
func (s *sharer) step(t *testing.T, e *blockindex.Entry) bool {
	t.Helper()
	more := next(t, s.reader, e)
	if !more {
		if s.reader.Err() != nil || len(s.all) > 0 {
			t.Errorf("%d series are missing (%v)", len(s.all), s.reader.Err())
		}
		return false
	}
	b := labels.NewBuilder(s.all[0].labels)
	s.added.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
	if want := b.Labels(); !labels.Equal(e.Labels, want) {
		t.Errorf("got %s, want %s", e.Labels, want)
	}
	s.all = s.all[1:]
	return true
}

func TestSharedLabelsAreThoseOfTheSeries(t *testing.T) {
	for seed := range uint64(4) {
		readers := sharers(t, seed, blockindex.NewSharedLabels())
		rnd := rand.New(rand.NewPCG(seed, 8))
		var e blockindex.Entry
		for len(readers) > 0 && !t.Failed() {
			i := rnd.IntN(len(readers))
			for range rnd.IntN(100) {
				if !readers[i].step(t, &e) {
					readers = append(readers[:i], readers[i+1:]...)
					break
				}
			}
		}
	}
}

func TestSharedLabelsMayBeReadSideBySide(t *testing.T) {
	var all sync.WaitGroup
	for _, s := range sharers(t, 9, blockindex.NewSharedLabels()) {
		all.Go(func() {
			var e blockindex.Entry
			for s.step(t, &e) && !t.Failed() {
			}
		})
	}
	all.Wait()
}

// TestTheSameSeriesOfSeveralIndexesTakesTheMemoryOfOne reads three indexes in step, whose symbols have other
// numbers. Long label sets are not kept.
func TestTheSameSeriesOfSeveralIndexesTakesTheMemoryOfOne(t *testing.T) {
	shared := blockindex.NewSharedLabels()
	all := randomSeries(500, 11)
	var readers []*blockindex.SeriesReader
	for i := range 3 {
		x, _ := open(t, writeIndex(t, all, strings.Repeat("0", i+1)))
		selected, err := x.Select(t.Context())
		check(t, err)
		r := x.Series(selected)
		r.Share(shared)
		readers = append(readers, r)
	}
	var e blockindex.Entry
	for {
		var first *byte
		for i, r := range readers {
			if !next(t, r, &e) {
				check(t, r.Err())
				return
			}
			if i == 0 {
				first = memoryOf(e.Labels)
			} else if long := e.Labels.ByteSize() > 2<<10; (memoryOf(e.Labels) != first) != long {
				t.Fatalf("%.200s of reader %d: long %t, in its own memory %t", e.Labels, i, long, !long)
			}
		}
	}
}

// memoryOf is where the first name of a label set lies.
func memoryOf(all labels.Labels) (at *byte) {
	all.Range(func(l labels.Label) {
		if at == nil {
			at = unsafe.StringData(l.Name)
		}
	})
	return at
}
