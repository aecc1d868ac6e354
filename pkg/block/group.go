package block

import (
	"strings"

	"github.com/prometheus/prometheus/model/labels"
)

// Deduped is the value that a replica label gets where a block would lose all
// its external labels with it. Thanos writes the same.
const Deduped = "deduped"

// GroupKey names the blocks that may be merged with each other: those of one
// stream, or one shard of it, in one resolution. It is comparable; it is never stored.
type GroupKey struct {
	// Stream is the text of the external labels without the replica labels and that of the shard.
	Stream     string
	Resolution Resolution
	Shard      Shard
}

// String is for logs and metrics: {cluster="a"}@5m, or {cluster="a"}@5m/1_of_4.
func (k GroupKey) String() string {
	text := k.Stream + "@" + k.Resolution.String()
	if !k.Shard.Whole() {
		text += "/" + k.Shard.String()
	}
	return text
}

// Group names the block's group when the replica labels do not tell streams apart.
func (m *Meta) Group(replicaLabels []string) GroupKey {
	return GroupKey{m.StreamLabels(replicaLabels).String(), m.Resolution(), m.Shard()}
}

// Replica names the replica that the block is from; it is empty for a merged block
// and where there are no replicas.
func (m *Meta) Replica(replicaLabels []string) string {
	var values []string
	for _, name := range replicaLabels {
		if v := m.Thanos.Labels[name]; v != "" && v != Deduped {
			values = append(values, name+"="+v)
		}
	}
	return strings.Join(values, ",")
}

// StreamLabels are the external labels without the replica labels and that of the
// shard: those of series that were merged from all replicas. They are empty only if
// there are no others at all: the first replica label stays, as Deduped, if nothing else would.
func (m *Meta) StreamLabels(replicaLabels []string) labels.Labels {
	all := m.SeriesLabels()
	rest := labels.NewBuilder(all).Del(replicaLabels...).Labels()
	if !rest.IsEmpty() || all.IsEmpty() {
		return rest
	}
	for _, name := range replicaLabels {
		if all.Has(name) {
			return labels.FromStrings(name, Deduped)
		}
	}
	return rest
}
