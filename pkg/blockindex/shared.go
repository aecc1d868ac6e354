package blockindex

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"
)

// SharedLabels keeps label sets that several readers came upon lately, so that a series
// which many blocks have takes the memory of one, and is told to be the same at a glance.
// It is safe for concurrent use.
//
// Blocks mostly have the same series, in the same order. So each label set says which one came
// after it, and a reader compares the texts of its next series with those, instead of making
// a label set that it would look up.
type SharedLabels struct {
	mu     sync.Mutex
	groups map[string]*sharedGroup

	count  atomic.Uint32
	sets   [sharedSets]atomic.Pointer[sharedSet] // by number: the last ones
	byHash [sharedHashes]atomic.Uint32           // numbers, by the hash of the labels
}

const (
	// sharedSets is how many label sets are kept: more than the series by which readers are ahead of
	// each other, where many are merged.
	sharedSets   = 2 << 10
	sharedHashes = 4 * sharedSets
	// sharedBytes is how long label sets are at most that are kept.
	sharedBytes = 2 << 10
	// sharedTries is how many of the label sets that came next are tried. A block
	// that lacks a series of others goes on with the one behind it.
	sharedTries = 4
)

// sharedGroup is the label sets to which the same labels were added.
type sharedGroup struct{ first atomic.Uint32 }

// sharedSet is a label set and what it was made of.
type sharedSet struct {
	number uint32
	next   atomic.Uint32 // the number of the set that came next; a guess
	group  *sharedGroup
	texts  []string      // the names and values of the series in turn, without what was added
	places []symbolPlace // of these, as far as the one who made it knew them
	labels labels.Labels
}

// NewSharedLabels returns an empty one.
func NewSharedLabels() *SharedLabels {
	return &SharedLabels{groups: map[string]*sharedGroup{}}
}

// set returns the set of a number, or another one, or nil.
func (s *SharedLabels) set(number uint32) *sharedSet { return s.sets[number%sharedSets].Load() }

// equal returns the set that has some labels, if it is kept, and where its number is to be found.
func (s *SharedLabels) equal(l labels.Labels) (*sharedSet, *atomic.Uint32) {
	at := &s.byHash[l.Hash()%sharedHashes]
	if kept := s.set(at.Load()); kept != nil && labels.Equal(kept.labels, l) {
		return kept, at
	}
	return nil, at
}

// sharing is where one reader is among shared labels.
type sharing struct {
	all     *SharedLabels
	group   *sharedGroup
	at      *sharedSet    // of the last series, or nil
	scratch labels.Labels // overwritten by each label set that is made
}

// next is where the number of the set is kept that came next.
func (s *sharing) next() *atomic.Uint32 {
	if s.at == nil {
		return &s.group.first
	}
	return &s.at.next
}

// Share makes labels that are the same in several indexes one. Add comes before.
func (r *SeriesReader) Share(s *SharedLabels) {
	if s == nil {
		return
	}
	added := labels.New(r.added...).String()
	s.mu.Lock()
	defer s.mu.Unlock()
	group := s.groups[added]
	if group == nil {
		group = &sharedGroup{}
		s.groups[added] = group
	}
	r.sharing = &sharing{all: s, group: group}
}

// sharedLabels returns the label set of pairs as it is kept. It keeps one that is not, unless that is long.
func (r *SeriesReader) sharedLabels(ctx context.Context) (labels.Labels, error) {
	s := r.sharing
	next := s.next()
	number := next.Load()
	for range sharedTries {
		guess := s.all.set(number)
		if guess == nil || guess.group != s.group {
			break
		}
		if ok, err := r.has(ctx, guess); err != nil {
			return labels.EmptyLabels(), err
		} else if ok {
			s.at = guess
			return guess.labels, nil
		}
		number = guess.next.Load()
	}
	if err := r.build(ctx); err != nil {
		return labels.EmptyLabels(), err
	}
	r.builder.Overwrite(&s.scratch)
	if s.scratch.ByteSize() > sharedBytes {
		return s.scratch.Copy(), nil
	}
	kept, byHash := s.all.equal(s.scratch)
	if kept == nil {
		kept = &sharedSet{number: s.all.count.Add(1), group: s.group, texts: r.ownTexts(), places: r.places(), labels: s.scratch.Copy()}
		kept.next.Store(next.Load())
		s.all.sets[kept.number%sharedSets].Store(kept)
		byHash.Store(kept.number)
	}
	next.Store(kept.number)
	s.at = kept
	return kept.labels, nil
}

// has reports whether the symbols of pairs are the texts of a set: by their places, else by a look at them.
// Those that the last series did not have it remembers in the memory of the set, so that most of the next
// series' are told to be the same at a glance. Guarded by BenchmarkShared.
func (r *SeriesReader) has(ctx context.Context, set *sharedSet) (bool, error) {
	if len(set.texts) != len(r.pairs) {
		return false, nil
	}
	for i, want := range slices.Backward(set.texts) { // neighbours differ in the last labels
		k, ref := r.last(i), r.pairs[i]
		if k.ref == ref && k.text != "" {
			if k.text != want {
				return false, nil
			}
			continue
		}
		p, err := r.heldPage(ctx, k, ref)
		if err != nil {
			return false, err
		}
		if p == nil || set.places[i] == (symbolPlace{}) || p.place(ref) != set.places[i] {
			if text, err := r.text(ctx, i); err != nil || text != want {
				return false, err
			}
		}
		k.knownSymbol = knownSymbol{ref, want}
	}
	return true, nil
}

// places are those of pairs, of which the texts were looked up.
func (r *SeriesReader) places() []symbolPlace {
	places := make([]symbolPlace, len(r.pairs))
	for i, ref := range r.pairs {
		if p := r.texts[i].page; p != nil && p.spans(ref) {
			places[i] = p.place(ref)
		}
	}
	return places
}

// ownTexts are the texts of pairs, in memory that is not a page's.
func (r *SeriesReader) ownTexts() []string {
	texts := make([]string, len(r.pairs))
	var last []string
	if r.sharing.at != nil {
		last = r.sharing.at.texts
	}
	for i := range texts {
		k := &r.texts[i]
		if i < len(last) && last[i] == k.text {
			k.text = last[i]
		} else {
			k.text = strings.Clone(k.text)
		}
		texts[i] = k.text
	}
	return texts
}
