package aggrchunk

import "github.com/prometheus/prometheus/tsdb/chunkenc"

// Encoding is the encoding byte of an aggregate chunk in a segment file.
const Encoding chunkenc.Encoding = 0xff

// Kind names one aggregate of a downsampled window; its value is the position
// of the aggregate inside the chunk.
type Kind uint8

// The aggregates, in the order in which a chunk holds them.
const (
	Count Kind = iota
	Sum
	Min
	Max
	Counter
	NumKinds = 5
)

// String is the lower-case name of the aggregate.
func (k Kind) String() string {
	return [...]string{"count", "sum", "min", "max", "counter", "unknown"}[min(k, NumKinds)]
}

// Kinds is a set of aggregates.
type Kinds uint8

// AllKinds asks for every aggregate.
const AllKinds Kinds = 1<<NumKinds - 1

// KindsOf builds a set.
func KindsOf(kinds ...Kind) (set Kinds) {
	for _, k := range kinds {
		set |= 1 << k
	}
	return set
}

// Has reports whether k is in the set.
func (s Kinds) Has(k Kind) bool { return s&(1<<k) != 0 }
