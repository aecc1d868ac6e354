package blockscan

import (
	"encoding/binary"
	"fmt"

	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/varve-io/varve/pkg/block"
)

const (
	indexVersion = 2
	headerSize   = 5       // of an index: magic and version
	tocSize      = 6*8 + 4 // offsets of six sections, and their checksum
	seriesAlign  = 16      // of series entries; their references count in these
)

// indexFile is what is known of an index before its series are read.
type indexFile struct {
	data    []byte
	symbols symbolTable
	// toc is nil if it cannot be read.
	toc *index.TOC
	// series begin and end here; without a table of contents they end with the file.
	start, end int
	// usable says that series can be read.
	usable bool
}

// bytesOf serves Prometheus' reader of the table of contents.
type bytesOf []byte

func (b bytesOf) Len() int                    { return len(b) }
func (b bytesOf) Range(start, end int) []byte { return b[start:end] }

// openIndex reads header, table of contents and symbols.
func openIndex(data []byte, report func(Finding)) *indexFile {
	x := &indexFile{data: data}
	found := func(kind Kind, offset int, format string, args ...any) {
		report(Finding{kind, block.IndexFile, int64(offset), fmt.Sprintf(format, args...)})
	}
	if len(data) < headerSize {
		found(Truncated, 0, "it has %d bytes, fewer than a header", len(data))
		return x
	}
	if magic := binary.BigEndian.Uint32(data); magic != index.MagicIndex {
		found(Magic, 0, "it begins with %#08x, not with the %#08x of an index", magic, uint32(index.MagicIndex))
	}
	if data[4] != indexVersion {
		found(Magic, 4, "it has version %d; version %d can be read", data[4], indexVersion)
		return x
	}
	at := headerSize
	x.end = len(data)
	toc, err := index.NewTOCFromByteSlice(bytesOf(data))
	switch {
	case err != nil:
		found(Truncated, max(len(data)-tocSize, 0), "no table of contents at its end: %s; series are searched from the front", err)
	case toc.Symbols < headerSize || toc.Symbols > uint64(len(data)):
		found(Malformed, len(data)-tocSize, "the table of contents puts the symbols at %d", toc.Symbols)
	default:
		x.toc = toc
		at = int(toc.Symbols)
	}
	end, ok := x.readSymbols(at, found)
	if !ok {
		return x
	}
	x.usable = true
	x.start = align(end)
	if x.toc != nil {
		x.limitSeries(end, found)
	}
	return x
}

func align(at int) int { return (at + seriesAlign - 1) / seriesAlign * seriesAlign }

// limitSeries takes from the table of contents where the series end: where the
// next section behind the symbols begins. Without series it may begin before they would.
func (x *indexFile) limitSeries(symbolsEnd int, found func(Kind, int, string, ...any)) {
	if s := x.toc.Series; s != 0 && s < uint64(x.end) && s >= uint64(x.start) {
		x.start = align(int(s))
	}
	for _, section := range []uint64{x.toc.LabelIndices, x.toc.LabelIndicesTable, x.toc.Postings, x.toc.PostingsTable} {
		if section >= uint64(symbolsEnd) && section < uint64(x.end) {
			x.end = int(section)
		}
	}
	x.start = min(x.start, x.end)
	if x.end == len(x.data) {
		x.end -= tocSize
		found(Malformed, len(x.data)-tocSize, "the table of contents names no section behind the series")
	}
}

// section returns what stands behind a length of 32 bits and before its checksum,
// and where the section ends. The content is nil if the section is not all there.
func section(data []byte, at int) (content []byte, end int, problem string) {
	if at < 0 || at > len(data)-4 {
		return nil, 0, fmt.Sprintf("its length would stand at %d, the file has %d bytes", at, len(data))
	}
	n := int(binary.BigEndian.Uint32(data[at:]))
	from := at + 4
	if n > len(data)-from-checksumSize {
		return nil, 0, fmt.Sprintf("its %d bytes reach beyond the end of the file", n)
	}
	content, end = data[from:from+n], from+n+checksumSize
	if got, want := checksum(content), binary.BigEndian.Uint32(data[from+n:]); got != want {
		return content, end, fmt.Sprintf("checksum is %08x, its bytes give %08x", want, got)
	}
	return content, end, ""
}
