package store

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sync/semaphore"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockindex"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
)

// Series answers one request: pick blocks, stream each, merge the streams.
func (g *Gateway) Series(ctx context.Context, req *storeapi.Request) series.Set {
	if err := req.Validate(); err != nil {
		return series.ErrSet(err)
	}
	arrived := time.Now()
	memory, err := g.budget.enter(ctx, firstShare(g.opts.RequestBytes), func() bool { return g.narrow(ctx, req) })
	if err != nil {
		return series.ErrSet(err)
	}
	g.metrics.waited.Observe(time.Since(arrived).Seconds())
	g.metrics.inFlight.Inc()
	r := g.newRequest(ctx, req, memory)
	r.stats.arrived = arrived
	streams, err := r.pick()
	if err != nil {
		r.finish()
		return series.ErrSet(err)
	}
	g.metrics.blocksQueried.Observe(float64(len(streams)))
	if len(streams) > 1 {
		r.shared = blockindex.NewSharedLabels()
	}
	return r.answer(streams) //nolint:contextcheck // the context of the request is that of its caller
}

// request is a Series call that is being answered.
type request struct {
	*storeapi.Request
	g      *Gateway
	ctx    context.Context //nolint:containedctx // a set is pulled from after the call that made it
	usage  usage
	stats  stats
	share  *share
	finish func() // ends all streams; may be called more than once
	// workers bounds the streams that read at the same time.
	workers *semaphore.Weighted
	finding *window // memory in which streams find their series
	// active are the streams that did not end.
	active atomic.Int64
	// reclaims says that the reader calls Reclaim, and left holds what streams are
	// through with since it last did.
	reclaims bool
	left     []leftSpan
	sampled  sample
	shared   *blockindex.SharedLabels // by the streams, if there are several
}

func (g *Gateway) newRequest(ctx context.Context, req *storeapi.Request, memory *share) *request {
	r := &request{
		Request: req,
		g:       g,
		usage:   g.newUsage(req.Matchers, memory),
		share:   memory,
		finding: newWindow(),
		workers: semaphore.NewWeighted(int64(g.opts.Cache.Concurrency)),
	}
	r.stats.began = time.Now()
	ctx, cancel := context.WithCancel(r.usage.under(ctx))
	r.ctx = ctx
	r.finish = sync.OnceFunc(func() {
		cancel()
		memory.leave()
		g.metrics.inFlight.Dec()
		r.report()
	})
	return r
}

// pick plans which blocks to read.
func (r *request) pick() ([]*blockStream, error) {
	r.g.mu.Lock()
	defer r.g.mu.Unlock()
	concerned, err := r.g.concerned(r.Request)
	if err != nil {
		return nil, err
	}
	var streams []*blockStream
	for _, c := range concerned {
		streams = append(streams, r.hold(c.pick, c.matchers))
		r.stats.blocks = append(r.stats.blocks, c.block.meta.ULID.String())
	}
	return streams, nil
}

// concerned is a block that a request reads.
type concerned struct {
	pick
	matchers []*labels.Matcher // those that its external labels do not answer
}

// concerned plans which blocks a request reads. The caller holds mu.
func (g *Gateway) concerned(req *storeapi.Request) ([]concerned, error) {
	set, err := g.current()
	if err != nil {
		return nil, err
	}
	want := g.clip(req.MinTime, req.MaxTime)
	var all []concerned
	for _, st := range set.streams {
		matchers, ok := storeapi.MatchExternal(st.labels, req.Matchers)
		if !ok {
			continue
		}
		for _, p := range planAll(st.parts, want, req.MaxResolution, req.Fallback) {
			all = append(all, concerned{p, matchers})
		}
	}
	return all, nil
}

// blocksFor is concerned for a caller that does not hold mu.
func (g *Gateway) blocksFor(req *storeapi.Request) ([]concerned, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.concerned(req)
}

