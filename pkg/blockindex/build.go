package blockindex

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"slices"

	"github.com/prometheus/prometheus/tsdb/index"
)

const (
	headerSize = index.HeaderLen
	tocSize    = 6*8 + 4
)

// pageWriter writes the pages of a directory one after the other.
type pageWriter struct {
	f   *os.File
	w   *bufio.Writer
	at  uint64
	err error
}

func (w *pageWriter) write(b []byte) (off, size uint64) {
	if w.err == nil {
		_, w.err = w.w.Write(b)
	}
	off = w.at
	w.at += uint64(len(b))
	return off, uint64(len(b))
}

// restart forgets what was written.
func (w *pageWriter) restart() error {
	w.w.Reset(w.f)
	w.at, w.err = 0, nil
	if _, err := w.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return w.f.Truncate(0)
}

// build makes the page directory of x, which appears at its path whole or not at all.
func (d *Directories) build(ctx context.Context, x *Index) (dir directory, err error) {
	d.metrics.builds.Inc()
	f, err := os.CreateTemp(d.dir, "*"+suffix)
	if err != nil {
		return dir, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	b := &builder{src: x.src}
	dir, err = b.build(ctx, d, f, x.chunks)
	if err = errors.Join(err, f.Close()); err != nil {
		return dir, err
	}
	return dir, os.Rename(f.Name(), x.path)
}

// spare is memory that making a directory takes once the tail of the index is there.
type spare struct {
	out     *bufio.Writer
	strings sortedLists
}

func (d *Directories) spare() *spare {
	if s, ok := d.spares.Get().(*spare); ok {
		return s
	}
	return &spare{out: bufio.NewWriterSize(nil, 64<<10)}
}

// builder makes one page directory.
type builder struct {
	src   Source
	spare *spare
	out   *pageWriter
	tail  []byte // of the index
	toc   index.TOC
	dir   directory
	// strings are all label names, and all values of each name, each list sorted; nil if
	// they are too many.
	strings *sortedLists
}

// build writes the directory to a file.
func (b *builder) build(ctx context.Context, d *Directories, f *os.File, chunks uint64) (directory, error) {
	size := b.src.Size()
	if size < headerSize+tocSize {
		return b.dir, corruptf("%d bytes are too few", size)
	}
	b.dir.size = size
	if err := b.readTail(ctx, d.guessTail(size, chunks)); err != nil {
		return b.dir, err
	}
	d.learnTail(size-int64(b.toc.PostingsTable), size, chunks)
	b.spare = d.spare()
	defer func() {
		b.spare.strings.reset() // not to keep the tail
		d.spares.Put(b.spare)
	}()
	b.spare.out.Reset(f)
	b.out = &pageWriter{f: f, w: b.spare.out}
	err := b.values(ctx, b.inOrder)
	if errors.Is(err, errOrder) {
		if err = b.out.restart(); err == nil {
			err = b.values(ctx, b.inAnyOrder)
		}
	}
	if err != nil {
		return b.dir, fmt.Errorf("read postings offsets: %w", err)
	}
	if !b.deriveSymbols() {
		if err := b.symbols(ctx); err != nil {
			return b.dir, fmt.Errorf("read symbols: %w", err)
		}
	}
	b.dir.at = int64(b.out.at)
	b.out.write(b.dir.encode())
	return b.dir, errors.Join(b.out.err, b.out.w.Flush())
}

// readTail reads the last n bytes of the index and its table of contents from them.
func (b *builder) readTail(ctx context.Context, n int64) error {
	n = max(n, tocSize)
	b.tail = make([]byte, n)
	if err := b.src.Read(ctx, Range{b.dir.size - n, b.tail}); err != nil {
		return fmt.Errorf("read the last %d bytes: %w", n, err)
	}
	toc := b.tail[n-tocSize:]
	if checksum(toc[:tocSize-4]) != binary.BigEndian.Uint32(toc[tocSize-4:]) {
		return corruptf("checksum of the table of contents")
	}
	for i, field := range []*uint64{&b.toc.Symbols, &b.toc.Series, &b.toc.LabelIndices, &b.toc.LabelIndicesTable, &b.toc.Postings, &b.toc.PostingsTable} {
		*field = binary.BigEndian.Uint64(toc[i*8:])
	}
	end := uint64(b.dir.size - tocSize)
	if b.toc.Symbols < headerSize || b.toc.Series < headerSize || b.toc.Symbols > end || b.toc.Series > end || b.toc.PostingsTable < headerSize || b.toc.PostingsTable > end {
		return corruptf("table of contents names places outside of the index")
	}
	b.dir.seriesBegin, b.dir.seriesEnd = int64(b.toc.Series), b.after(b.toc.Series)
	return nil
}

// after is where the part of the index that follows off begins.
func (b *builder) after(off uint64) int64 {
	end := uint64(b.dir.size - tocSize)
	for _, begin := range []uint64{b.toc.Symbols, b.toc.Series, b.toc.LabelIndices, b.toc.LabelIndicesTable, b.toc.Postings, b.toc.PostingsTable} {
		if begin > off {
			end = min(end, begin)
		}
	}
	return int64(end)
}

// buildWindow is how many bytes are read at once while a directory is made.
const buildWindow = 8 << 20

// read returns the bytes from off to end, those of the tail from memory.
func (b *builder) read(ctx context.Context, off, end int64) windows {
	tail := b.dir.size - int64(len(b.tail))
	return func() ([]byte, error) {
		switch {
		case off == end:
			return nil, io.EOF
		case off >= tail:
			ready := b.tail[off-tail : end-tail]
			off = end
			return ready, nil
		}
		ready := make([]byte, min(buildWindow, min(end, tail)-off))
		if err := b.src.Read(ctx, Range{off, ready}); err != nil {
			return nil, err
		}
		off += int64(len(ready))
		return ready, nil
	}
}

// values writes the trees of label names and of their values with one of two ways
// to take the postings offset table.
func (b *builder) values(ctx context.Context, take func(s *scanner, t *tableWriter) error) error {
	begin, end := int64(b.toc.PostingsTable), b.dir.size-tocSize
	s := scan(nil, b.read(ctx, begin, end), begin, end)
	t := &tableWriter{
		names:  newTreeWriter(b.out, nameColumns),
		values: newTreeWriter(b.out, valueColumns),
	}
	if end-begin <= maxStrings {
		t.strings = &b.spare.strings
		t.strings.reset()
	}
	if err := take(s, t); err != nil {
		return err
	}
	if err := s.finish(); err != nil {
		return err
	}
	b.dir.names, b.dir.all, b.strings = t.finish(), t.all, t.strings
	return nil
}

// offsetEntry is an entry of the postings offset table.
type offsetEntry struct {
	name, value []byte
	off         uint64
}

// read takes the next entry.
func (e *offsetEntry) read(s *scanner) {
	begin := s.pos()
	if keys := s.uvarint(); s.err == nil && keys != 2 {
		s.err = corruptf("postings offset entry at %d has %d keys", begin, keys)
	}
	e.name = s.text()
	e.value = s.text()
	e.off = s.uvarint()
}

func (e *offsetEntry) compare(f *offsetEntry) int {
	if c := bytes.Compare(e.name, f.name); c != 0 {
		return c
	}
	return bytes.Compare(e.value, f.value)
}

// errOrder marks a table that is not sorted, as those of version 1 are.
var errOrder = errors.New("postings offsets are out of order")

// inOrder takes a table that is sorted, holding two entries at a time: a list of
// postings ends where the next begins.
func (b *builder) inOrder(s *scanner, t *tableWriter) error {
	var e, next offsetEntry
	count := s.be32()
	for i := range count {
		if next.read(s); s.err != nil {
			return s.err
		}
		if i > 0 {
			if e.compare(&next) >= 0 {
				return errOrder
			}
			t.add(&e, b.extent(e.off, next.off))
		}
		e, next = next, e
	}
	if count > 0 {
		t.add(&e, b.extent(e.off, 0))
	}
	return s.err
}

// inAnyOrder takes a table whole and sorts it.
func (b *builder) inAnyOrder(s *scanner, t *tableWriter) error {
	var entries []offsetEntry
	for range s.be32() {
		var e offsetEntry
		if e.read(s); s.err != nil {
			return s.err
		}
		entries = append(entries, e)
	}
	begins := make([]uint64, len(entries))
	for i, e := range entries {
		begins[i] = e.off
	}
	slices.Sort(begins)
	slices.SortFunc(entries, func(e, f offsetEntry) int { return e.compare(&f) })
	for i, e := range entries {
		if i > 0 && entries[i-1].compare(&e) == 0 {
			return corruptf("postings offsets name %q=%q twice", e.name, e.value)
		}
		next, found := slices.BinarySearch(begins, e.off+1)
		if !found && next == len(begins) {
			t.add(&e, b.extent(e.off, 0))
			continue
		}
		t.add(&e, b.extent(e.off, begins[next]))
	}
	return s.err
}

// extent is the list of postings at off if the next one begins at next.
func (b *builder) extent(off, next uint64) extent {
	end := b.after(off)
	if next > off && next < uint64(end) {
		end = int64(next)
	}
	if off > uint64(end) {
		return extent{off: b.dir.size} // whoever reads it will hear of it
	}
	return extent{int64(off), end - int64(off)}
}

// tableWriter writes the trees of label names and of their values.
type tableWriter struct {
	names, values *treeWriter
	all           extent       // under the empty label
	strings       *sortedLists // or nil
	// Of the name whose values come in.
	name  []byte
	count uint64
	posts int64
}

// add takes the entries in order.
func (t *tableWriter) add(e *offsetEntry, l extent) {
	if len(e.name) == 0 {
		if len(e.value) == 0 {
			t.all = l
		}
		return
	}
	if !bytes.Equal(e.name, t.name) {
		t.endName()
		t.name = e.name
		if t.strings != nil {
			t.strings.names = append(t.strings.names, t.name)
		}
	}
	t.count++
	t.posts += l.size
	t.values.add(e.value, uint64(l.off), uint64(l.size))
	if t.strings != nil {
		t.strings.all = append(t.strings.all, e.value)
	}
}

func (t *tableWriter) endName() {
	if t.count > 0 {
		values := t.values.finish()
		t.names.add(t.name, t.count, uint64(t.posts), values.off, values.size, values.level)
		if t.strings != nil {
			t.strings.end()
		}
	}
	t.count, t.posts = 0, 0
}

func (t *tableWriter) finish() tree {
	t.endName()
	return t.names.finish()
}

// maxStrings is the largest postings offset table, in bytes, whose strings are held in memory.
const maxStrings = 8 << 20

// deriveSymbols writes the tree of symbols without reading them, if it can. Each
// label name and value is a symbol, and symbols are sorted; so if all of them
// together are as long as the symbols of the index, those are they. The index must
// have no label indices: then its writer was one of version 2 or 3, for which the
// header, which stands before the symbols, need not be read.
func (b *builder) deriveSymbols() bool {
	if b.strings == nil || b.toc.LabelIndices != b.toc.Postings || b.toc.LabelIndicesTable != b.toc.PostingsTable || b.toc.Symbols != headerSize {
		return false
	}
	symbols := b.strings.merge()
	const around = 4 + 4 + 4 // length, number, checksum
	left := b.after(b.toc.Symbols) - int64(b.toc.Symbols) - around
	for _, s := range symbols {
		left -= int64(uvarintLen(len(s)) + len(s))
	}
	switch left {
	case 0: // "" is a symbol, as in blocks that were cut from a head
	case -1:
		symbols = symbols[1:]
	default:
		return false
	}
	w := newTreeWriter(b.out, symbolColumns)
	for i, s := range symbols {
		w.add(s, uint64(i))
	}
	b.dir.version, b.dir.symbols = index.FormatV2, w.finish()
	return true
}

// uvarintLen is the length of n as a variable-length integer.
func uvarintLen(n int) int { return (bits.Len(uint(n)|1) + 6) / 7 }

// symbols writes the tree of symbols, and reads the header, which stands before them.
func (b *builder) symbols(ctx context.Context) error {
	begin, end := int64(b.toc.Symbols), b.after(b.toc.Symbols)
	body := b.read(ctx, 0, end)
	var header []byte
	for int64(len(header)) < begin {
		more, err := body()
		if err != nil {
			return fmt.Errorf("read header: %w", err)
		}
		header = slices.Concat(header, more)
	}
	if magic := binary.BigEndian.Uint32(header); magic != index.MagicIndex {
		return corruptf("the index begins with %08x", magic)
	}
	switch b.dir.version = int(header[4]); b.dir.version {
	case index.FormatV1, index.FormatV2, index.FormatV3:
	default:
		return corruptf("version %d of the index is unknown", b.dir.version)
	}
	s := scan(header[begin:], body, begin, end)
	w := newTreeWriter(b.out, symbolColumns)
	for i := range s.be32() {
		ref := uint64(i)
		if b.dir.version == index.FormatV1 {
			ref = uint64(s.pos())
		}
		text := s.text()
		if s.err != nil {
			break
		}
		w.add(text, ref)
	}
	b.dir.symbols = w.finish()
	return s.finish()
}
