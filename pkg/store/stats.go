package store

import (
	"sync/atomic"
	"time"

	"github.com/varve-io/varve/pkg/pagecache"
)

// stats are what one Series request took.
type stats struct {
	blocks, series, numChunks atomic.Int64
	reads                     pagecache.Usage
	// selecting is the time of looking up matchers, all blocks added up; rows and
	// chunks are the times that the answer waited for rows and for chunks.
	selecting, rows, chunks stage
}

// stage is time spent.
type stage struct{ nanos atomic.Int64 }

func (s *stage) since(began time.Time) { s.nanos.Add(int64(time.Since(began))) }

func (s *stage) took() time.Duration { return time.Duration(s.nanos.Load()) }

// report logs and counts what a request took, at its end.
func (r *request) report(took time.Duration) {
	s, m := &r.stats, r.g.metrics
	m.took.Observe(took.Seconds())
	m.requestGets.Observe(float64(s.reads.Requests.Load()))
	m.requestFetched.Observe(float64(s.reads.Fetched.Load()))
	for name, stage := range map[string]*stage{"select": &s.selecting, "rows": &s.rows, "chunks": &s.chunks} {
		m.stages.WithLabelValues(name).Add(stage.took().Seconds())
	}
	r.g.log.Debug("series answered", "selector", selector(r.Matchers), "took", took,
		"blocks", s.blocks.Load(), "touched", r.usage.touched.Load(), "series", s.series.Load(), "chunks", s.numChunks.Load(),
		"chunk_bytes", r.usage.bytes.Load(), "needed", s.reads.Needed.Load(), "fetched", s.reads.Fetched.Load(),
		"from_memory", s.reads.FromMemory.Load(), "from_disk", s.reads.FromDisk.Load(), "requests", s.reads.Requests.Load(),
		"select", s.selecting.took(), "rows", s.rows.took(), "fill", s.chunks.took())
}
