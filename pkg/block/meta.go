package block

import (
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// Meta is the content of a block's meta.json: Prometheus' own part and, under
// "thanos", what tells blocks of many producers apart in one bucket.
type Meta struct {
	ULID ulid.ULID `json:"ulid"`

	// MinTime is inclusive, MaxTime exclusive, both Unix milliseconds.
	MinTime int64 `json:"minTime"`
	MaxTime int64 `json:"maxTime"`

	Stats      Stats      `json:"stats"`
	Compaction Compaction `json:"compaction"`
	Version    int        `json:"version"` // always 1
	Thanos     Thanos     `json:"thanos"`
}

// Stats counts what a block holds.
type Stats struct {
	NumSamples          uint64 `json:"numSamples,omitempty"`
	NumFloatSamples     uint64 `json:"numFloatSamples,omitempty"`
	NumHistogramSamples uint64 `json:"numHistogramSamples,omitempty"`
	NumSeries           uint64 `json:"numSeries,omitempty"`
	NumChunks           uint64 `json:"numChunks,omitempty"`
	NumTombstones       uint64 `json:"numTombstones,omitempty"`
}

// Compaction is a block's origin.
type Compaction struct {
	// Level is 1 for what Prometheus cut from its head and rises by one with each merge.
	Level int `json:"level"`
	// Sources are the level-1 blocks whose samples this block holds, sorted.
	Sources []ulid.ULID `json:"sources,omitempty"`
	// Parents are the blocks this one was merged from.
	Parents   []Parent `json:"parents,omitempty"`
	Deletable bool     `json:"deletable,omitempty"`
	Failed    bool     `json:"failed,omitempty"`
	Hints     []string `json:"hints,omitempty"`
}

// Parent names a direct source of a merged block.
type Parent struct {
	ULID    ulid.ULID `json:"ulid"`
	MinTime int64     `json:"minTime"`
	MaxTime int64     `json:"maxTime"`
}

// Thanos is the part of meta.json that Thanos added.
type Thanos struct {
	Version    int               `json:"version,omitempty"` // 1; absent means 1
	Labels     map[string]string `json:"labels"`            // external labels of the producer
	Downsample Downsample        `json:"downsample"`
	Source     Source            `json:"source"`
	// SegmentFiles are the base names of the chunk segments, in order.
	SegmentFiles []string   `json:"segment_files,omitempty"`
	Files        []File     `json:"files,omitempty"` // sorted by RelPath
	IndexStats   IndexStats `json:"index_stats"`
	Extensions   any        `json:"extensions,omitempty"`
	// UploadTime is when the block came into the bucket; the zero time means unknown.
	UploadTime time.Time `json:"upload_time"`
}

// Downsample carries a block's resolution.
type Downsample struct {
	Resolution Resolution `json:"resolution"`
}

// File is one object of a block.
type File struct {
	RelPath   string    `json:"rel_path"`
	SizeBytes int64     `json:"size_bytes,omitempty"`
	Hash      *FileHash `json:"hash,omitempty"`
}

// FileHash is the checksum of a file in hexadecimal.
type FileHash struct {
	Func  string `json:"hashFunc"` // SHA256
	Value string `json:"value"`
}

// IndexStats help readers to size their reads; zero means unknown.
type IndexStats struct {
	SeriesMaxSize int64 `json:"series_max_size,omitempty"`
	ChunkMaxSize  int64 `json:"chunk_max_size,omitempty"`
}

// Source says what kind of program wrote a block.
type Source string

// The sources that Varve writes; other values are kept as they are.
const (
	SourceSidecar   Source = "sidecar"
	SourceCompactor Source = "compactor"
	SourceTest      Source = "test"
)

// Labels are the block's external labels.
func (m *Meta) Labels() labels.Labels { return labels.FromMap(m.Thanos.Labels) }

// Resolution is the resolution of the block's samples.
func (m *Meta) Resolution() Resolution { return m.Thanos.Downsample.Resolution }

// TimeRange is the span that the block covers.
func (m *Meta) TimeRange() TimeRange { return TimeRange{m.MinTime, m.MaxTime} }
