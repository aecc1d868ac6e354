package blockindex

import (
	"encoding/binary"
	"io"
	"os"

	"github.com/prometheus/prometheus/tsdb/index"
)

// directory is what stands at the end of a page directory, and all of it that
// stays in memory.
type directory struct {
	at      int64 // where it stands in its file
	size    int64 // of the index
	version int   // of the index
	// series is the section of series entries.
	seriesBegin, seriesEnd int64
	// all is the postings of all series.
	all     extent
	names   tree
	symbols tree
}

// extent is where a list of postings is: at off, with size bytes at most.
type extent struct{ off, size int64 }

// count is about how many series the list names.
func (l extent) count() int64 { return max(0, l.size-listOverhead) / 4 }

// listOverhead is what a list has besides its postings: length, number, checksum.
const listOverhead = 12

// The numbers of an entry in the tree of label names.
const (
	nameValues  = iota // how many values the label has
	namePosts          // bytes of the postings of all of them
	nameTreeOff        // the tree of the values
	nameTreeSize
	nameTreeLevel
	nameColumns
)

// The numbers of an entry in the tree of a label's values.
const (
	valueOff  = iota // where its list of postings is
	valueSize        // and with how many bytes at most
	valueColumns
)

// symbolColumns is the numbers of a symbol: by which series entries name it.
const symbolColumns = 1

const (
	directoryMagic   = "VRVD"
	directoryVersion = 2
	directorySize    = len(directoryMagic) + 1 + 13*8 + 4
)

// encode appends what is written behind the pages.
func (d *directory) encode() []byte {
	b := append([]byte(directoryMagic), directoryVersion)
	for _, v := range []uint64{
		uint64(d.at), uint64(d.size), uint64(d.version), uint64(d.seriesBegin), uint64(d.seriesEnd), uint64(d.all.off), uint64(d.all.size),
		d.names.off, d.names.size, d.names.level, d.symbols.off, d.symbols.size, d.symbols.level,
	} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return binary.BigEndian.AppendUint32(b, checksum(b))
}

// readDirectory reads what encode has written at the end of the file at path.
func readDirectory(path string) (d directory, err error) {
	f, err := os.Open(path)
	if err != nil {
		return d, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return d, err
	}
	at := info.Size() - int64(directorySize)
	b := make([]byte, directorySize)
	if _, err := f.ReadAt(b, max(at, 0)); err != nil && err != io.EOF {
		return d, err
	}
	body, sum := b[:len(b)-4], b[len(b)-4:]
	if at < 0 || checksum(body) != binary.BigEndian.Uint32(sum) || string(body[:len(directoryMagic)]) != directoryMagic || body[len(directoryMagic)] != directoryVersion {
		return d, errDirectory
	}
	body = body[len(directoryMagic)+1:]
	next := func() uint64 {
		v := binary.BigEndian.Uint64(body)
		body = body[8:]
		return v
	}
	d = directory{
		at: int64(next()), size: int64(next()), version: int(next()), seriesBegin: int64(next()), seriesEnd: int64(next()),
		all:     extent{int64(next()), int64(next())},
		names:   tree{next(), next(), next(), nameColumns},
		symbols: tree{next(), next(), next(), symbolColumns},
	}
	sane := d.at == at && d.version >= index.FormatV1 && d.version <= index.FormatV3 && headerSize <= d.seriesBegin && d.seriesBegin <= d.seriesEnd && d.seriesEnd <= d.size &&
		d.names.level < maxLevel && d.symbols.level < maxLevel
	if !sane {
		return d, errDirectory
	}
	return d, nil
}
