package blockindex

import "bytes"

// piece is a string in a longer run of bytes: size bytes from at on, of which the first
// shared are those of the piece before it. It has no pointer, so that many of them are
// nothing to the garbage collector.
type piece struct{ at, size, shared uint32 }

// sortedLists are lists of strings, each sorted, that become one: the values of each label,
// and the names.
type sortedLists struct {
	bytes []byte // in which all strings lie
	names []piece
	all   []piece // one list behind the other
	rest  []span  // what is left of each list in all
	out   []piece // all of them in order
}

// span is a part of sortedLists.all.
type span struct{ begin, end int }

// reset begins with the empty string as the only name, and forgets all others. The strings
// that follow lie in b.
func (l *sortedLists) reset(b []byte) {
	l.bytes, l.names, l.all, l.rest, l.out = b, append(l.names[:0], piece{}), l.all[:0], l.rest[:0], l.out[:0]
}

// add adds a value that was cut out of bytes, and begins like the one before with so many bytes.
func (l *sortedLists) add(value []byte, shared int) {
	l.all = append(l.all, l.piece(value, shared))
}

// addName is add for a name.
func (l *sortedLists) addName(name []byte, shared int) {
	l.names = append(l.names, l.piece(name, shared))
}

// piece is where a string is that was cut out of bytes: like them, it could be extended to
// where the memory that they lie in ends.
func (l *sortedLists) piece(text []byte, shared int) piece {
	return piece{uint32(cap(l.bytes) - cap(text)), uint32(len(text)), uint32(shared)}
}

// end ends a list of values.
func (l *sortedLists) end() {
	begin := 0
	if n := len(l.rest); n > 0 {
		begin = l.rest[n-1].end
	}
	l.rest = append(l.rest, span{begin, len(l.all)})
}

// text is the string of a piece.
func (l *sortedLists) text(p piece) []byte { return l.bytes[p.at : p.at+p.size] }

// merge returns all strings as one sorted list without repetition. It takes runs: of the list
// with the smallest string, all that are not above the smallest of any other list.
// rest is a heap meanwhile.
func (l *sortedLists) merge() []piece {
	l.all = append(l.all, l.names...)
	l.end()
	for i := len(l.rest) / 2; i >= 0; i-- {
		l.down(i)
	}
	for len(l.rest) > 1 {
		next := 1
		if len(l.rest) > 2 && l.below(2, 1) {
			next = 2
		}
		first := &l.rest[0]
		first.begin += l.takeRun(l.all[first.begin:first.end], l.text(l.all[l.rest[next].begin]))
		if first.begin == first.end {
			*first = l.rest[len(l.rest)-1]
			l.rest = l.rest[:len(l.rest)-1]
		}
		l.down(0)
	}
	last := l.rest[0]
	l.take(l.all[last.begin:last.end])
	return l.out
}

// takeRun moves the strings of a list that are not above most to out, and returns their number.
// One that is like the one before it even where that differed from most needs no look, and
// nearly all are. Guarded by BenchmarkBuild.
func (l *sortedLists) takeRun(list []piece, most []byte) (n int) {
	differs := 0 // where the one before differs from most
	for ; n < len(list); n++ {
		if n > 0 && int(list[n].shared) > differs {
			continue
		}
		text := l.text(list[n])
		if bytes.Compare(text, most) > 0 {
			break
		}
		differs = sharedPrefix(text, most)
	}
	l.take(list[:n])
	return n
}

// take appends strings that follow one another to out, the first only if it is not there.
func (l *sortedLists) take(run []piece) {
	if n := len(l.out); n > 0 {
		first, last := run[0], l.out[n-1]
		first.shared = uint32(sharedPrefix(l.text(first), l.text(last)))
		if run = run[1:]; first.shared < first.size {
			l.out = append(l.out, first)
		}
	}
	l.out = append(l.out, run...)
}

// below reports whether the i-th list begins with a smaller string than the j-th.
func (l *sortedLists) below(i, j int) bool {
	return bytes.Compare(l.text(l.all[l.rest[i].begin]), l.text(l.all[l.rest[j].begin])) < 0
}

// down moves the i-th list down the heap to its place.
func (l *sortedLists) down(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= min(2*i+2, len(l.rest)-1); child++ {
			if l.below(child, least) {
				least = child
			}
		}
		if least == i {
			return
		}
		l.rest[i], l.rest[least] = l.rest[least], l.rest[i]
		i = least
	}
}
