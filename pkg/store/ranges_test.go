package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// FuzzRanges checks that coalesced reads hold the bytes that single reads give,
// and that no piece is lost.
func FuzzRanges(f *testing.F) {
	f.Add([]byte{0, 0, 10, 0, 20, 5, 1, 0, 1})
	f.Add([]byte{0, 200, 255, 0, 0, 1, 0, 1, 0})
	f.Fuzz(func(t *testing.T, layout []byte) {
		segments := make([][]byte, 4)
		for i := range segments {
			segments[i] = make([]byte, 1<<20)
			for j := range segments[i] {
				segments[i][j] = byte(j*31 + i + j>>8)
			}
		}
		var pieces []piece
		for ; len(layout) >= 3; layout = layout[3:] {
			p := piece{segment: int(layout[0] % 4), off: int64(layout[1]) * 4000, size: int64(layout[2])*7 + 1, row: len(pieces)}
			pieces = append(pieces, p)
		}
		want := append([]piece(nil), pieces...)
		seen := map[int]bool{}
		for i, s := range coalesce(pieces) {
			if s.end-s.off <= 0 || len(s.pieces) == 0 {
				t.Fatalf("span %d is empty", i)
			}
			read := make([]byte, s.end-s.off)
			for _, c := range parts(int64(len(read))) {
				copy(read[c[0]:c[1]], segments[s.segment][s.off+c[0]:])
			}
			for _, p := range s.pieces {
				w := want[p.row]
				if p != w || p.segment != s.segment || p.off < s.off || p.off+p.size > s.end {
					t.Fatalf("piece %+v in span from %d to %d of segment %d, want %+v", p, s.off, s.end, s.segment, w)
				}
				if seen[p.row] {
					t.Fatalf("piece %d comes twice", p.row)
				}
				seen[p.row] = true
				if !bytes.Equal(read[p.off-s.off:][:p.size], segments[w.segment][w.off:][:w.size]) {
					t.Fatalf("piece %+v has other bytes", p)
				}
			}
		}
		if len(seen) != len(want) {
			t.Fatalf("%d pieces of %d", len(seen), len(want))
		}
	})
}

func TestPartsCoverALongRange(t *testing.T) {
	for _, size := range []int64{1, maxPart, maxPart + 1, 3*maxPart - 1} {
		at := int64(0)
		for _, c := range parts(size) {
			if c[0] != at || c[1] <= c[0] || c[1]-c[0] > maxPart {
				t.Fatalf("size %d: part from %d to %d after %d", size, c[0], c[1], at)
			}
			at = c[1]
		}
		if at != size {
			t.Errorf("parts end at %d, want %d", at, size)
		}
	}
}

// encode writes a chunk as a segment holds it.
func encode(encoding chunkenc.Encoding, data []byte) []byte {
	b := binary.AppendUvarint(nil, uint64(len(data)))
	body := len(b)
	b = append(append(b, byte(encoding)), data...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[body:], crc32.MakeTable(crc32.Castagnoli)))
}

func FuzzRecord(f *testing.F) {
	f.Add(encode(chunkenc.EncXOR, []byte("0123456789")))
	f.Add(encode(0xff, bytes.Repeat([]byte{7}, 300)))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f, 1})
	f.Add([]byte{0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, err := parseRecord(b)
		switch {
		case err != nil:
			if !errors.Is(err, errCorruptChunk) {
				t.Fatalf("error is %v", err)
			}
		case rec.size > int64(len(b)):
			if rec.data != nil {
				t.Fatal("data of a record that is not all there")
			}
		default:
			// The length may be written in more bytes than it needs.
			tail := encode(rec.encoding, rec.data)
			tail = tail[len(tail)-len(rec.data)-5:]
			if !bytes.HasSuffix(b[:rec.size], tail) {
				t.Fatalf("record %x does not end in %x", b[:rec.size], tail)
			}
		}
	})
}
