package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

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
