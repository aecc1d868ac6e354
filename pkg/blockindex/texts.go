package blockindex

import (
	"slices"
	"sync"
	"unsafe"
	"weak"

	"github.com/cespare/xxhash/v2"
)

// texts are the keys of a page. Pages that have the same keys share them, those of several
// indexes above all: blocks mostly have the same labels.
type texts struct {
	all  string   // one after the other
	ends []uint32 // of each in all
	hash uint64   // of all
	// self is equal for no others, also when these texts are gone. So a symbol is known by it and
	// by its place, without a look at the text.
	self  weak.Pointer[texts]
	pages int // that are kept and have them, as sharedTexts counts
}

func (t *texts) len() int { return len(t.ends) }

// key returns the i-th key, which shares the memory of the texts.
func (t *texts) key(i int) string {
	begin := uint32(0)
	if i > 0 {
		begin = t.ends[i-1]
	}
	return t.all[begin:t.ends[i]]
}

// memory is about what they take.
func (t *texts) memory() int64 {
	return int64(unsafe.Sizeof(*t)) + int64(len(t.all)+4*cap(t.ends))
}

// sharedTexts are the texts of the pages that are kept in memory. It is safe for concurrent use.
type sharedTexts struct {
	mu     sync.Mutex
	byHash map[uint64]*texts
}

func newSharedTexts() *sharedTexts { return &sharedTexts{byHash: map[uint64]*texts{}} }

// find returns the texts with these keys if a page that is kept has them, or makes new ones.
func (s *sharedTexts) find(all []byte, ends []uint32) *texts {
	hash := xxhash.Sum64(all)
	if k := s.kept(hash); k != nil && k.all == string(all) && slices.Equal(k.ends, ends) {
		return k
	}
	t := &texts{all: string(all), ends: slices.Clone(ends), hash: hash}
	t.self = weak.Make(t)
	return t
}

func (s *sharedTexts) kept(hash uint64) *texts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byHash[hash]
}

// take notes that one more page has t, and returns how much more memory that is.
func (s *sharedTexts) take(t *texts) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byHash[t.hash] == nil {
		s.byHash[t.hash] = t
	}
	if t.pages++; t.pages > 1 {
		return 0
	}
	return t.memory()
}

// drop is the reverse of take.
func (s *sharedTexts) drop(t *texts) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.pages--; t.pages > 0 {
		return 0
	}
	if s.byHash[t.hash] == t { // and not others with this hash
		delete(s.byHash, t.hash)
	}
	return t.memory()
}
