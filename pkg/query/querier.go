package query

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/dedup"
	"github.com/varve-io/varve/pkg/panics"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
)

// rawAtLeast is how long raw data live at the least: downsampling begins with
// blocks of that length, and retention must leave them. What is younger has not
// been replaced by coarser data.
const rawAtLeast = 40 * time.Hour

// querier is a storage.Querier for one evaluation.
type querier struct {
	*queryable
	mint, maxt int64

	mu      sync.Mutex
	cancels []context.CancelFunc
	wait    sync.WaitGroup
}

// Select starts to fetch at once, so the selectors of a query are fetched side
// by side, and returns a set that waits for it.
func (q *querier) Select(ctx context.Context, _ bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	marked := false
	if q.rewritten {
		matchers, marked = unmark(matchers)
	}
	s := q.newSelection(hints, matchers)
	if marked {
		s.agg = count
	}
	s.done = make(chan struct{})

	ctx, cancel := context.WithCancel(q.params.within(ctx))
	q.mu.Lock()
	q.cancels = append(q.cancels, cancel)
	q.mu.Unlock()
	q.wait.Go(func() {
		defer close(s.done)
		s.err = s.fetch(ctx)
	})
	return s
}

// LabelNames implements storage.LabelQuerier.
func (q *querier) LabelNames(ctx context.Context, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return q.store.LabelNames(q.params.within(ctx), q.labelsRequest(hints, matchers))
}

// LabelValues implements storage.LabelQuerier.
func (q *querier) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return q.store.LabelValues(q.params.within(ctx), name, q.labelsRequest(hints, matchers))
}

func (q *querier) labelsRequest(hints *storage.LabelHints, matchers []*labels.Matcher) *storeapi.LabelsRequest {
	req := &storeapi.LabelsRequest{MinTime: q.mint, MaxTime: q.maxt, Matchers: matchers, Partial: q.params.partial()}
	if hints != nil && hints.Limit > 0 {
		req.Limit = hints.Limit
	}
	return req
}

// Close ends what is still being fetched and lets go of all series.
func (q *querier) Close() error {
	q.mu.Lock()
	for _, cancel := range q.cancels {
		cancel()
	}
	q.mu.Unlock()
	q.wait.Wait()
	return nil
}

// selection is one Select: the request, and the series once they are there.
type selection struct {
	q       *querier
	req     *storeapi.Request
	agg     aggregate
	allowed block.Resolution
	looks   looks
	misread bool   // the function around it is one that only the rewritten expression has right
	loss    string // what the function around it loses over coarse data

	done     chan struct{} // closed when what follows is set
	series   []selected
	warnings annotations.Annotations
	err      error

	at int
}

// newSelection makes the request of a selector out of the engine's hints.
func (q *querier) newSelection(hints *storage.SelectHints, matchers []*labels.Matcher) *selection {
	h := storage.SelectHints{Start: q.mint, End: q.maxt}
	if hints != nil {
		h = *hints
	}
	read := readingOver(h.Func, h.Range)
	s := &selection{
		q:       q,
		agg:     read.aggregate,
		misread: read.rewritten && !q.rewritten,
		loss:    lossOf(h.Func, read),
		looks:   looks{start: h.Start, end: h.End, step: h.Step, rangeMillis: h.Range, lookback: q.params.Lookback.Milliseconds()},
		at:      -1,
	}
	s.allowed = s.agg.coarsest(q.params.resolution(), s.looks)
	s.req = &storeapi.Request{
		MinTime: h.Start, MaxTime: h.End, Matchers: matchers,
		MaxResolution: s.allowed, Fallback: block.OneHour, Aggregates: s.agg.kinds(),
		WithoutLabels: q.params.withoutLabels(),
		SkipChunks:    h.Func == "series",
		Limit:         h.Limit,
		Partial:       q.params.partial(),
		Shard:         q.params.Shard,
	}
	if s.req.SkipChunks {
		return s
	}
	// A downsampled sample stands at the end of its window and is read together
	// with its neighbours: look one window further on both sides.
	guard := int64(s.allowed)
	if h.Start < q.now.Add(-rawAtLeast).UnixMilli() {
		guard = int64(block.OneHour)
	}
	s.req.MinTime -= guard
	s.req.MaxTime += guard
	if len(s.req.WithoutLabels) > 0 {
		s.req.MinTime, s.req.MaxTime = dedup.Widen(s.req.MinTime, s.req.MaxTime)
		s.req.Aggregates |= aggrchunk.KindsOf(aggrchunk.Count) // by which replicas are chosen
	}
	return s
}

// fetch reads the whole answer into memory; its bytes are on the query's account.
func (s *selection) fetch(ctx context.Context) (err error) {
	defer panics.Recovered(&err)
	if err := s.q.selects.Acquire(ctx, 1); err != nil {
		return err
	}
	defer s.q.selects.Release(1)
	set := s.q.store.Series(ctx, s.req)
	if len(s.req.WithoutLabels) > 0 {
		return s.collectGroups(dedup.NewGroups(set))
	}
	for set.Next() {
		at := set.At()
		s.series = append(s.series, selected{labels: at.Labels, chunks: at.Chunks})
	}
	s.warnings = set.Warnings()
	return set.Err()
}

