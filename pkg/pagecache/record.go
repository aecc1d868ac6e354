package pagecache

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"
)

// A record on disk holds extents of one page, and says whose they are
// (docs/design/0014-page-cache.md). Numbers are little-endian:
//
//	magic     4
//	length    4  of the record
//	checksum  8  xxHash64 of all that follows
//	key       8  hash of object and page
//	touched   8  bit i: a byte of the i-th 1/64 of the page is here
//	page      8  number of the page
//	size      8  of the object
//	name      2  length
//	version   2  length
//	extents   4  number
//	name, version
//	extents      offset in the page 4, length 4 each; ascending, disjoint
//	data         of the extents
const (
	recordMagic  = 0x31677076 // "vpg1"
	recordHeader = 56
	extentHeader = 8
	maxName      = 4 << 10
	// maxRecord is the length of a record whose page is full of single bytes.
	maxRecord = recordHeader + 2*maxName + pageSize/2*extentHeader + pageSize
)

// errCorrupt marks bytes on disk that are not what was written there.
var errCorrupt = errors.New("corrupt record")

// place is what a record's header says without its data.
type place struct {
	key, touched uint64
	length       uint32
}

// diskKey stands for a page in the index of the disk tier. Records say whose they
// are, so that two pages of one key are told apart.
func (k pageKey) diskKey() uint64 {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], uint64(k.object.Size))
	binary.LittleEndian.PutUint64(b[8:], uint64(k.n))
	h := xxhash.Sum64String(k.object.Name)
	return h ^ 31*xxhash.Sum64(b[:]) ^ 63*xxhash.Sum64String(k.object.Version)
}

// touched returns the bits of the parts of a page that [off, end) lies in, both
// relative to the page.
func touched(off, end int64) uint64 {
	const part = pageSize / 64
	from, to := off/part, (end-1)/part
	return ^uint64(0) >> (63 - to) &^ (1<<from - 1)
}

// encodeRecord appends a record of extents, which are sorted and disjoint, to dst.
func encodeRecord(dst []byte, k pageKey, x []extent) ([]byte, place) {
	begin := len(dst)
	base := k.n * pageSize
	var mask uint64
	for _, e := range x {
		mask |= touched(e.off-base, e.end()-base)
	}
	p := place{key: k.diskKey(), touched: mask}
	le := binary.LittleEndian
	dst = le.AppendUint32(dst, recordMagic)
	dst = append(dst, make([]byte, 12)...) // length and checksum
	dst = le.AppendUint64(dst, p.key)
	dst = le.AppendUint64(dst, p.touched)
	dst = le.AppendUint64(dst, uint64(k.n))
	dst = le.AppendUint64(dst, uint64(k.object.Size))
	dst = le.AppendUint16(dst, uint16(len(k.object.Name)))
	dst = le.AppendUint16(dst, uint16(len(k.object.Version)))
	dst = le.AppendUint32(dst, uint32(len(x)))
	dst = append(dst, k.object.Name...)
	dst = append(dst, k.object.Version...)
	for _, e := range x {
		dst = le.AppendUint32(dst, uint32(e.off-base))
		dst = le.AppendUint32(dst, uint32(len(e.data)))
	}
	for _, e := range x {
		dst = append(dst, e.data...)
	}
	r := dst[begin:]
	p.length = uint32(len(r))
	le.PutUint32(r[4:], p.length)
	le.PutUint64(r[8:], xxhash.Sum64(r[16:]))
	return dst, p
}

// decodeHeader reads what precedes the checksum's range and the place. It does not
// look at the checksum.
func decodeHeader(b []byte) (place, error) {
	le := binary.LittleEndian
	if len(b) < recordHeader || le.Uint32(b) != recordMagic {
		return place{}, fmt.Errorf("%w: no record begins here", errCorrupt)
	}
	p := place{length: le.Uint32(b[4:]), key: le.Uint64(b[16:]), touched: le.Uint64(b[24:])}
	if p.length < recordHeader || p.length > maxRecord {
		return place{}, fmt.Errorf("%w: a length of %d", errCorrupt, p.length)
	}
	return p, nil
}

// decodeRecord returns the page of a record and its extents, which lie in b.
func decodeRecord(b []byte) (pageKey, extents, error) {
	p, err := decodeHeader(b)
	if err != nil {
		return pageKey{}, nil, err
	}
	le := binary.LittleEndian
	if int(p.length) != len(b) || le.Uint64(b[8:]) != xxhash.Sum64(b[16:]) {
		return pageKey{}, nil, fmt.Errorf("%w: checksum", errCorrupt)
	}
	k := pageKey{n: int64(le.Uint64(b[32:]))}
	k.object.Size = int64(le.Uint64(b[40:]))
	name, version, n := int(le.Uint16(b[48:])), int(le.Uint16(b[50:])), int(le.Uint32(b[52:]))
	b = b[recordHeader:]
	if n > pageSize/2 || name+version+n*extentHeader > len(b) {
		return pageKey{}, nil, fmt.Errorf("%w: %d extents", errCorrupt, n)
	}
	k.object.Name, k.object.Version = string(b[:name]), string(b[name:name+version])
	table, data := b[name+version:][:n*extentHeader], b[name+version+n*extentHeader:]
	if k.n < 0 || k.n > k.object.Size/pageSize {
		return pageKey{}, nil, fmt.Errorf("%w: page %d of an object of %d bytes", errCorrupt, k.n, k.object.Size)
	}
	begin, limit := k.window()
	x, at := make(extents, 0, n), begin
	for ; len(table) > 0; table = table[extentHeader:] {
		off, length := begin+int64(le.Uint32(table)), int64(le.Uint32(table[4:]))
		if off < at || length > int64(len(data)) || off+length > limit {
			return pageKey{}, nil, fmt.Errorf("%w: an extent of %d bytes at %d", errCorrupt, length, off)
		}
		x = append(x, extent{off, data[:length:length]})
		data, at = data[length:], off+length
	}
	return k, x, nil
}
