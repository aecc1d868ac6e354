package store

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/varve-io/varve/pkg/pagecache"
	"github.com/varve-io/varve/pkg/storeapi"
)

// stats are what one Series request took.
type stats struct {
	arrived, began    time.Time // before and after it waited for its turn
	blocks            []string  // their ULIDs, those first picked
	series, numChunks atomic.Int64
	// What all blocks took side by side, added up.
	selecting, entries, chunks stage
	// waiting is how long the answer waited for that.
	waiting stage
}

// stage is time spent, and what was read in it.
type stage struct {
	nanos atomic.Int64
	reads pagecache.Usage
}

func (s *stage) since(began time.Time) { s.nanos.Add(int64(time.Since(began))) }

func (s *stage) took() time.Duration { return time.Duration(s.nanos.Load()) }

// under makes reads under the context those of the stage.
func (s *stage) under(ctx context.Context) context.Context { return pagecache.WithUsage(ctx, &s.reads) }

// as gives the stage a name.
func (s *stage) as(name string) storeapi.Stage {
	r := &s.reads
	return storeapi.Stage{
		Name: name, Took: s.took(),
		Ranges: r.Ranges.Load(), Needed: r.Needed.Load(),
		FromMemory: r.FromMemory.Load(), FromDisk: r.FromDisk.Load(), FromRemote: r.FromRemote.Load(), Shared: r.Shared.Load(),
		Requests: r.Requests.Load(), Fetched: r.Fetched.Load(),
	}
}

// Stats are what the answer took so far.
func (a *answer) Stats() storeapi.QueryStats { return a.request.took() }

// took is what the request took so far.
func (r *request) took() storeapi.QueryStats {
	s, now := &r.stats, time.Now()
	waited := s.waiting.took()
	return storeapi.QueryStats{
		Blocks:  s.blocks,
		Touched: r.usage.touched.Load(), Series: s.series.Load(), Chunks: s.numChunks.Load(),
		Took: now.Sub(s.arrived),
		Stages: []storeapi.Stage{
			{Name: storeapi.StageTurn, Took: s.began.Sub(s.arrived)},
			s.selecting.as(storeapi.StageSelect),
			s.entries.as(storeapi.StageEntries),
			s.chunks.as(storeapi.StageChunks),
			{Name: storeapi.StageWait, Took: waited},
			{Name: storeapi.StageSend, Took: max(0, now.Sub(s.began)-waited)},
		},
	}
}

// report logs and counts what a request took, at its end.
func (r *request) report() {
	took, m := r.took(), r.g.metrics
	m.took.Observe(time.Since(r.stats.began).Seconds())
	m.series.Add(float64(took.Series))
	m.touched.Add(float64(took.Touched))
	all := took.Total()
	m.requestGets.Observe(float64(all.Requests))
	m.requestFetched.Observe(float64(all.Fetched))
	m.requestNeeded.Observe(float64(all.Needed))
	m.count(took.Stages...)
	r.g.logTook(took.Took, append([]any{
		"request", "series", "selector", selector(r.Matchers), "from", timeText(r.MinTime), "to", timeText(r.MaxTime), "took", took.Took,
		"blocks", len(took.Blocks), "touched", took.Touched, "series", took.Series, "chunks", took.Chunks,
	}, stageAttrs(took.Stages...)...))
}

// logTook logs what a request took: as information if it was slow, else for who looks for it.
func (g *Gateway) logTook(took time.Duration, attrs []any) {
	if slow := g.opts.LogLongerThan; slow > 0 && took > slow {
		g.log.Info("slow request", attrs...)
		return
	}
	g.log.Debug("request answered", attrs...)
}

// stageAttrs are stages for a log line.
func stageAttrs(stages ...storeapi.Stage) (attrs []any) {
	for _, s := range stages {
		one := []any{"took", s.Took}
		if s.Ranges > 0 {
			one = append(one, "ranges", s.Ranges, "needed", s.Needed, "memory", s.FromMemory, "disk", s.FromDisk,
				"remote", s.FromRemote, "shared", s.Shared, "requests", s.Requests, "fetched", s.Fetched)
		}
		attrs = append(attrs, slog.Group(s.Name, one...))
	}
	return attrs
}
