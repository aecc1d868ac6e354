package pagecache

import "slices"

const (
	// none ends a chain of records.
	none = -1
	// maxChain is how many records of one page are known; older ones are forgotten.
	maxChain = 16
)

// record is what memory knows of a record on disk: 40 bytes, and about 20 more in
// the map of heads.
type record struct {
	row
	segment uint32
	next    int32 // an older record of the same page, or the next free place
	uses    uint8
	live    bool
}

// diskIndex finds the records of a page. It is not safe for concurrent use.
type diskIndex struct {
	heads   map[uint64]int32 // the youngest record by key
	records []record
	free    int32 // the first place without a record
	live    int
}

func newDiskIndex() *diskIndex { return &diskIndex{heads: map[uint64]int32{}, free: none} }

// add makes a record known and returns its number.
func (x *diskIndex) add(r row, segment uint32) int32 {
	next, ok := x.heads[r.key]
	if !ok {
		next = none
	}
	i := x.free
	if i == none {
		i = int32(len(x.records))
		x.records = append(x.records, record{})
	} else {
		x.free = x.records[i].next
	}
	x.records[i] = record{row: r, segment: segment, next: next, live: true}
	x.heads[r.key] = i
	x.live++
	depth := 0
	for at := next; at != none; at = x.records[at].next {
		if depth++; depth == maxChain {
			x.remove(at)
			break
		}
	}
	return i
}

// remove forgets a record.
func (x *diskIndex) remove(i int32) {
	r := &x.records[i]
	if x.heads[r.key] == i {
		if r.next == none {
			delete(x.heads, r.key)
		} else {
			x.heads[r.key] = r.next
		}
	} else {
		at := x.heads[r.key]
		for x.records[at].next != i {
			at = x.records[at].next
		}
		x.records[at].next = r.next
	}
	*r = record{next: x.free}
	x.free = i
	x.live--
}

// find returns the numbers of the records of a page, the youngest first.
func (x *diskIndex) find(key uint64) (found []int32) {
	at, ok := x.heads[key]
	for ; ok && at != none; at = x.records[at].next {
		found = append(found, at)
	}
	return found
}

// is reports whether number i still stands for the record r.
func (x *diskIndex) is(i int32, r record) bool {
	now := x.records[i]
	return now.live && now.segment == r.segment && now.pos == r.pos
}

// of returns those of the numbers that stand for records of a segment, each once:
// a number may have been given up and given again.
func (x *diskIndex) of(segment uint32, numbers []int32) []int32 {
	live := slices.DeleteFunc(slices.Clone(numbers), func(i int32) bool {
		return !x.records[i].live || x.records[i].segment != segment
	})
	slices.Sort(live)
	return slices.Compact(live)
}
