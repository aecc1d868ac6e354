package blockwriter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/varve-io/varve/pkg/block"
)

// seriesAlign is where series entries begin: at its multiples, so that references
// to them take four bytes up to 64 GiB.
const seriesAlign = 16

// indexWriter writes an index of format 2 from front to end: header, symbols,
// series, postings, the table of where they are, and the table of contents.
type indexWriter struct {
	*stream
	file     File
	symbols  *Symbols
	postings postings
	toc      index.TOC

	last, cur []label // of the series before, and of the one that is being added
	entry     []byte
	largest   int64 // size of the largest entry with its length and checksum
}

// label is a label of a series as ranks of its symbols and the number of their pair.
type label struct{ name, value, pair uint32 }

// chunkMeta is a chunk as its series' entry tells of it.
type chunkMeta struct {
	minTime, maxTime int64
	ref              uint64
}

func newIndexWriter(f File, syms *Symbols, o Options) *indexWriter {
	syms.rank()
	w := &indexWriter{stream: newStream(f), file: f, symbols: syms, postings: newPostings(syms.Len(), o)}
	w.write32(index.MagicIndex)
	w.writeByte(index.FormatV2)

	w.toc.Symbols = uint64(w.pos)
	w.write32(uint32(4 + len(syms.text)))
	w.begin()
	w.write32(uint32(syms.Len()))
	for _, place := range syms.ranked {
		b := syms.bytes(place)
		w.writeUvarint(uint64(len(b)))
		w.write(b)
	}
	w.end()
	w.toc.Series = uint64(w.pos)
	return w
}

// add writes a series.
func (w *indexWriter) add(lset labels.Labels, chunks []chunkMeta) error {
	shared, err := w.number(lset)
	if err != nil {
		return err
	}
	if err := checkTimes(chunks); err != nil {
		return err
	}
	w.pad(seriesAlign)
	ref := w.pos / seriesAlign
	if ref > math.MaxUint32 {
		return fmt.Errorf("the series of the index take more than 64 GiB: %w", ErrTooLarge)
	}
	w.encode(chunks)
	w.writeUvarint(uint64(len(w.entry)))
	w.begin()
	w.write(w.entry)
	w.end()
	w.largest = max(w.largest, w.pos-ref*seriesAlign)
	if w.err != nil {
		return w.err
	}
	if err := w.postings.add(uint32(ref), shared, w.cur); err != nil {
		return err
	}
	w.last, w.cur = w.cur, w.last
	return nil
}

var (
	errUnsorted = errors.New("its labels are not sorted by name")
	errOrder    = errors.New("it does not come after the series before")
)

// number leaves the labels in w.cur, and tells how many leading ones are those
// of the series before.
func (w *indexWriter) number(lset labels.Labels) (shared int, err error) {
	w.cur = w.cur[:0]
	lset.Range(func(l labels.Label) {
		if err == nil {
			err = w.label(l)
		}
	})
	if err != nil {
		return 0, err
	}
	for shared < min(len(w.cur), len(w.last)) && w.cur[shared] == w.last[shared] {
		shared++
	}
	switch {
	case shared == len(w.cur): // nothing at all, or no more than the one before
		return 0, errOrder
	case shared == len(w.last):
		return shared, nil
	}
	// Ranks compare as strings do.
	a, b := w.last[shared], w.cur[shared]
	if b.name < a.name || b.name == a.name && b.value < a.value {
		return 0, errOrder
	}
	return shared, nil
}

// label numbers the next label. Most are those of the series before, at the same
// place, which saves looking them up. Guarded by BenchmarkWriter.
func (w *indexWriter) label(l labels.Label) (err error) {
	var x label
	i := len(w.cur)
	same := false
	if i < len(w.last) && w.symbols.is(w.last[i].name, l.Name) {
		x = w.last[i]
		same = w.symbols.is(x.value, l.Value)
	} else if x.name, err = w.symbols.rankOf(l.Name); err != nil {
		return err
	}
	if !same {
		if x.value, err = w.symbols.rankOf(l.Value); err != nil {
			return err
		}
		x.pair = w.postings.pair(x.name, x.value)
	}
	if i > 0 && x.name <= w.cur[i-1].name {
		return errUnsorted
	}
	w.cur = append(w.cur, x)
	return nil
}

