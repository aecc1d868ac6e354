package blockscan

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"github.com/prometheus/prometheus/tsdb/fileutil"
)

// file is a local file, mapped; its bytes are empty if it is.
type file struct {
	data  []byte
	close func() error
}

// openFile maps a file of a block. A file that is not there is os.ErrNotExist.
func openFile(dir, rel string) (*file, error) {
	path := filepath.Join(dir, filepath.FromSlash(rel))
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() == 0 { // cannot be mapped
		return &file{close: func() error { return nil }}, nil
	}
	m, err := fileutil.OpenMmapFile(path)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", path, err)
	}
	return &file{data: m.Bytes(), close: m.Close}, nil
}

// checksum is that of index entries and of chunks.
func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// checksumSize follows what it guards.
const checksumSize = 4

// decoder takes values off the front of b. Once a value is not there bad is set,
// and every further value is zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) fail() {
	d.b, d.bad = nil, true
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) be32() uint32 {
	if len(d.b) < 4 {
		d.fail()
		return 0
	}
	v := binary.BigEndian.Uint32(d.b)
	d.b = d.b[4:]
	return v
}

// bytes returns the next n bytes; they alias the input.
func (d *decoder) bytes(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

// text returns a string that stands behind its length.
func (d *decoder) text() string { return string(d.bytes(d.uvarint())) }
