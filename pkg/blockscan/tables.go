package blockscan

import (
	"context"
	"fmt"

	"github.com/varve-io/varve/pkg/block"
)

// Verify reads the whole block: every file, series, chunk and sample, the postings
// against the series, and the counts of meta.json. The error is that of ctx.
func (b *Block) Verify(ctx context.Context, report func(Finding)) (Stats, error) {
	s := b.Scan(ctx, report)
	s.tables = &tables{want: map[pair]print{}}
	for s.Next() { // what is wrong is reported on the way
	}
	if s.err != nil {
		return s.stats, s.err
	}
	stats := s.Stats()
	// Where series cannot be read, postings cannot be compared with them.
	if stats.Symbols && s.index.toc != nil && stats.Gaps == 0 {
		s.tables.check(s.index, report)
	}
	want := b.meta.Stats
	if want.NumSeries != stats.NumSeries || want.NumChunks != stats.NumChunks || want.NumSamples != stats.NumSamples {
		report(Finding{Count, block.MetaFile, Whole, fmt.Sprintf("it counts %d series, %d chunks and %d samples; %d, %d and %d can be read",
			want.NumSeries, want.NumChunks, want.NumSamples, stats.NumSeries, stats.NumChunks, stats.NumSamples)})
	}
	return stats, nil
}

// pair is a label by the numbers of its symbols.
type pair struct{ name, value uint32 }

// print stands for a set of series: how many, and a sum over all that tells sets apart.
type print struct {
	n   uint64
	sum uint64
}

func (p print) with(ref uint32) print {
	// The finalizer of splitmix64: sums of its results collide by chance only.
	h := uint64(ref) + 0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return print{p.n + 1, p.sum + (h ^ h>>31)}
}

// tables compares postings with the series that were read: for each label the
// same set of series must stand in both.
type tables struct {
	want map[pair]print
	all  print
}

// series notes the labels of an entry that can be read.
func (t *tables) series(at int, content []byte) {
	ref := uint32(at / seriesAlign)
	t.all = t.all.with(ref)
	d := decoder{b: content}
	for range d.uvarint() {
		p := pair{uint32(d.uvarint()), uint32(d.uvarint())}
		t.want[p] = t.want[p].with(ref)
	}
}

// check reads the table of postings and every list.
func (t *tables) check(x *indexFile, report func(Finding)) {
	found := func(kind Kind, at int, format string, args ...any) {
		report(Finding{kind, block.IndexFile, int64(at), fmt.Sprintf(format, args...)})
	}
	kind, at, problem := x.eachList(func(entry int, label [2]string, offset uint64) { t.list(x, entry, label, offset, found) })
	if problem != "" {
		found(kind, at, "table of postings: %s", problem)
		return
	}
	for p, want := range t.want {
		name, _ := x.symbols.at(uint64(p.name))
		value, _ := x.symbols.at(uint64(p.value))
		found(Postings, at, "label %s=%q: no postings, but %d series have it", name, value, want.n)
	}
	if t.all.n > 0 {
		found(Postings, at, "no postings of all series")
	}
}

// eachList calls fn with every entry of the table of postings: its place, its label, which is empty for
// the list of all series, and where the list is. It returns what is wrong with the table, and where.
func (x *indexFile) eachList(fn func(entry int, label [2]string, offset uint64)) (kind Kind, at int, problem string) {
	at = int(min(x.toc.PostingsTable, uint64(len(x.data))))
	content, _, problem := section(x.data, at)
	if problem != "" {
		return Checksum, at, problem
	}
	d := decoder{b: content}
	for n := d.be32(); n > 0; n-- {
		entry := at + 4 + len(content) - len(d.b)
		keys := d.uvarint()
		name, value := d.text(), d.text()
		offset := d.uvarint()
		if d.bad || keys != 2 {
			return Malformed, entry, fmt.Sprintf("%d entries before its end cannot be read", n)
		}
		fn(entry, [2]string{name, value}, offset)
	}
	return "", at, ""
}

// list compares one list of postings with the series of its label. What was found is
// taken out of want.
func (t *tables) list(x *indexFile, entry int, label [2]string, offset uint64, found func(Kind, int, string, ...any)) {
	at := int(min(offset, uint64(len(x.data))))
	got, problem := readPostings(x.data, at, func(uint32) bool { return true })
	if problem != "" {
		found(Checksum, at, "postings of %s=%q: %s", label[0], label[1], problem)
	}
	var want print
	if label == [2]string{} {
		want, t.all = t.all, print{}
	} else {
		name, ok1 := x.symbols.number(label[0])
		value, ok2 := x.symbols.number(label[1])
		if !ok1 || !ok2 {
			found(Postings, entry, "label %s=%q is not among the symbols", label[0], label[1])
			return
		}
		p := pair{name, value}
		want = t.want[p]
		delete(t.want, p)
	}
	if problem == "" && got != want {
		found(Postings, at, "postings of %s=%q name %d series, %d have the label, or they are not the same", label[0], label[1], got.n, want.n)
	}
}

// readPostings reads the list at an offset and gives those of its series that are wanted.
func readPostings(data []byte, at int, wanted func(ref uint32) bool) (got print, problem string) {
	content, _, problem := section(data, at)
	if problem != "" {
		return got, problem
	}
	d := decoder{b: content}
	n := d.be32()
	var last uint32
	for i := range n {
		ref := d.be32()
		if d.bad {
			return got, fmt.Sprintf("it ends after %d of %d series", i, n)
		}
		if i > 0 && ref <= last {
			return got, fmt.Sprintf("series %d comes after %d", ref, last)
		}
		last = ref
		if wanted(ref) {
			got = got.with(ref)
		}
	}
	return got, ""
}
