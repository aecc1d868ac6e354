package blockwriter

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// postings gathers which series have which label. Labels are counted while the
// series come, so that in the end every list has its place before it is filled:
// nothing is sorted but the labels themselves.
type postings struct {
	limit  int64 // bytes of lists that are filled at a time
	pairs  []pair
	first  []uint32 // by the rank of a value: the latest of its pairs plus one
	log    seriesLog
	series uint32
}

// pair is a label, which has a name and a value.
type pair struct {
	name, value uint32 // ranks of symbols
	next        uint32 // another pair of this value, plus one; zero at the last
	series      uint32 // how many series have it
}

func newPostings(symbols int, o Options) postings {
	return postings{
		limit: o.Memory / 2,
		first: make([]uint32, symbols),
		log:   seriesLog{dir: o.TempDir, limit: o.Memory / 2},
	}
}

// pair numbers a label. The pairs of a value are a chain: nearly all
// values belong to one name.
func (p *postings) pair(name, value uint32) uint32 {
	for n := p.first[value]; n != 0; n = p.pairs[n-1].next {
		if p.pairs[n-1].name == name {
			return n - 1
		}
	}
	p.pairs = append(p.pairs, pair{name: name, value: value, next: p.first[value]})
	p.first[value] = uint32(len(p.pairs))
	return uint32(len(p.pairs)) - 1
}

// add takes a series of which the first shared labels are those of the series before.
func (p *postings) add(ref uint32, shared int, labels []label) error {
	p.series++
	for _, l := range labels {
		p.pairs[l.pair].series++
	}
	return p.log.add(ref, shared, labels)
}

// sorted are the numbers of all pairs by name, then value.
func (p *postings) sorted() []uint32 {
	order := make([]uint32, len(p.pairs))
	for n := range order {
		order[n] = uint32(n)
	}
	slices.SortFunc(order, func(a, b uint32) int {
		x, y := &p.pairs[a], &p.pairs[b]
		return cmp.Or(cmp.Compare(x.name, y.name), cmp.Compare(x.value, y.value))
	})
	return order
}

// A list is its length, the number of its series, their references and a checksum.
func listSize(series uint32) int64 { return 4 + 4 + 4*int64(series) + 4 }

// maxList is how many series a list can hold: its length has four bytes.
const maxList = (math.MaxUint32 - 4) / 4

// write writes the list of all series, then those of the pairs in the given order.
func (p *postings) write(s *stream, order []uint32) error {
	if p.series > maxList {
		return fmt.Errorf("%d series are more than a list of postings can hold: %w", p.series, ErrTooLarge)
	}
	beginList(s, p.series)
	err := p.log.walk(func(ref uint32, _ []uint32) { s.write32(ref) })
	if err != nil {
		return err
	}
	s.end()

	f := filler{postings: p, next: make([]uint32, len(p.pairs))}
	for n := range f.next {
		f.next[n] = absent
	}
	for len(order) > 0 && s.err == nil {
		n := p.batch(order)
		if n == 0 { // the first list alone is too large
			n, err = 1, p.stream(s, order[0])
		} else {
			err = f.lists(s, order[:n])
		}
		if err != nil {
			return err
		}
		order = order[n:]
	}
	return nil
}

// batch is how many of the lists fit into memory at a time.
func (p *postings) batch(order []uint32) int {
	left := p.limit / 4
	for n, x := range order {
		if left -= int64(p.pairs[x].series); left < 0 {
			return n
		}
	}
	return len(order)
}

func beginList(s *stream, series uint32) {
	s.write32(4 + 4*series)
	s.begin()
	s.write32(series)
}

// stream writes one list while it reads the log.
func (p *postings) stream(s *stream, x uint32) error {
	beginList(s, p.pairs[x].series)
	err := p.log.walk(func(ref uint32, pairs []uint32) {
		if slices.Contains(pairs, x) {
			s.write32(ref)
		}
	})
	s.end()
	return err
}

// absent is the place of pairs whose lists are not being filled.
const absent = math.MaxUint32

// filler fills several lists in one reading of the log. It keeps its memory from one time to the next.
type filler struct {
	*postings
	refs []uint32 // the lists, one behind the other
	next []uint32 // by pair: where its next reference goes
}

func (f *filler) lists(s *stream, order []uint32) error {
	total := uint32(0)
	for _, x := range order {
		f.next[x] = total
		total += f.pairs[x].series
	}
	if int(total) > cap(f.refs) {
		f.refs = make([]uint32, total)
	}
	refs := f.refs[:total]
	err := f.log.walk(func(ref uint32, pairs []uint32) {
		for _, x := range pairs {
			if at := f.next[x]; at != absent {
				refs[at] = ref
				f.next[x] = at + 1
			}
		}
	})
	if err != nil {
		return err
	}
	for _, x := range order {
		n := f.pairs[x].series
		beginList(s, n)
		for _, ref := range refs[:n] {
			s.write32(ref)
		}
		s.end()
		refs = refs[n:]
		f.next[x] = absent
	}
	return nil
}