func checkTimes(chunks []chunkMeta) error {
	for i, c := range chunks {
		if c.maxTime < c.minTime {
			return fmt.Errorf("chunk ends at %d before it begins at %d", c.maxTime, c.minTime)
		}
		if i > 0 && c.minTime <= chunks[i-1].maxTime {
			return fmt.Errorf("chunk begins at %d before the one before ends at %d", c.minTime, chunks[i-1].maxTime)
		}
	}
	return nil
}

// encode leaves the entry of the series in w.cur in w.entry.
func (w *indexWriter) encode(chunks []chunkMeta) {
	b := binary.AppendUvarint(w.entry[:0], uint64(len(w.cur)))
	for _, l := range w.cur {
		b = binary.AppendUvarint(b, uint64(l.name))
		b = binary.AppendUvarint(b, uint64(l.value))
	}
	b = binary.AppendUvarint(b, uint64(len(chunks)))
	for i, c := range chunks {
		if i == 0 {
			b = binary.AppendVarint(b, c.minTime)
			b = binary.AppendUvarint(b, uint64(c.maxTime-c.minTime))
			b = binary.AppendUvarint(b, c.ref)
			continue
		}
		prev := chunks[i-1]
		b = binary.AppendUvarint(b, uint64(c.minTime-prev.maxTime))
		b = binary.AppendUvarint(b, uint64(c.maxTime-c.minTime))
		b = binary.AppendVarint(b, int64(c.ref)-int64(prev.ref))
	}
	w.entry = b
}

// close writes all that follows the series and completes the file.
func (w *indexWriter) close() error {
	w.toc.LabelIndices = uint64(w.pos) // a section that format 2 does without
	w.toc.Postings = uint64(w.pos)
	w.pad(4)
	first := w.pos
	order := w.postings.sorted()
	err := w.postings.write(w.stream, order)
	if err == nil {
		w.toc.LabelIndicesTable = uint64(w.pos)
		w.toc.PostingsTable = uint64(w.pos)
		err = w.table(order, first)
	}
	if err = errors.Join(err, w.postings.log.close()); err != nil {
		w.file.Abort()
		return fmt.Errorf("write %s: %w", block.IndexFile, err)
	}
	w.contents()
	return finish(block.IndexFile, w.stream, w.file)
}

// abort gives the file up.
func (w *indexWriter) abort() {
	w.file.Abort()
	_ = w.postings.log.close()
}

// table writes where the list of each pair is; the first is at first.
func (w *indexWriter) table(order []uint32, first int64) error {
	size := 0
	w.eachList(order, first, func(name, value []byte, off int64) {
		size += entrySize(name, value, off)
	})
	if size > math.MaxUint32-4 {
		return fmt.Errorf("the table of postings takes %d bytes: %w", size, ErrTooLarge)
	}
	w.write32(uint32(4 + size))
	w.begin()
	w.write32(uint32(len(order)) + 1)
	w.eachList(order, first, func(name, value []byte, off int64) {
		w.writeByte(2) // strings of the key
		w.writeUvarint(uint64(len(name)))
		w.write(name)
		w.writeUvarint(uint64(len(value)))
		w.write(value)
		w.writeUvarint(uint64(off))
	})
	w.end()
	return nil
}

func entrySize(name, value []byte, off int64) int {
	return 1 + uvarintLen(uint64(len(name))) + len(name) + uvarintLen(uint64(len(value))) + len(value) + uvarintLen(uint64(off))
}

// eachList tells where the list of each pair is; that of all series has no name.
func (w *indexWriter) eachList(order []uint32, off int64, fn func(name, value []byte, off int64)) {
	fn(nil, nil, off)
	off += listSize(w.postings.series)
	for _, x := range order {
		p := w.postings.pairs[x]
		fn(w.symbols.ofRank(p.name), w.symbols.ofRank(p.value), off)
		off += listSize(p.series)
	}
}

// contents writes the table of contents, by which readers begin.
func (w *indexWriter) contents() {
	w.begin()
	for _, section := range []uint64{
		w.toc.Symbols, w.toc.Series, w.toc.LabelIndices, w.toc.LabelIndicesTable, w.toc.Postings, w.toc.PostingsTable,
	} {
		w.write64(section)
	}
	w.end()
}
