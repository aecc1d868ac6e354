package blockwriter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"slices"
	"unsafe"

	"github.com/prometheus/prometheus/tsdb/index"
)

// Symbols are the strings that the labels of a block consist of. They are
// gathered before the first series is written, in any order, each counted once.
// Several writers may share them when all were added; none may be added while
// one is in use.
//
// A string takes its bytes and about 20 more; nothing in here is a pointer that
// the garbage collector would have to follow.
type Symbols struct {
	// text holds every string behind its length, in the form of the file.
	text []byte
	// starts are the positions of the strings in text, in the order in which they were added.
	starts []uint32
	// slots is a hash table with open addressing: the place of a string in starts plus one, zero where free.
	slots []uint32
	seed  maphash.Seed
	// ranked are the places of the strings in their order, ranks the ranks by
	// place. Series entries know a string by its rank, which compares as the string does.
	ranked, ranks []uint32
}

// NewSymbols returns an empty table.
func NewSymbols() *Symbols {
	return &Symbols{seed: maphash.MakeSeed(), slots: make([]uint32, 1<<10)}
}

// maxSymbols is the largest symbol table in bytes: its length has four of them,
// and counts the four of the number of strings.
const maxSymbols = math.MaxUint32 - 4

// errNoSymbol says that a label was not among the symbols given first.
var errNoSymbol = errors.New("it is not in the symbol table")

// Add adds a string, if it is not there yet, and returns its place.
func (s *Symbols) Add(str string) (uint32, error) {
	slot := s.slot(str)
	if n := s.slots[slot]; n != 0 {
		return n - 1, nil
	}
	if len(s.text)+uvarintLen(uint64(len(str)))+len(str) > maxSymbols {
		return 0, fmt.Errorf("the symbols take more than %d bytes: %w", maxSymbols, ErrTooLarge)
	}
	s.starts = append(s.starts, uint32(len(s.text)))
	s.text = binary.AppendUvarint(s.text, uint64(len(str)))
	s.text = append(s.text, str...)
	s.slots[slot] = uint32(s.Len())
	if s.Len() > len(s.slots)/4*3 {
		s.rehash(2 * len(s.slots))
	}
	return uint32(s.Len()) - 1, nil
}

// AddAll adds all strings of an iterator.
func (s *Symbols) AddAll(it index.StringIter) error {
	for it.Next() {
		if _, err := s.Add(it.At()); err != nil {
			return err
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read symbols: %w", err)
	}
	return nil
}

// Len is how many strings there are.
func (s *Symbols) Len() int { return len(s.starts) }

// At is the string at a place.
func (s *Symbols) At(place uint32) string {
	b := s.bytes(place)
	return unsafe.String(unsafe.SliceData(b), len(b)) // text is only ever appended to
}

func (s *Symbols) bytes(place uint32) []byte {
	rest := s.text[s.starts[place]:]
	size, width := uint64(rest[0]), 1 // nearly all are shorter than 128 bytes
	if size >= 0x80 {
		size, width = binary.Uvarint(rest)
	}
	return rest[width : width+int(size)]
}

// slot is where the string is, or would go.
func (s *Symbols) slot(str string) int {
	mask := len(s.slots) - 1
	for i := int(maphash.String(s.seed, str)) & mask; ; i = (i + 1) & mask {
		if n := s.slots[i]; n == 0 || string(s.bytes(n-1)) == str {
			return i
		}
	}
}

// rehash fills a hash table of the given size, a power of two.
func (s *Symbols) rehash(size int) {
	s.slots = make([]uint32, size)
	mask := size - 1
	for place := range uint32(s.Len()) {
		i := int(maphash.Bytes(s.seed, s.bytes(place))) & mask
		for s.slots[i] != 0 {
			i = (i + 1) & mask
		}
		s.slots[i] = place + 1
	}
}

// rank orders the strings, if that was not done since the last was added.
func (s *Symbols) rank() {
	if len(s.ranks) == s.Len() {
		return
	}
	s.ranked = make([]uint32, s.Len())
	for place := range s.ranked {
		s.ranked[place] = uint32(place)
	}
	slices.SortFunc(s.ranked, func(a, b uint32) int {
		return bytes.Compare(s.bytes(a), s.bytes(b))
	})
	s.ranks = make([]uint32, s.Len())
	for rank, place := range s.ranked {
		s.ranks[place] = uint32(rank)
	}
}

// rankOf finds the rank of a string. Guarded by BenchmarkWriter.
func (s *Symbols) rankOf(str string) (uint32, error) {
	n := s.slots[s.slot(str)]
	if n == 0 {
		return 0, fmt.Errorf("symbol %q: %w", str, errNoSymbol)
	}
	return s.ranks[n-1], nil
}

// ofRank is the string of a rank.
func (s *Symbols) ofRank(rank uint32) []byte { return s.bytes(s.ranked[rank]) }

// is reports whether str has the rank.
func (s *Symbols) is(rank uint32, str string) bool { return string(s.ofRank(rank)) == str }
