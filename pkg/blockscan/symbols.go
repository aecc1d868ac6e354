package blockscan

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// symbolTable holds the strings that labels are made of, by their numbers in the index.
type symbolTable struct {
	strings []string // sorted, if the table is in order
	// numbers are those of the strings, in the same order; nil means that they are positions.
	numbers []uint32
}

// at returns the string of a number.
func (t *symbolTable) at(number uint64) (s string, ok bool) {
	if t.numbers != nil {
		i, found := slices.BinarySearchFunc(t.numbers, number, func(n uint32, want uint64) int { return cmp.Compare(uint64(n), want) })
		if !found {
			return "", false
		}
		number = uint64(i)
	}
	if number >= uint64(len(t.strings)) {
		return "", false
	}
	return t.strings[number], true
}

// number returns the number of a string.
func (t *symbolTable) number(s string) (n uint32, ok bool) {
	i, ok := slices.BinarySearch(t.strings, s)
	if ok && t.numbers != nil {
		return t.numbers[i], true
	}
	return uint32(i), ok
}

// readSymbols reads the table of all strings at an offset, or learns it from the postings
// where it is broken, and returns where it ends.
func (x *indexFile) readSymbols(at int, found func(Kind, int, string, ...any)) (end int, ok bool) {
	end, kind, problem := x.decodeSymbols(at)
	if problem == "" {
		return end, true
	}
	symbols, err := x.relearnSymbols()
	if err != nil {
		found(kind, at, "symbol table: %s; without it no series can be read, and it cannot be learnt from the postings: %s", problem, err)
		return 0, false
	}
	found(kind, at, "symbol table: %s; names and values of labels are taken from the table of postings", problem)
	x.symbols = symbols
	return int(x.toc.Series), true
}

func (x *indexFile) decodeSymbols(at int) (end int, kind Kind, problem string) {
	content, end, problem := section(x.data, at)
	switch {
	case problem != "" && content == nil:
		return 0, Truncated, problem
	case problem != "":
		return 0, Checksum, problem
	}
	d := decoder{b: content}
	n := d.be32()
	for i := range n {
		s := d.text()
		if d.bad {
			x.symbols = symbolTable{}
			return 0, Malformed, fmt.Sprintf("it ends after %d of %d strings", i, n)
		}
		x.symbols.strings = append(x.symbols.strings, s)
	}
	return end, "", ""
}

// relearnSymbols finds out which numbers stand for which strings. Each string that a series uses is in a label of
// the table of postings. Numbers rise as strings do, so the i-th number in use is that of the i-th string in use.
// The table counts only if each label has, by numbers, the same series in their entries and in its postings.
func (x *indexFile) relearnSymbols() (symbols symbolTable, err error) {
	if x.toc == nil || x.toc.Series < headerSize || x.toc.Series > uint64(len(x.data)) {
		return symbols, errors.New("the table of contents does not say where series and postings are")
	}
	series := *x // begin and end where the table of contents says
	series.limitSeries(int(x.toc.Series), func(Kind, int, string, ...any) {})
	entries, refs := series.labels()
	numbers := map[uint32]struct{}{}
	for p := range entries {
		numbers[p.name], numbers[p.value] = struct{}{}, struct{}{}
	}
	lists, err := x.lists(refs)
	if err != nil {
		return symbols, err
	}
	strings := map[string]struct{}{}
	for l := range lists {
		strings[l[0]], strings[l[1]] = struct{}{}, struct{}{}
	}
	if len(strings) != len(numbers) {
		return symbols, fmt.Errorf("series have %d strings, postings have %d", len(numbers), len(strings))
	}
	symbols = symbolTable{slices.Sorted(maps.Keys(strings)), slices.Sorted(maps.Keys(numbers))}
	for l, got := range lists {
		name, _ := symbols.number(l[0])
		value, _ := symbols.number(l[1])
		p := pair{name, value}
		if entries[p] != got {
			return symbols, fmt.Errorf("label %s=%q has other series in its postings than by the entries of series", l[0], l[1])
		}
		delete(entries, p)
	}
	if len(entries) > 0 {
		return symbols, fmt.Errorf("%d labels of series have no postings", len(entries))
	}
	return symbols, nil
}

// labels gives, by the numbers of each label, the series whose entries have it, and all series that can be read, in rising order.
func (x *indexFile) labels() (map[pair]print, []uint32) {
	t := tables{want: map[pair]print{}}
	var refs []uint32
	for at := x.start; at < x.end; {
		content, next, problem := readEntry(x.data[:x.end], at)
		if problem != "" {
			at += seriesAlign
			continue
		}
		if wellFormed(content) {
			t.series(at, content)
			refs = append(refs, uint32(at/seriesAlign))
		}
		at = next
	}
	return t.want, refs
}

// wellFormed reports whether all labels of an entry are there.
func wellFormed(content []byte) bool {
	d := decoder{b: content}
	for n := 2 * d.uvarint(); n > 0 && !d.bad; n-- {
		d.uvarint()
	}
	return !d.bad
}

// lists gives by label which of the series the postings name. Labels that only other series have are left out.
func (x *indexFile) lists(series []uint32) (map[[2]string]print, error) {
	all := map[[2]string]print{}
	var wrong error
	_, _, problem := x.eachList(func(_ int, label [2]string, offset uint64) {
		if label == [2]string{} {
			return
		}
		got, problem := readPostings(x.data, int(min(offset, uint64(len(x.data)))), func(ref uint32) bool {
			_, ok := slices.BinarySearch(series, ref)
			return ok
		})
		if problem != "" && wrong == nil {
			wrong = fmt.Errorf("postings of %s=%q: %s", label[0], label[1], problem)
		}
		if got.n > 0 {
			all[label] = got
		}
	})
	if problem != "" {
		return nil, fmt.Errorf("table of postings: %s", problem)
	}
	return all, wrong
}
