package blockindex

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/prometheus/prometheus/tsdb/index"
)

const (
	headerSize = index.HeaderLen
	tocSize    = 6*8 + 4
	// every is how far apart the remembered positions of symbols and label values are.
	every = 32
	// seriesAlign is what a reference to a series is multiplied with, since version 2.
	seriesAlign = 16
)

// Index answers from the index of one block. It is safe for concurrent use.
type Index struct {
	src       Source
	version   int
	seriesEnd int64 // where the series section ends
	symbols   symbols
	values    map[string][]valueGroup // by label name; "" has the list of all series
}

// OpenFile opens the index file at path and remembers its positions. A file that
// cannot be an index is ErrCorrupt.
func OpenFile(ctx context.Context, path string) (*Index, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open index: %w", err), f.Close())
	}
	x, err := Open(ctx, &file{f: f, size: info.Size()})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open index %s: %w", path, err), f.Close())
	}
	return x, nil
}

// Open reads the tables of an index. The Index owns src unless there is an error.
func Open(ctx context.Context, src Source) (*Index, error) {
	x := &Index{src: src, values: map[string][]valueGroup{}}
	if src.Size() < headerSize+tocSize {
		return nil, corruptf("%d bytes are too few", src.Size())
	}
	var header [headerSize]byte
	if err := src.ReadAt(ctx, header[:], 0); err != nil {
		return nil, err
	}
	if magic := binary.BigEndian.Uint32(header[:]); magic != index.MagicIndex {
		return nil, corruptf("it begins with %08x", magic)
	}
	switch x.version = int(header[4]); x.version {
	case index.FormatV1, index.FormatV2, index.FormatV3:
	default:
		return nil, corruptf("version %d is unknown", x.version)
	}

	toc, err := readTOC(ctx, src)
	if err != nil {
		return nil, fmt.Errorf("read table of contents: %w", err)
	}
	x.seriesEnd = src.Size() - tocSize
	for _, begin := range []uint64{toc.LabelIndices, toc.LabelIndicesTable, toc.Postings, toc.PostingsTable} {
		if begin > toc.Series && begin < uint64(x.seriesEnd) {
			x.seriesEnd = int64(begin)
		}
	}
	if x.symbols, err = readSymbols(ctx, src, toc.Symbols, x.version); err != nil {
		return nil, fmt.Errorf("read symbols: %w", err)
	}
	if err := x.readValues(ctx, toc.PostingsTable); err != nil {
		return nil, fmt.Errorf("read postings offsets: %w", err)
	}
	return x, nil
}

// Close releases the Source. Reads that still run end in an error.
func (x *Index) Close() error {
	return x.src.Close()
}

// Size is the length of the index in bytes.
func (x *Index) Size() int64 { return x.src.Size() }

// LabelNames returns the sorted names of all labels.
func (x *Index) LabelNames() []string {
	names := slices.Sorted(maps.Keys(x.values))
	if len(names) > 0 && names[0] == "" {
		names = names[1:]
	}
	return names
}

// HasLabel reports whether any series has the label.
func (x *Index) HasLabel(name string) bool { return name != "" && len(x.values[name]) > 0 }

func readTOC(ctx context.Context, src Source) (toc index.TOC, err error) {
	var b [tocSize]byte
	if err := src.ReadAt(ctx, b[:], src.Size()-tocSize); err != nil {
		return toc, err
	}
	if checksum(b[:tocSize-4]) != binary.BigEndian.Uint32(b[tocSize-4:]) {
		return toc, corruptf("checksum of the table of contents")
	}
	for i, field := range []*uint64{&toc.Symbols, &toc.Series, &toc.LabelIndices, &toc.LabelIndicesTable, &toc.Postings, &toc.PostingsTable} {
		*field = binary.BigEndian.Uint64(b[i*8:])
	}
	return toc, nil
}

// symbols knows where the strings of an index are.
type symbols struct {
	version int
	count   uint64
	groups  []int64 // where every 32nd symbol begins
	end     int64
}

func readSymbols(ctx context.Context, src Source, off uint64, version int) (symbols, error) {
	sect, err := sectionAt(ctx, src, off)
	if err != nil {
		return symbols{}, err
	}
	s := scan(ctx, src, sect)
	t := symbols{version: version, count: uint64(s.be32()), end: sect.end}
	for i := range t.count {
		if i%every == 0 && s.left() > 0 {
			t.groups = append(t.groups, s.pos())
		}
		if s.text(); s.err != nil {
			break
		}
	}
	return t, s.finish()
}

// group returns the number of the group that holds a symbol and its place in it.
// In version 1 each symbol is named by its position and is a group of its own.
func (t *symbols) group(ref uint64) (group uint64, place int) {
	if t.version == index.FormatV1 {
		return ref, 0
	}
	return ref / every, int(ref % every)
}

// read returns the strings of a group.
func (t *symbols) read(ctx context.Context, src Source, group uint64) ([]string, error) {
	if t.version == index.FormatV1 {
		return t.readOne(ctx, src, int64(group))
	}
	if group >= uint64(len(t.groups)) {
		return nil, corruptf("symbol group %d of %d", group, len(t.groups))
	}
	end := t.end
	if group+1 < uint64(len(t.groups)) {
		end = t.groups[group+1]
	}
	return readTexts(ctx, src, section{t.groups[group], end}, int(min(every, t.count-group*every)))
}

// readOne returns the string at a position.
func (t *symbols) readOne(ctx context.Context, src Source, begin int64) ([]string, error) {
	if len(t.groups) == 0 || begin < t.groups[0] || begin >= t.end {
		return nil, corruptf("symbol at %d", begin)
	}
	const enough = 4 << 10 // for nearly all
	one, err := readTexts(ctx, src, section{begin, min(t.end, begin+enough)}, 1)
	if errors.Is(err, ErrCorrupt) {
		return readTexts(ctx, src, section{begin, t.end}, 1)
	}
	return one, err
}

// readTexts reads n strings from the front of s.
func readTexts(ctx context.Context, src Source, s section, n int) ([]string, error) {
	b := make([]byte, s.end-s.begin)
	if err := src.ReadAt(ctx, b, s.begin); err != nil {
		return nil, err
	}
	d, texts := decoder{b: b}, make([]string, n)
	for i := range texts {
		texts[i] = string(d.text())
	}
	if d.bad {
		return nil, corruptf("symbols at %d", s.begin)
	}
	return texts, nil
}