// answer begins to read. From now on the end of the context ends the request; not
// before, for the end reports what was picked.
func (r *request) answer(streams []*blockStream) *answer {
	context.AfterFunc(r.ctx, r.finish)
	return &answer{Set: r.start(streams), request: r}
}

// clip is the half-open range of a request within what the gateway answers for.
func (g *Gateway) clip(mint, maxt int64) block.TimeRange {
	bounds := g.opts.bounds(time.Now())
	return block.TimeRange{MinTime: max(mint, bounds.MinTime), MaxTime: min(max(maxt, minTime), bounds.MaxTime-1) + 1}
}

// hold makes a stream that Gateway.Close waits for. The caller holds Gateway.mu.
func (r *request) hold(p pick, matchers []*labels.Matcher) *blockStream {
	r.g.running.Add(1)
	return newBlockStream(r, p, matchers)
}

// replace plans the range of a block that vanished once more, over the blocks of
// now that hold the same samples. It returns none when there are no such blocks.
func (r *request) replace(gone *blockStream) ([]*blockStream, error) {
	r.g.mu.Lock()
	defer r.g.mu.Unlock()
	set, err := r.g.current()
	if err != nil {
		return nil, err
	}
	var streams []*blockStream
	for _, st := range set.streams {
		matchers, ok := storeapi.MatchExternal(st.labels, r.Matchers)
		if !ok {
			continue
		}
		heirs := st.heirs(&gone.pick)
		for _, t := range gone.times {
			for _, p := range planAll(heirs, t, r.MaxResolution, r.Fallback) {
				s := r.hold(p, matchers)
				s.replaces, s.after = true, gone.last
				streams = append(streams, s)
			}
		}
	}
	return streams, nil
}

// inherits reports whether m was made of what gone was made of.
func inherits(m, gone *block.Meta) bool {
	if m.ULID == gone.ULID {
		return true // it was written anew
	}
	for name, value := range m.Thanos.Labels {
		if name != block.ShardLabel && gone.Thanos.Labels[name] != value {
			return false
		}
	}
	for _, id := range gone.Compaction.Sources {
		if slices.Contains(m.Compaction.Sources, id) {
			return true
		}
	}
	return false
}

// answer is the merged set, which ends the request with itself.
type answer struct {
	series.Set
	request *request
	count   int           // of label sets
	last    labels.Labels // the one counted last
	err     error
	ended   bool
}

func (a *answer) Next() bool {
	r := a.request
	if a.ended {
		return false
	}
	if !a.Set.Next() {
		return a.end(a.Set.Err())
	}
	at := a.At()
	// The replicas of a series count as one.
	if a.count == 0 || !labels.Equal(a.last, at.Labels) {
		if r.Limit > 0 && a.count == r.Limit {
			return a.end(nil)
		}
		a.count++
		r.stats.series.Add(1)
		a.last = at.Labels
	}
	samples := 0
	if r.usage.limits.ResponseSamples > 0 { // else nobody asks, and to look at all chunks once more takes time
		for _, c := range at.Chunks {
			n, _ := c.NumSamples() // as it was counted when it was read
			samples += n
		}
	}
	if err := r.usage.answerSeries(samples); err != nil {
		return a.end(err)
	}
	return true
}

// Reclaim implements storeapi.Reclaimable.
func (a *answer) Reclaim() {
	r := a.request
	r.reclaims = true
	for i := range r.left {
		r.left[i].free()
	}
	clear(r.left)
	r.left = r.left[:0]
	if merged, ok := a.Set.(storeapi.Reclaimable); ok {
		merged.Reclaim()
	}
}

func (a *answer) end(err error) bool {
	if errors.Is(err, storeapi.ErrLimit) {
		err = a.request.sampled.advise(a.request.ctx, err, a.request.Matchers)
	}
	a.ended, a.err = true, err
	a.request.finish()
	return false
}

// Err is the error that ended the answer early.
func (a *answer) Err() error { return a.err }
