package aggrchunk

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// ErrInvalid marks a payload that is not an aggregate chunk.
var ErrInvalid = errors.New("invalid aggregate chunk")

// Sub is one aggregate of a chunk: an ordinary chunk of Prometheus, XOR or float histogram.
// The zero value stands for an absent aggregate.
type Sub struct {
	Encoding chunkenc.Encoding
	Data     []byte
}

// Present reports whether the aggregate is there.
func (s Sub) Present() bool { return len(s.Data) > 0 }

// Subs are the aggregates of a chunk, indexed by Kind.
type Subs [NumKinds]Sub

// Kinds is the set of aggregates that are present.
func (s Subs) Kinds() (set Kinds) {
	for k := range s {
		if s[k].Present() {
			set |= KindsOf(Kind(k))
		}
	}
	return set
}

// Append appends the payload of an aggregate chunk to dst. What goes into a
// block should hold Counter: other readers report an absent last aggregate as
// damage.
func Append(dst []byte, subs Subs) []byte {
	for _, s := range subs {
		dst = binary.AppendUvarint(dst, uint64(len(s.Data)))
		if !s.Present() {
			continue
		}
		dst = append(dst, byte(s.Encoding))
		dst = append(dst, s.Data...)
	}
	return dst
}

// Encode returns the payload of an aggregate chunk.
func Encode(subs Subs) []byte {
	return Append(make([]byte, 0, MaxSize(subs)), subs)
}

// MaxSize is how many bytes a payload takes at most.
func MaxSize(subs Subs) (size int) {
	for _, s := range subs {
		size += binary.MaxVarintLen32 + 1 + len(s.Data)
	}
	return size
}

// Decode splits a payload into its aggregates, which alias it. The aggregates
// themselves are not looked at.
func Decode(payload []byte) (subs Subs, err error) {
	rest := payload
	for k := range subs {
		size, n := binary.Uvarint(rest)
		if n <= 0 {
			return Subs{}, fmt.Errorf("decode %s: %w: no length", Kind(k), ErrInvalid)
		}
		rest = rest[n:]
		if size == 0 {
			continue
		}
		if size >= uint64(len(rest)) { // the encoding byte is not counted in size
			return Subs{}, fmt.Errorf("decode %s: %w: %d bytes announced, %d left", Kind(k), ErrInvalid, size, len(rest))
		}
		subs[k] = Sub{Encoding: chunkenc.Encoding(rest[0]), Data: rest[1 : size+1 : size+1]}
		rest = rest[size+1:]
	}
	if len(rest) > 0 {
		return Subs{}, fmt.Errorf("decode: %w: %d bytes after the last aggregate", ErrInvalid, len(rest))
	}
	return subs, nil
}

// NumSamples returns how many windows a payload holds, which is the sample count of its
// count aggregate, or of the first aggregate present when count was not asked for.
// Zero stands for damage, too.
func NumSamples(payload []byte) int {
	subs, err := Decode(payload)
	if err != nil {
		return 0
	}
	return subs.NumSamples()
}

// NumSamples is what the function of that name says of their payload.
func (s Subs) NumSamples() int {
	for k, s := range s {
		if len(s.Data) < 2 {
			continue
		}
		n := int(binary.BigEndian.Uint16(s.Data))
		if Kind(k) == Counter && s.Encoding == chunkenc.EncXOR {
			n = max(0, n-2) // first and last raw values
		}
		return n
	}
	return 0
}
