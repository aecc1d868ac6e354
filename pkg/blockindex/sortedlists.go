package blockindex

import (
	"bytes"
	"slices"
)

// sortedLists are lists of strings, each sorted, that become one: the values of each label,
// and the names.
type sortedLists struct {
	names [][]byte
	all   [][]byte // one list behind the other
	ends  []int    // of each list in all
	other [][]byte // as large as all, for merging
}

// reset begins with the empty string as the only name, and forgets all others.
func (l *sortedLists) reset() {
	clear(l.names[:cap(l.names)])
	clear(l.all[:cap(l.all)])
	clear(l.other[:cap(l.other)])
	l.names, l.all, l.ends = append(l.names[:0], []byte{}), l.all[:0], l.ends[:0]
}

// end ends a list of values.
func (l *sortedLists) end() { l.ends = append(l.ends, len(l.all)) }

// merge returns all strings as one sorted list without repetition.
func (l *sortedLists) merge() [][]byte {
	l.all = append(l.all, l.names...)
	l.end()
	for len(l.ends) > 1 {
		out, ends, begin := slices.Grow(l.other[:0], len(l.all)), l.ends[:0], 0
		for i := 0; i < len(l.ends); i += 2 {
			middle := l.ends[i]
			end := l.ends[min(i+1, len(l.ends)-1)]
			out = mergeTwo(out, l.all[begin:middle], l.all[middle:end])
			ends, begin = append(ends, end), end
		}
		l.all, l.other, l.ends = out, l.all, ends
	}
	return slices.CompactFunc(l.all, bytes.Equal)
}

// mergeTwo appends two sorted lists to out as one.
func mergeTwo(out, a, b [][]byte) [][]byte {
	for len(a) > 0 && len(b) > 0 {
		if bytes.Compare(a[0], b[0]) <= 0 {
			out, a = append(out, a[0]), a[1:]
		} else {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return append(append(out, a...), b...)
}
