package blockindex

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"slices"
	"unsafe"
)

// errDirectory marks a page directory whose bytes contradict its format. It is
// made again; nobody outside sees this error.
var errDirectory = errors.New("damaged page directory")

const (
	// pageBytes is the encoded length at which a page is full.
	pageBytes = 4 << 10
	// From borderBytes on one key of borderKeys ends a page, by its checksum. So the pages of two
	// indexes that differ in a few strings begin and end alike again soon behind these.
	borderBytes = 3 << 10
	borderKeys  = 16
	// pageKeys is the length of all keys together at which a page is full: keys that
	// begin alike are short on disk and long in memory.
	pageKeys = 16 << 10
)

// page is a run of entries of a tree: sorted keys, with a few numbers each.
type page struct {
	*texts           // the keys
	numbers []uint64 // columns of them for each key; nil if they follow one another
	first   uint64   // number, in that case
	columns int
}

func (p *page) number(i, column int) uint64 {
	if p.numbers == nil {
		return p.first + uint64(i)
	}
	return p.numbers[i*p.columns+column]
}

// own is about what the page takes besides its texts.
func (p *page) own() int64 { return int64(unsafe.Sizeof(*p)) + int64(8*cap(p.numbers)) }

// memory is about what the page takes if it shares its texts with no other.
func (p *page) memory() int64 { return p.own() + p.texts.memory() }

// pageBuilder encodes entries into a page: the number of entries and of columns,
// then each key as the length of what it shares with the key before and the rest,
// then its numbers as differences to those before.
type pageBuilder struct {
	columns  int
	body     []byte // room for the two numbers in front, then entries
	count    int
	keyBytes int
	border   bool   // the last key ends a page
	first    []byte // key
	firstNum uint64 // its first number
	last     []byte // key
	numbers  []uint64
}

// pageFront is the most that the two numbers in front of a page take.
const pageFront = 2 * binary.MaxVarintLen64

func newPageBuilder(columns int) *pageBuilder {
	return &pageBuilder{columns: columns, numbers: make([]uint64, columns), body: make([]byte, pageFront, pageFront+pageBytes+pageBytes/8)}
}

func (b *pageBuilder) add(key []byte, numbers ...uint64) {
	b.addShared(sharedPrefix(key, b.last), key, numbers...)
	b.last = append(b.last[:0], key...)
}

// addShared is add for a caller that knows how many bytes the key shares with the one before.
// A builder gets all its entries by one of the two. Guarded by BenchmarkBuild.
func (b *pageBuilder) addShared(shared int, key []byte, numbers ...uint64) {
	if b.count == 0 {
		shared = 0
		b.first, b.firstNum = append(b.first[:0], key...), numbers[0]
	}
	body, rest := b.body, key[shared:]
	if shared < 0x80 && len(rest) < 0x80 { // the common case
		body = append(body, byte(shared), byte(len(rest)))
	} else {
		body = binary.AppendUvarint(body, uint64(shared))
		body = binary.AppendUvarint(body, uint64(len(rest)))
	}
	body = append(body, rest...)
	for i, n := range numbers {
		body = binary.AppendVarint(body, int64(n-b.numbers[i]))
		b.numbers[i] = n
	}
	b.body = body
	b.border = len(body) >= pageFront+borderBytes && checksum(key)%borderKeys == 0
	b.keyBytes += len(key)
	b.count++
}

// sharedPrefix is the number of bytes with which both begin.
func sharedPrefix(a, b []byte) (n int) {
	most := min(len(a), len(b))
	for ; n+8 <= most; n += 8 {
		if x := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(b[n:]); x != 0 {
			return n + bits.TrailingZeros64(x)/8
		}
	}
	for n < most && a[n] == b[n] {
		n++
	}
	return n
}

func (b *pageBuilder) full() bool {
	return b.border || len(b.body) >= pageFront+pageBytes || b.keyBytes >= pageKeys
}

// finish returns the page, checksum included, and empties the builder. The page is valid
// until the next entry comes.
func (b *pageBuilder) finish() []byte {
	var room [pageFront]byte
	front := binary.AppendUvarint(room[:0], uint64(b.count))
	front = binary.AppendUvarint(front, uint64(b.columns))
	out := b.body[pageFront-len(front):]
	copy(out, front)
	out = binary.BigEndian.AppendUint32(out, checksum(out))
	b.body, b.count, b.keyBytes, b.border, b.last = b.body[:pageFront], 0, 0, false, b.last[:0]
	clear(b.numbers)
	return out
}

// pageScratch is memory that reading a page takes.
type pageScratch struct {
	page, keys []byte
	ends       []uint32
	numbers    []uint64
}

// decode is the reverse of pageBuilder. The page has the texts that find returns of its keys.
func (s *pageScratch) decode(find func(keys []byte, ends []uint32) *texts) (*page, error) {
	b := s.page
	if len(b) < 4 || checksum(b[:len(b)-4]) != binary.BigEndian.Uint32(b[len(b)-4:]) {
		return nil, errDirectory
	}
	d := decoder{b: b[:len(b)-4]}
	count, columns := d.uvarint(), d.uvarint()
	if d.bad || count > uint64(len(d.b)) || columns > maxColumns {
		return nil, errDirectory
	}
	most := uint64(2 * (len(b) + pageKeys)) // a builder makes no more
	keys, ends, numbers := s.keys[:0], s.ends[:0], s.numbers[:0]
	follow := columns == 1 && count > 0
	last := 0
	for range count {
		shared, rest := d.uvarint(), d.text()
		if d.bad || shared > uint64(len(keys)-last) || uint64(len(keys))+shared+uint64(len(rest)) > most {
			return nil, errDirectory
		}
		begin := len(keys)
		keys = append(keys, keys[last:last+int(shared)]...)
		keys = append(keys, rest...)
		last = begin
		ends = append(ends, uint32(len(keys)))
		for range columns {
			n := uint64(d.varint())
			if above := len(numbers) - int(columns); above >= 0 {
				n += numbers[above]
				follow = follow && n == numbers[above]+1
			}
			numbers = append(numbers, n)
		}
	}
	if d.bad || len(d.b) > 0 {
		return nil, errDirectory
	}
	s.keys, s.ends, s.numbers = keys, ends, numbers
	p := &page{texts: find(keys, ends), columns: int(columns)}
	if follow {
		p.first = numbers[0]
	} else {
		p.numbers = slices.Clone(numbers)
	}
	return p, nil
}
