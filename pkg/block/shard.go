package block

import (
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
)

// ShardLabel is the external label of a block that holds only some series of its
// stream. Its value is the text of a Shard. Our readers never show it.
const ShardLabel = "__varve_shard__"

// Shard is a part of a stream's series: those whose labels, as they are in the block,
// without external ones, have a hash that is Index modulo Of. Of is a power of two, so
// of two shards one covers the other or they have nothing in common. The zero value is
// the whole stream.
type Shard struct{ Index, Of uint64 }

// MaxShards bounds Shard.Of.
const MaxShards = 1 << 16

// String is 1_of_4 for the first of four shards, and empty for the whole.
func (s Shard) String() string {
	if s.Whole() {
		return ""
	}
	return fmt.Sprintf("%d_of_%d", s.Index+1, s.Of)
}

// Whole reports whether the shard has all series.
func (s Shard) Whole() bool { return s.Of <= 1 }

func (s Shard) of() uint64 { return max(1, s.Of) }

// Holds reports whether a series with these labels is of the shard.
func (s Shard) Holds(lset labels.Labels) bool {
	return s.Whole() || labels.StableHash(lset)%s.Of == s.Index
}

// Covers reports whether every series of o is one of s.
func (s Shard) Covers(o Shard) bool { return s.of() <= o.of() && o.Index%s.of() == s.Index }

// Overlaps reports whether a series may be of both.
func (s Shard) Overlaps(o Shard) bool { return s.Covers(o) || o.Covers(s) }

// CoveredBy reports whether every series of s is of one of the shards.
func (s Shard) CoveredBy(shards []Shard) bool {
	within := false
	for _, o := range shards {
		if o.Covers(s) {
			return true
		}
		within = within || s.Covers(o)
	}
	if !within {
		return false
	}
	for _, half := range s.Split(2) {
		if !half.CoveredBy(shards) {
			return false
		}
	}
	return true
}

// Split gives n shards that have the series of s together, each one once; n is a power of two.
// Series with the hash h are in the one numbered h / s.Of modulo n.
func (s Shard) Split(n uint64) []Shard {
	if n <= 1 {
		return []Shard{s}
	}
	out := make([]Shard, n)
	for i := range out {
		out[i] = Shard{s.Index + uint64(i)*s.of(), s.of() * n}
	}
	return out
}

// Pick gives the number of that shard among Split(n) of which a series of s is.
func (s Shard) Pick(lset labels.Labels, n uint64) int {
	return int(labels.StableHash(lset) / s.of() % n)
}

// parseShard reads what String wrote.
func parseShard(text string) (Shard, bool) {
	first, second, _ := strings.Cut(text, "_of_")
	i, err := strconv.ParseUint(first, 10, 32)
	of, err2 := strconv.ParseUint(second, 10, 32)
	s := Shard{i - 1, of}
	ok := err == nil && err2 == nil && i >= 1 && i <= of && of > 1 && of <= MaxShards && of&(of-1) == 0 && s.String() == text
	return s, ok
}

// Shard is the part of its stream's series that the block holds. A shard label that
// Varve did not write is a label like any other, and stands for no shard.
func (m *Meta) Shard() Shard {
	text := m.Thanos.Labels[ShardLabel]
	if text == "" {
		return Shard{}
	}
	s, ok := parseShard(text)
	if !ok {
		return Shard{}
	}
	return s
}

// SeriesLabels are the external labels that the block's series are served with: all but that of its shard.
func (m *Meta) SeriesLabels() labels.Labels {
	if m.Shard().Whole() {
		return m.Labels()
	}
	rest := maps.Clone(m.Thanos.Labels)
	delete(rest, ShardLabel)
	return labels.FromMap(rest)
}

// WithShard gives external labels with that of a shard.
func WithShard(lset labels.Labels, s Shard) labels.Labels {
	if s.Whole() {
		return lset
	}
	return labels.NewBuilder(lset).Set(ShardLabel, s.String()).Labels()
}
