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

// room is memory for the tail of an index. Those of blocks of two hours are about as long as
// one another, and memory that is used again need not be cleared and touched for the first
// time, which is a tenth of making a directory. Guarded by BenchmarkBuild.
func (d *Directories) room(n int64) []byte {
	if b, ok := d.tails.Get().(*[]byte); ok && int64(cap(*b)) >= n {
		return (*b)[:n]
	}
	return make([]byte, n)
}

// giveRoom takes memory back that nothing refers to any more, unless it is much.
func (d *Directories) giveRoom(b []byte) {
	const most = 1 << 20
	if cap(b) <= most {
		d.tails.Put(&b)
	}
}

// builder makes one page directory.
type builder struct {
	src   Source
	spare *spare
	out   *pageWriter
	tail  []byte // of the index
	toc   index.TOC
	dir   directory
	// postingsEnd is where the part of the index with the lists of postings ends.
	postingsEnd uint64
	// strings are all label names, and all values of each name, each list sorted; nil if
	// the postings offset table is not in memory whole.
	strings *sortedLists
}

// build writes the directory to a file.
func (b *builder) build(ctx context.Context, d *Directories, f *os.File, chunks uint64) (directory, error) {
	size := b.src.Size()
	if size < headerSize+tocSize {
		return b.dir, corruptf("%d bytes are too few", size)
	}
	b.dir.size = size
	b.tail = d.room(max(tocSize, d.guessTail(size, chunks)))
	defer func() { d.giveRoom(b.tail) }()
	if err := b.readTail(ctx); err != nil {
		return b.dir, err
	}
	d.learnTail(size-int64(b.toc.PostingsTable), size, chunks)
	b.spare = d.spare()
	defer func() {
		b.spare.strings.reset(nil) // not to keep the tail
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

// readTail reads the tail of the index and its table of contents from that.
func (b *builder) readTail(ctx context.Context) error {
	n := int64(len(b.tail))
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
	b.postingsEnd = uint64(b.after(b.toc.Postings))
	return b.readTable(ctx)
}

// readTable reads what the tail does not have of the postings offset table, unless that is
// long: then it is read as it is taken.
func (b *builder) readTable(ctx context.Context) error {
	begin, tail := int64(b.toc.PostingsTable), b.dir.size-int64(len(b.tail))
	if begin >= tail || b.dir.size-begin > maxTable {
		return nil
	}
	table := make([]byte, b.dir.size-begin)
	if err := b.src.Read(ctx, Range{begin, table[:tail-begin]}); err != nil {
		return fmt.Errorf("read postings offsets: %w", err)
	}
	copy(table[tail-begin:], b.tail)
	b.tail = table
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
	if tail := b.dir.size - int64(len(b.tail)); begin >= tail {
		t.strings = &b.spare.strings
		t.strings.reset(b.tail[begin-tail:])
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

func (e *offsetEntry) compare(f *offsetEntry) int {
	if c := bytes.Compare(e.name, f.name); c != 0 {
		return c
	}
	return bytes.Compare(e.value, f.value)
}

// takeEntry takes the next entry, all at once if it is ready as a whole and its strings are
// shorter than 128 bytes, as nearly all are. Guarded by BenchmarkBuild.
func takeEntry(s *scanner) (name, value []byte, off uint64) {
	b := s.ready[:min(int64(len(s.ready)), s.left)]
	if len(b) < 2 || b[0] != 2 || b[1] >= 0x80 {
		return takeLongEntry(s)
	}
	nameEnd := 2 + int(b[1])
	if nameEnd >= len(b) || b[nameEnd] >= 0x80 {
		return takeLongEntry(s)
	}
	end := nameEnd + 1 + int(b[nameEnd])
	if end > len(b) {
		return takeLongEntry(s)
	}
	off, n := binary.Uvarint(b[end:])
	if n <= 0 {
		return takeLongEntry(s)
	}
	s.take(end + n)
	return b[2:nameEnd], b[nameEnd+1 : end], off
}

// takeLongEntry takes any entry, value by value.
func takeLongEntry(s *scanner) (name, value []byte, off uint64) {
	begin := s.pos()
	if keys := s.uvarint(); s.err == nil && keys != 2 {
		s.err = corruptf("postings offset entry at %d has %d keys", begin, keys)
	}
	name, value = s.text(), s.text()
	return name, value, s.uvarint()
}

// errOrder marks a table that is not sorted, as those of version 1 are.
var errOrder = errors.New("postings offsets are out of order")

// inOrder takes a table that is sorted, holding two entries at a time: a list of
// postings ends where the next begins.
func (b *builder) inOrder(s *scanner, t *tableWriter) error {
	var e offsetEntry
	shared := 0 // bytes with which the value begins like the one before
	count := s.be32()
	for i := range count {
		name, value, off := takeEntry(s)
		if s.err != nil {
			return s.err
		}
		if i > 0 {
			t.add(e.value, shared, b.extent(e.off, off))
		}
		if i == 0 || !bytes.Equal(name, e.name) {
			if bytes.Compare(name, e.name) < 0 {
				return errOrder
			}
			shared = 0
			t.begin(name)
		} else if shared = sharedPrefix(value, e.value); shared == len(value) || shared < len(e.value) && value[shared] < e.value[shared] {
			return errOrder
		}
		e.name, e.value, e.off = name, value, off
	}
	if count > 0 {
		t.add(e.value, shared, b.extent(e.off, 0))
	}
	return s.err
}

// inAnyOrder takes a table whole and sorts it.
func (b *builder) inAnyOrder(s *scanner, t *tableWriter) error {
	var entries []offsetEntry
	for range s.be32() {
		name, value, off := takeEntry(s)
		if s.err != nil {
			return s.err
		}
		entries = append(entries, offsetEntry{name, value, off})
	}
	begins := make([]uint64, len(entries))
	for i, e := range entries {
		begins[i] = e.off
	}
	slices.Sort(begins)
	slices.SortFunc(entries, func(e, f offsetEntry) int { return e.compare(&f) })
	var last offsetEntry
	for i, e := range entries {
		shared := 0
		switch {
		case i == 0 || !bytes.Equal(e.name, last.name):
			t.begin(e.name)
		case bytes.Equal(e.value, last.value):
			return corruptf("postings offsets name %q=%q twice", e.name, e.value)
		default:
			shared = sharedPrefix(e.value, last.value)
		}
		last = e
		next, found := slices.BinarySearch(begins, e.off+1)
		if !found && next == len(begins) {
			t.add(e.value, shared, b.extent(e.off, 0))
			continue
		}
		t.add(e.value, shared, b.extent(e.off, begins[next]))
	}
	return s.err
}

// extent is the list of postings at off if the next one begins at next.
func (b *builder) extent(off, next uint64) extent {
	end := int64(b.postingsEnd)
	if off < b.toc.Postings || off >= b.postingsEnd { // the list is not where lists are
		end = b.after(off)
	}
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

// begin begins a name; they come in order.
func (t *tableWriter) begin(name []byte) {
	t.endName()
	if t.strings != nil && len(name) > 0 {
		t.strings.addName(name, sharedPrefix(name, t.name))
	}
	t.name = name
}

// add takes the values of a name in order, of which each shares so many bytes with the one before.
func (t *tableWriter) add(value []byte, shared int, l extent) {
	if len(t.name) == 0 {
		if len(value) == 0 {
			t.all = l
		}
		return
	}
	t.count++
	t.posts += l.size
	t.values.addShared(shared, value, uint64(l.off), uint64(l.size))
	if t.strings != nil {
		t.strings.add(value, shared)
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

// maxTable is the longest postings offset table, in bytes, that is held in memory whole.
const maxTable = 8 << 20

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
		left -= int64(uvarintLen(s.size) + int(s.size))
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
		w.addShared(int(s.shared), b.strings.text(s), uint64(i))
	}
	b.dir.version, b.dir.symbols = index.FormatV2, w.finish()
	return true
}

// uvarintLen is the length of n as a variable-length integer.
func uvarintLen(n uint32) int { return (bits.Len32(n|1) + 6) / 7 }

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
