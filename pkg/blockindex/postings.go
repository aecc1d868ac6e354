package blockindex

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"sort"
)

// maxGroup is how many bytes of postings are read at once, unless one list alone has more.
const maxGroup = 8 << 20

// wanted is a list of postings to read, and what takes its references.
type wanted struct {
	extent
	take func(refs []byte) error
}

// readLists reads lists of postings in groups, each at once, in the order in which
// they lie in the index.
func (x *Index) readLists(ctx context.Context, lists []wanted) error {
	slices.SortStableFunc(lists, func(a, b wanted) int { return cmp.Compare(a.off, b.off) })
	for len(lists) > 0 {
		n, bytes := 0, int64(0)
		for n < len(lists) && (n == 0 || bytes+lists[n].size <= maxGroup) {
			l := lists[n]
			if l.size < listOverhead || l.off < headerSize || l.off > x.dir.size-l.size {
				return corruptf("postings at %d with %d bytes", l.off, l.size)
			}
			bytes += l.size
			n++
		}
		if err := x.readGroup(ctx, lists[:n], make([]byte, bytes)); err != nil {
			return err
		}
		lists = lists[n:]
	}
	return nil
}

// readGroup reads lists into buf, which is as long as all of them.
func (x *Index) readGroup(ctx context.Context, lists []wanted, buf []byte) error {
	var ranges []Range
	at := int64(0)
	for i, l := range lists {
		// Lists that touch are one range.
		if n := len(ranges) - 1; i > 0 && lists[i-1].off+lists[i-1].size == l.off {
			ranges[n].Into = ranges[n].Into[:int64(len(ranges[n].Into))+l.size]
		} else {
			ranges = append(ranges, Range{l.off, buf[at : at+l.size]})
		}
		at += l.size
	}
	if err := x.src.Read(ctx, ranges...); err != nil {
		return fmt.Errorf("read postings: %w", err)
	}
	for _, l := range lists {
		refs, err := postingsOf(buf[:l.size])
		if err != nil {
			x.src.Forget(l.off, l.size)
			return fmt.Errorf("postings at %d: %w", l.off, err)
		}
		if err := l.take(refs); err != nil {
			return fmt.Errorf("postings at %d: %w", l.off, err)
		}
		buf = buf[l.size:]
	}
	return nil
}

// postingsOf returns the references of a list, four bytes each.
func postingsOf(b []byte) ([]byte, error) {
	length := uint64(binary.BigEndian.Uint32(b))
	if length < 4 || length+8 > uint64(len(b)) {
		return nil, corruptf("length %d in %d bytes", length, len(b))
	}
	content, sum := b[4:4+length], b[4+length:]
	if checksum(content) != binary.BigEndian.Uint32(sum) {
		return nil, corruptf("checksum")
	}
	refs := content[4:]
	if uint64(binary.BigEndian.Uint32(content))*4 != uint64(len(refs)) {
		return nil, corruptf("%d references in %d bytes", binary.BigEndian.Uint32(content), len(refs))
	}
	return refs, nil
}

// refSet is a set of series: few ones sorted, many as bits.
type refSet struct {
	most   uint32 // the largest reference that can be
	lists  int
	sorted []uint32 // of each list; of all of them after settle
	bits   []uint64
}

func (x *Index) newRefSet() *refSet { return &refSet{most: x.maxRef()} }

// add takes a list of postings, which must rise.
func (s *refSet) add(refs []byte) error {
	words := int(s.most)/64 + 1
	if s.bits == nil && 4*len(s.sorted)+len(refs) > 8*words && s.lists > 0 {
		s.useBits()
	}
	s.lists++
	if s.bits == nil {
		s.sorted = slices.Grow(s.sorted, len(refs)/4)
	}
	last, first := uint32(0), true
	for ; len(refs) >= 4; refs = refs[4:] {
		ref := binary.BigEndian.Uint32(refs)
		if ref > s.most || !first && ref <= last {
			return corruptf("reference %d follows %d, of at most %d", ref, last, s.most)
		}
		last, first = ref, false
		if s.bits != nil {
			s.bits[ref/64] |= 1 << (ref % 64)
			continue
		}
		s.sorted = append(s.sorted, ref)
	}
	return nil
}

func (s *refSet) useBits() {
	s.bits = make([]uint64, int(s.most)/64+1)
	for _, ref := range s.sorted {
		s.bits[ref/64] |= 1 << (ref % 64)
	}
	s.sorted = nil
}

// settle ends adding.
func (s *refSet) settle() {
	if s.lists > 1 && s.bits == nil {
		slices.Sort(s.sorted)
		s.sorted = slices.Compact(s.sorted)
	}
}

// expand returns the references in order.
func (s *refSet) expand() []uint32 {
	if s.bits == nil {
		return s.sorted
	}
	n := 0
	for _, w := range s.bits {
		n += bits.OnesCount64(w)
	}
	all := make([]uint32, 0, n)
	for i, w := range s.bits {
		for ; w != 0; w &= w - 1 {
			all = append(all, uint32(i*64+bits.TrailingZeros64(w)))
		}
	}
	return all
}

// has returns a function that tells whether a reference is in the set. It must be
// asked for references that rise.
func (s *refSet) has() func(ref uint32) bool {
	if s.bits != nil {
		return func(ref uint32) bool { return s.bits[ref/64]&(1<<(ref%64)) != 0 }
	}
	rest := s.sorted
	return func(ref uint32) bool {
		rest = skipBelow(rest, ref)
		return len(rest) > 0 && rest[0] == ref
	}
}

// skipBelow returns the part of sorted from ref on. It looks near the front first.
func skipBelow(sorted []uint32, ref uint32) []uint32 {
	n := 1
	for n < len(sorted) && sorted[n-1] < ref {
		sorted = sorted[n:]
		n *= 2
	}
	n = min(n, len(sorted))
	return sorted[sort.Search(n, func(i int) bool { return sorted[i] >= ref }):]
}

// meets reports whether a list of postings has a series of the set, which must hold bits.
func (s *refSet) meets(refs []byte) bool {
	for ; len(refs) >= 4; refs = refs[4:] {
		if ref := binary.BigEndian.Uint32(refs); ref <= s.most && s.bits[ref/64]&(1<<(ref%64)) != 0 {
			return true
		}
	}
	return false
}
