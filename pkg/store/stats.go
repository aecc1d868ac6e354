package store

import (
	"sync/atomic"
	"time"

	"github.com/varve-io/varve/pkg/pagecache"
	"github.com/varve-io/varve/pkg/storeapi"
)

// stats are what one Series request took.
type stats struct {
	began             time.Time
	blocks            []string // their ULIDs, those first picked
	series, numChunks atomic.Int64
	reads             pagecache.Usage
	// selecting is the time of looking up matchers and chunks that of reading them, all
	// blocks added up; waiting is the time that the answer waited for its blocks.
	selecting, chunks, waiting stage
}

// stage is time spent.
type stage struct{ nanos atomic.Int64 }

func (s *stage) since(began time.Time) { s.nanos.Add(int64(time.Since(began))) }

func (s *stage) took() time.Duration { return time.Duration(s.nanos.Load()) }

// Stats are what the answer took so far.
func (a *answer) Stats() storeapi.QueryStats {
	r := a.request
	s := &r.stats
	return storeapi.QueryStats{
		Blocks:  s.blocks,
		Touched: r.usage.touched.Load(), Series: s.series.Load(), Chunks: s.numChunks.Load(), ChunkBytes: r.usage.bytes.Load(),
		Requests: s.reads.Requests.Load(), Fetched: s.reads.Fetched.Load(),
		Waited: s.waiting.took(), Took: time.Since(s.began),
	}
}

// report logs and counts what a request took, at its end.
func (r *request) report() {
	s, m := &r.stats, r.g.metrics
	took := time.Since(s.began)
	m.took.Observe(took.Seconds())
	m.requestGets.Observe(float64(s.reads.Requests.Load()))
	m.requestFetched.Observe(float64(s.reads.Fetched.Load()))
	for name, stage := range map[string]*stage{"select": &s.selecting, "chunks": &s.chunks, "wait": &s.waiting} {
		m.stages.WithLabelValues(name).Add(stage.took().Seconds())
	}
	r.g.log.Debug("series answered", "selector", selector(r.Matchers), "took", took,
		"blocks", len(s.blocks), "touched", r.usage.touched.Load(), "series", s.series.Load(), "chunks", s.numChunks.Load(),
		"chunk_bytes", r.usage.bytes.Load(), "needed", s.reads.Needed.Load(), "fetched", s.reads.Fetched.Load(),
		"from_memory", s.reads.FromMemory.Load(), "from_disk", s.reads.FromDisk.Load(), "from_remote", s.reads.FromRemote.Load(), "requests", s.reads.Requests.Load(),
		"select", s.selecting.took(), "read_chunks", s.chunks.took(), "wait", s.waiting.took())
}
