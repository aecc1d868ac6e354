package series

import (
	"cmp"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
)

// Chunk is an encoded run of samples. Data is never written to after the chunk
// was handed out; several chunks may alias one buffer.
type Chunk struct {
	// MinTime and MaxTime are the times of the first and the last sample, both
	// inclusive, Unix milliseconds.
	MinTime, MaxTime int64
	// Resolution is the window in milliseconds (0, 300000 or 3600000).
	Resolution int64
	// Encoding is one of Prometheus' for raw samples, and also for those that
	// predate downsampling in a downsampled block; aggrchunk.Encoding otherwise.
	Encoding chunkenc.Encoding
	// Data is the chunk's payload without length, encoding byte and checksum.
	// For aggregate chunks, aggregates that nobody asked for may be absent.
	Data []byte
}

// Series is one time series of one replica.
type Series struct {
	// Labels are the final labels: external labels merged in, and the replica
	// labels taken out where the request said so.
	Labels labels.Labels
	// Replica identifies where the samples come from: the values of the removed
	// labels in the order of their names, joined by ReplicaSep. It is empty when no label was removed, or
	// the source carried none of them (an already deduplicated block).
	Replica string
	// Chunks are sorted by MinTime, then MaxTime. They may overlap when they come from different
	// blocks, and they may reach outside the requested range.
	Chunks []Chunk
}

// ReplicaSep joins the values of several replica labels in Series.Replica.
const ReplicaSep = "\xff"

// Set is a sequence of series sorted by labels, then replica. Equal labels and replica may come
// several times in a row; merge joins them. A Set is used by one goroutine.
// What At returns stays valid after Next, until the context of the call that made the set ends.
type Set interface {
	Next() bool
	At() *Series
	// Err is the error that ended the iteration early.
	Err() error
	// Warnings are complete once Next has returned false.
	Warnings() annotations.Annotations
}

// Compare orders series by labels, then replica.
func Compare(a, b *Series) int {
	// Equal is told at a glance by those who share their labels.
	if !labels.Equal(a.Labels, b.Labels) {
		return labels.Compare(a.Labels, b.Labels)
	}
	return strings.Compare(a.Replica, b.Replica)
}

// CompareChunks orders chunks by first, then by last timestamp, then finer resolution first.
func CompareChunks(a, b Chunk) int {
	return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), cmp.Compare(a.MaxTime, b.MaxTime), cmp.Compare(a.Resolution, b.Resolution))
}
