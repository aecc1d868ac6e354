package pagecache

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/cespare/xxhash/v2"
)

// A segment is a file of records, written from front to back. A finished one ends
// with a table of its records, so that a restart need not look for them:
//
//	magic     8
//	records
//	table        key 8, touched 8, position 4, length 4 for each record
//	number    8  of records in the table
//	checksum  8  xxHash64 of table and number
//	magic     8
const (
	segmentMagic  = 0x3167657365767276 // "vrvesegi", version 1
	segmentHeader = 8
	tableRow      = 24
	trailer       = 24
)

// generation says for how long records stay: those in fresh segments until the
// segment is old, those that were used meanwhile in kept ones.
type generation int

const (
	fresh generation = iota
	kept
)

// String returns the ending of the files' names.
func (g generation) String() string {
	switch g {
	case fresh:
		return "fresh"
	case kept:
		return "kept"
	}
	return fmt.Sprintf("generation(%d)", int(g))
}

// segment is one file. Only one goroutine writes; any may read.
type segment struct {
	number     uint32
	generation generation
	path       string
	file       *os.File
	size       int64
	records    []int32 // in the index, dead ones included
}

func segmentPath(dir string, number uint32, g generation) string {
	return filepath.Join(dir, fmt.Sprintf("%08x.%s", number, g))
}

// createSegment makes an empty segment.
func createSegment(dir string, number uint32, g generation) (*segment, error) {
	s := &segment{number: number, generation: g, path: segmentPath(dir, number, g), size: segmentHeader}
	f, err := os.OpenFile(s.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(binary.LittleEndian.AppendUint64(nil, segmentMagic)); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(s.path))
	}
	s.file = f
	return s, nil
}

// append writes records behind the others.
func (s *segment) append(b []byte) (pos int64, err error) {
	if _, err := s.file.WriteAt(b, s.size); err != nil {
		return 0, err
	}
	pos = s.size
	s.size += int64(len(b))
	return pos, nil
}

// row is one record of a segment's table.
type row struct {
	place
	pos uint32
}

// seal writes the table behind the records.
func (s *segment) seal(rows []row) error {
	le := binary.LittleEndian
	b := make([]byte, 0, len(rows)*tableRow+trailer)
	for _, r := range rows {
		b = le.AppendUint64(b, r.key)
		b = le.AppendUint64(b, r.touched)
		b = le.AppendUint32(b, r.pos)
		b = le.AppendUint32(b, r.length)
	}
	b = le.AppendUint64(b, uint64(len(rows)))
	b = le.AppendUint64(b, xxhash.Sum64(b))
	b = le.AppendUint64(b, segmentMagic)
	_, err := s.append(b)
	return err
}

// load returns the records of a file that was there: from its table, or, if it was not
// finished, by reading it up to the first record that is not whole; it is finished
// there then.
func (s *segment) load() ([]row, error) {
	info, err := s.file.Stat()
	if err != nil {
		return nil, err
	}
	s.size = info.Size()
	head := make([]byte, segmentHeader)
	if _, err := s.file.ReadAt(head, 0); err != nil || binary.LittleEndian.Uint64(head) != segmentMagic {
		return nil, fmt.Errorf("%w: no segment", errCorrupt)
	}
	if rows, err := readTable(s.file, s.size); err == nil {
		return rows, nil
	}
	var rows []row
	rows, s.size = scanRecords(io.NewSectionReader(s.file, segmentHeader, s.size-segmentHeader))
	if err := s.file.Truncate(s.size); err != nil {
		return nil, err
	}
	return rows, s.seal(rows)
}

// readTable returns the records of a finished segment.
func readTable(f io.ReaderAt, size int64) ([]row, error) {
	le := binary.LittleEndian
	end := make([]byte, trailer)
	if _, err := f.ReadAt(end, max(0, size-trailer)); err != nil || le.Uint64(end[16:]) != segmentMagic {
		return nil, fmt.Errorf("%w: no table", errCorrupt)
	}
	n := le.Uint64(end)
	if n > uint64(size)/tableRow {
		return nil, fmt.Errorf("%w: %d records in %d bytes", errCorrupt, n, size)
	}
	begin := size - trailer - int64(n)*tableRow
	b := make([]byte, int64(n)*tableRow+8)
	if _, err := f.ReadAt(b, max(0, begin)); err != nil || xxhash.Sum64(b) != le.Uint64(end[8:]) {
		return nil, fmt.Errorf("%w: checksum of the table", errCorrupt)
	}
	rows := make([]row, n)
	for i := range rows {
		r := b[i*tableRow:]
		rows[i] = row{place{le.Uint64(r), le.Uint64(r[8:]), le.Uint32(r[20:])}, le.Uint32(r[16:])}
		if rows[i].length > maxRecord || int64(rows[i].pos)+int64(rows[i].length) > begin {
			return nil, fmt.Errorf("%w: a record of %d bytes at %d", errCorrupt, rows[i].length, rows[i].pos)
		}
	}
	return rows, nil
}

// scanRecords returns the records that are whole, and where they end in the file.
func scanRecords(r io.Reader) (rows []row, end int64) {
	br := bufio.NewReaderSize(r, 1<<20)
	end = segmentHeader
	var b []byte
	for {
		head, err := br.Peek(recordHeader)
		if err != nil {
			return rows, end
		}
		p, err := decodeHeader(head)
		if err != nil {
			return rows, end
		}
		b = append(b[:0], make([]byte, p.length)...)
		if _, err := io.ReadFull(br, b); err != nil {
			return rows, end
		}
		if _, _, err := decodeRecord(b); err != nil {
			return rows, end
		}
		rows = append(rows, row{p, uint32(end)})
		end += int64(p.length)
	}
}
