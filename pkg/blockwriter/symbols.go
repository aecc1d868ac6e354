package blockwriter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"slices"

	"github.com/prometheus/prometheus/tsdb/index"
)

// symbols is the symbol table of an index: all strings of its labels, sorted and
// numbered in that order. Sorted numbers compare as their strings do.
//
// A string takes its bytes and about 16 more; nothing in here is a pointer that
// the garbage collector would have to follow.
type symbols struct {
	// text holds every string behind its length, in the form of the file.
	text []byte
	// starts are the positions of the strings in text.
	starts []uint32
	// slots is a hash table with open addressing: the number of a string plus one, zero where free.
	slots []uint32
	seed  maphash.Seed
}

// collect gathers the strings of all iterators.
func collect(iters []index.StringIter) (*symbols, error) {
	s := &symbols{seed: maphash.MakeSeed(), slots: make([]uint32, 1<<10)}
	for _, it := range iters {
		for it.Next() {
			if err := s.add(it.At()); err != nil {
				return nil, err
			}
		}
		if err := it.Err(); err != nil {
			return nil, fmt.Errorf("read symbols: %w", err)
		}
	}
	return s.sorted(), nil
}

// maxSymbols is the largest symbol table in bytes: its length has four of them,
// and counts the four of the number of strings.
const maxSymbols = math.MaxUint32 - 4

// errNoSymbol says that a label was not among the symbols given first.
var errNoSymbol = errors.New("it is not in the symbol table")

func (s *symbols) add(str string) error {
	slot := s.slot(str)
	if s.slots[slot] != 0 {
		return nil
	}
	if len(s.text)+uvarintLen(uint64(len(str)))+len(str) > maxSymbols {
		return fmt.Errorf("the symbols take more than %d bytes: %w", maxSymbols, ErrTooLarge)
	}
	s.slots[slot] = s.append(str)
	if s.len() > len(s.slots)/4*3 {
		s.rehash(2 * len(s.slots))
	}
	return nil
}

// append puts a string behind the others and returns its number plus one.
func (s *symbols) append(str string) uint32 {
	s.starts = append(s.starts, uint32(len(s.text)))
	s.text = binary.AppendUvarint(s.text, uint64(len(str)))
	s.text = append(s.text, str...)
	return uint32(len(s.starts))
}

func (s *symbols) len() int { return len(s.starts) }

// at is the n-th string.
func (s *symbols) at(n uint32) []byte {
	rest := s.text[s.starts[n]:]
	size, width := uint64(rest[0]), 1 // nearly all are shorter than 128 bytes
	if size >= 0x80 {
		size, width = binary.Uvarint(rest)
	}
	return rest[width : width+int(size)]
}

// is reports whether str is the n-th string.
func (s *symbols) is(n uint32, str string) bool { return string(s.at(n)) == str }

// number finds a string. Guarded by BenchmarkWriter.
func (s *symbols) number(str string) (uint32, error) {
	n := s.slots[s.slot(str)]
	if n == 0 {
		return 0, fmt.Errorf("symbol %q: %w", str, errNoSymbol)
	}
	return n - 1, nil
}

// slot is where the string is, or would go.
func (s *symbols) slot(str string) int {
	mask := len(s.slots) - 1
	for i := int(maphash.String(s.seed, str)) & mask; ; i = (i + 1) & mask {
		if n := s.slots[i]; n == 0 || s.is(n-1, str) {
			return i
		}
	}
}

// rehash fills a hash table of the given size, a power of two.
func (s *symbols) rehash(size int) {
	s.slots = make([]uint32, size)
	mask := size - 1
	for n := range uint32(s.len()) {
		i := int(maphash.Bytes(s.seed, s.at(n))) & mask
		for s.slots[i] != 0 {
			i = (i + 1) & mask
		}
		s.slots[i] = n + 1
	}
}

// sorted numbers the strings in their order.
func (s *symbols) sorted() *symbols {
	order := make([]uint32, s.len())
	for n := range order {
		order[n] = uint32(n)
	}
	byText := func(a, b uint32) int { return bytes.Compare(s.at(a), s.at(b)) }
	if slices.IsSortedFunc(order, byText) {
		return s
	}
	slices.SortFunc(order, byText)
	out := &symbols{seed: s.seed, text: make([]byte, 0, len(s.text)), starts: make([]uint32, 0, s.len())}
	for _, n := range order {
		out.starts = append(out.starts, uint32(len(out.text)))
		at := s.at(n)
		out.text = binary.AppendUvarint(out.text, uint64(len(at)))
		out.text = append(out.text, at...)
	}
	out.rehash(len(s.slots))
	return out
}
