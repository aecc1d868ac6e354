package chunkcodec

import (
	"encoding/binary"
	"math"
)

// byteReader reads the part of a chunk that is whole bytes. Beyond the end it reads zeros and sets cut.
type byteReader struct {
	data []byte
	cut  bool
}

func (r *byteReader) varint() int64 {
	v, n := binary.Varint(r.data)
	return int64(r.take(uint64(v), n))
}

func (r *byteReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.data)
	return r.take(v, n)
}

func (r *byteReader) float() float64 {
	if len(r.data) < 8 {
		return math.Float64frombits(r.take(0, 0))
	}
	return math.Float64frombits(r.take(binary.BigEndian.Uint64(r.data), 8))
}

// take steps over n bytes, none where they held no value.
func (r *byteReader) take(v uint64, n int) uint64 {
	if n <= 0 {
		r.data, r.cut = nil, true
		return 0
	}
	r.data = r.data[n:]
	return v
}
