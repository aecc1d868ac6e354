package blockindex

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"weak"
)

// symbolReader finds the symbols of series entries. It holds the pages of the directory
// on which they stand, as long as there is room for them; from then on it looks up what
// the next entries need all at once, page by page, and holds single symbols.
type symbolReader struct {
	x     *Index
	room  int64    // bytes of pages that may still be held
	pages []*page  // held, in the order of their symbols
	lasts []uint64 // the last symbol of each

	known []knownSymbol // of other pages, by the remainder of the reference
	batch []knownSymbol // that the last entries needed and known did not have, sorted
}

// knownSymbol is a symbol that was looked up; one without text is none.
type knownSymbol struct {
	ref  uint64
	text string
}

func (k knownSymbol) compare(o knownSymbol) int { return cmp.Compare(k.ref, o.ref) }

// symbolPlace is a key of texts. Two symbols that have the same one are the same text, of
// whatever indexes they are; zero is none.
type symbolPlace struct {
	texts weak.Pointer[texts]
	key   uint32
}

// page returns the page that spans a symbol if it is held, or can be; else nil.
func (s *symbolReader) page(ctx context.Context, ref uint64) (*page, error) {
	i, ok := s.find(ref)
	if ok {
		return s.pages[i], nil
	}
	if s.room <= 0 {
		return nil, nil
	}
	p, err := s.x.symbolLeaf(ctx, ref)
	if err != nil || !p.spans(ref) {
		return nil, err
	}
	s.pages = slices.Insert(s.pages, i, p)
	s.lasts = slices.Insert(s.lasts, i, p.number(p.len()-1, 0))
	s.room -= p.memory()
	return p, nil
}

// find says which page that is held spans a symbol, or would stand there.
func (s *symbolReader) find(ref uint64) (i int, ok bool) {
	i, _ = slices.BinarySearch(s.lasts, ref)
	return i, i < len(s.pages) && s.pages[i].spans(ref)
}

// lookUp brings the symbols of entries that are not held yet, in the order in which the
// page directory has them.
func (s *symbolReader) lookUp(ctx context.Context, entries []rawEntry, most int) error {
	if s.known == nil {
		s.known = make([]knownSymbol, max(most, 1))
	}
	s.batch = s.batch[:0]
	var pairs []uint64
	for i := range entries {
		d := decoder{b: entries[i].body}
		pairs = d.pairs(pairs[:0]) // of an entry that ends early those that are there; who takes it says so
		for _, ref := range pairs {
			k := s.at(ref)
			if _, held := s.find(ref); k.ref == ref || held { // it has the text, or the batch will
				continue
			}
			*k = knownSymbol{ref: ref}
			s.batch = append(s.batch, *k)
		}
	}
	slices.SortFunc(s.batch, knownSymbol.compare)
	s.batch = slices.CompactFunc(s.batch, func(a, b knownSymbol) bool { return a.ref == b.ref })
	var p *page
	for i := range s.batch {
		k := &s.batch[i]
		if p == nil || !p.spans(k.ref) {
			var err error
			if p, err = s.x.symbolLeaf(ctx, k.ref); err != nil {
				return err
			}
		}
		if !p.spans(k.ref) {
			continue // who takes the entry says so
		}
		if text, ok := p.symbol(k.ref); ok {
			k.text = strings.Clone(text)
			if known := s.at(k.ref); known.ref == k.ref {
				known.text = k.text
			}
		}
	}
	return nil
}

// at is where a symbol is remembered by itself.
func (s *symbolReader) at(ref uint64) *knownSymbol { return &s.known[ref%uint64(len(s.known))] }

// remembered returns a symbol that lookUp brought, or asks for it.
func (s *symbolReader) remembered(ctx context.Context, ref uint64) (string, error) {
	k := s.at(ref)
	if k.ref == ref && k.text != "" {
		return k.text, nil
	}
	if i, ok := slices.BinarySearchFunc(s.batch, knownSymbol{ref: ref}, knownSymbol.compare); ok && s.batch[i].text != "" {
		*k = s.batch[i]
		return k.text, nil
	}
	text, err := s.x.symbol(ctx, ref)
	if err != nil {
		return "", err
	}
	k.ref, k.text = ref, strings.Clone(text)
	return k.text, nil
}