// selected is one series of a selection.
type selected struct {
	labels labels.Labels
	chunks []series.Chunk
	raw    *dedup.Group // in place of chunks: replicas that have raw samples alone, and become one series when they are read
}

// collectGroups makes one series of each group. Where there is anything but raw samples, chunks of all
// resolutions are looked at together, so those are deduplicated here.
func (s *selection) collectGroups(groups *dedup.Groups) error {
	for groups.Next() {
		g := groups.At()
		one := selected{labels: g.Labels, raw: g}
		if !g.Raw() {
			chunks, err := s.q.dedup.Chunks(g)
			if err != nil {
				return err
			}
			one = selected{labels: g.Labels, chunks: chunks}
		}
		s.series = append(s.series, one)
	}
	s.warnings = groups.Warnings()
	return groups.Err()
}

// Next implements storage.SeriesSet.
func (s *selection) Next() bool {
	<-s.done
	if s.err != nil || s.at+1 >= len(s.series) {
		return false
	}
	s.at++
	return true
}

// At returns a series that stays valid after Next.
func (s *selection) At() storage.Series {
	at := s.series[s.at]
	if at.raw != nil {
		first, last := at.raw.Span()
		s.recordServed(segment{span: anytime(), resolution: block.Raw}, first, last)
		return &rawSeries{selection: s, group: at.raw}
	}
	c := &coarseSeries{selection: s, labels: at.labels, segments: segments(at.chunks, s.allowed)}
	for _, seg := range c.segments {
		first, last := seg.chunks[0].MinTime, seg.chunks[0].MaxTime
		for _, c := range seg.chunks {
			last = max(last, c.MaxTime)
		}
		s.recordServed(seg, first, last)
	}
	return c
}

// recordServed notes what part of the time asked for a segment serves, which has samples from first to last.
func (s *selection) recordServed(seg segment, first, last int64) {
	if seg.resolution > block.Raw {
		first = windowStart(first, int64(seg.resolution))
	}
	sp := span{max(seg.from, first, s.looks.start), min(seg.to, last, s.looks.end)}
	s.q.served.add(seg.resolution, sp, s.misread)
	if seg.resolution > block.Raw && sp.from <= sp.to && s.loss != "" {
		s.q.served.lose(s.loss)
	}
}

func (s *selection) Err() error {
	<-s.done
	return s.err
}

func (s *selection) Warnings() annotations.Annotations {
	<-s.done
	return s.warnings
}

// rawSeries is a storage.Series of replicas that have raw samples alone.
type rawSeries struct {
	*selection
	group *dedup.Group
}

func (r *rawSeries) Labels() labels.Labels { return r.group.Labels }

func (r *rawSeries) Iterator(it chunkenc.Iterator) chunkenc.Iterator {
	if c, ok := it.(*counted); ok {
		it = c.Iterator
	}
	it = r.q.dedup.Iterator(r.group, r.looks.start, r.looks.end, it)
	if r.agg == count {
		return &counted{Iterator: it}
	}
	return it
}

// coarseSeries is a storage.Series over chunks of any resolution.
type coarseSeries struct {
	*selection
	labels   labels.Labels
	segments []segment
}

func (c *coarseSeries) Labels() labels.Labels { return c.labels }

// Iterator reads the segments one after the other; a series of raw chunks alone is read as it is.
func (c *coarseSeries) Iterator(it chunkenc.Iterator) chunkenc.Iterator {
	raw := len(c.segments) == 1 && c.segments[0].resolution == block.Raw
	switch {
	case raw && c.agg != count:
		return rawSamples(c.segments[0].chunks, c.looks, it)
	case c.agg == counter:
		return newChained(1, func(int) (chunkenc.Iterator, error) { return c.counterIterator() })
	case c.agg == resetting || c.agg == changing:
		return newChained(1, func(int) (chunkenc.Iterator, error) { return happenings(c.segments, c.agg, c.looks) })
	}
	return newChained(len(c.segments), func(i int) (chunkenc.Iterator, error) {
		scraped, err := rhythmFor(c.agg, c.segments, c.looks)
		if err != nil {
			return nil, err
		}
		return c.segments[i].iterator(c.agg, c.looks, scraped)
	})
}

// counterIterator reads the whole series as one counter without resets.
func (c *coarseSeries) counterIterator() (chunkenc.Iterator, error) {
	scraped, err := rhythmFor(c.agg, c.segments, c.looks)
	if err != nil {
		return nil, err
	}
	runs, err := counterRuns(c.segments, scraped)
	if err != nil {
		return nil, err
	}
	coarsest := block.FiveMin
	for _, seg := range c.segments {
		coarsest = max(coarsest, seg.resolution)
	}
	return &sampled{src: course{runs: runs, grid: scraped.sparse(c.looks.grid(int64(coarsest), 1))}}, nil
}
