package series

import (
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// ToStorageSet shows a set of raw series to Prometheus' engine, cut to the
// samples from mint to maxt, both inclusive. Replicas are not told apart:
// the set must hold every label set once.
func ToStorageSet(set Set, mint, maxt int64) storage.SeriesSet {
	return &storageSet{Set: set, mint: mint, maxt: maxt}
}

type storageSet struct {
	Set
	mint, maxt int64
}

func (s *storageSet) At() storage.Series {
	return &storageSeries{series: s.Set.At(), mint: s.mint, maxt: s.maxt}
}

type storageSeries struct {
	series     *Series
	mint, maxt int64
}

func (s *storageSeries) Labels() labels.Labels { return s.series.Labels }

func (s *storageSeries) Iterator(it chunkenc.Iterator) chunkenc.Iterator {
	return Samples(s.series.Chunks, s.mint, s.maxt, it)
}

// ToChunkSeriesSet shows a set to Prometheus' writers and mergers, chunk by
// chunk; aggregate chunks among them are *aggrchunk.Chunk. Replicas are not told apart.
func ToChunkSeriesSet(set Set) storage.ChunkSeriesSet { return &chunkSeriesSet{set} }

type chunkSeriesSet struct{ Set }

func (s *chunkSeriesSet) At() storage.ChunkSeries { return s.Set.At().ChunkSeries() }

// ChunkSeries shows the series' labels and chunks as Prometheus' interface.
func (s *Series) ChunkSeries() storage.ChunkSeries {
	return &storage.ChunkSeriesEntry{
		Lset:            s.Labels,
		ChunkIteratorFn: func(chunks.Iterator) chunks.Iterator { return &metas{chunks: s.Chunks} },
	}
}

// metas opens one chunk after the other.
type metas struct {
	chunks []Chunk
	at     chunks.Meta
	err    error
}

func (m *metas) Next() bool {
	if len(m.chunks) == 0 || m.err != nil {
		return false
	}
	c := m.chunks[0]
	m.chunks = m.chunks[1:]
	chunk, err := c.Open()
	if err != nil {
		m.err = fmt.Errorf("chunk from %d to %d: %w", c.MinTime, c.MaxTime, err)
		return false
	}
	m.at = chunks.Meta{MinTime: c.MinTime, MaxTime: c.MaxTime, Chunk: chunk}
	return true
}

func (m *metas) At() chunks.Meta { return m.at }
func (m *metas) Err() error      { return m.err }

// FromMeta takes a chunk over from Prometheus; its bytes are aliased.
func FromMeta(m chunks.Meta, resolution int64) Chunk {
	return Chunk{
		MinTime:    m.MinTime,
		MaxTime:    m.MaxTime,
		Resolution: resolution,
		Encoding:   m.Chunk.Encoding(),
		Data:       m.Chunk.Bytes(),
	}
}
