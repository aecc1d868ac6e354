package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/varve-io/varve/pkg/blockindex"
	"github.com/varve-io/varve/pkg/merge"
	"github.com/varve-io/varve/pkg/pagecache"
	"github.com/varve-io/varve/pkg/panics"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
)

// blockStream is the series of one block in the order of their labels. One goroutine,
// run, walks over their entries in the index, ahead of who reads the set by as much as the
// window holds of spans. If that is much, spans are read side by side, else one by one.
type blockStream struct {
	pick
	r        *request
	matchers []*labels.Matcher // of the data
	after    labels.Labels     // series up to it are left out
	replaces bool              // it stands in for a block that vanished

	stream  *pagecache.Stream        // of its chunks, while spans are read one by one
	reader  *blockindex.SeriesReader // nil if chunks are not read in the order of the index
	segment uint32                   // of the chunk that the stream read last
	unused  chan []wanted            // of spans that were read
	rooms   chan room                // of spans that were handed out
	refs    *refRoom                 // that those of the next rows are put into
	free    []*refRoom               // of which nothing is needed any more

	// What changes finds out: the labels that the reader adds and the replica of all rows, or
	// that both are made row by row.
	added   labels.Labels
	replica string
	byRow   bool

	handed time.Time // when the last span was, before the next series entries are read

	window  *window
	spans   chan *span // in order
	err     error      // valid when spans is closed
	cancel  context.CancelFunc
	loaders sync.WaitGroup
	bad     badChunks

	// Of the reader of the set alone.
	now      *span
	at       int
	last     labels.Labels // of the span before
	heirs    series.Set    // what goes on in its place
	ended    bool
	failure  error // of reading the block
	failed   error // of the answer
	warnings annotations.Annotations
}

func newBlockStream(r *request, p pick, matchers []*labels.Matcher) *blockStream {
	s := &blockStream{
		pick: p, r: r, matchers: matchers, refs: new(refRoom), now: new(span), at: -1,
		window: newWindow(), spans: make(chan *span, 2*sideBySide), unused: make(chan []wanted, sideBySide), rooms: make(chan room, sideBySide),
	}
	s.stream = r.g.cache.Stream(s.ahead)
	return s
}

// run reads the block until its end or that of the request.
func (s *blockStream) run(ctx context.Context) {
	defer s.r.g.running.Done()
	defer s.loaders.Wait()
	defer close(s.spans)
	if s.err = s.r.workers.Acquire(ctx, 1); s.err != nil {
		return
	}
	defer s.r.workers.Release(1)
	defer s.stream.Close()
	s.err = panics.Caught(func() error { return s.read(ctx) })
}

// read streams the block: matchers, postings, series entries, chunks. A span never
// parts the rows of one series.
func (s *blockStream) read(ctx context.Context) error {
	index, selected, err := s.selectSeries(s.r.stats.selecting.under(ctx))
	if err != nil {
		return err
	}
	reorders, err := s.changes(ctx, index)
	if err != nil {
		return err
	}
	s.handed = time.Now()
	ordered := s.rows(s.r.stats.entries.under(ctx), index, selected)
	if reorders {
		ordered = s.sorted(ordered)
	} else {
		ordered = heldBack(ordered)
	}
	var rows []row
	sum, z := s.r.newReckoning(), s.r.firstSizes(len(selected.Refs))
	for next, err := range ordered {
		if err != nil {
			return err
		}
		if n := len(rows); n > 0 && sum.bytes >= z.span && !labels.Equal(rows[n-1].labels, next.labels) {
			if err := s.hand(ctx, rows, sum.bytes, z); err != nil {
				return err
			}
			rows, sum, z = rows[:0], s.r.newReckoning(), s.sizes()
		}
		rows = append(rows, next)
		sum.add(&next)
	}
	return s.hand(ctx, rows, sum.bytes, z)
}

// sizes are those of the spans from now on.
func (s *blockStream) sizes() sizes {
	z := s.r.sizes()
	if s.stream.Flows() {
		return s.r.step(z)
	}
	return z
}

// selectSeries resolves the matchers.
func (s *blockStream) selectSeries(ctx context.Context) (*blockindex.Index, blockindex.Selection, error) {
	defer s.r.stats.selecting.since(time.Now())
	index, err := s.block.openIndex(ctx, s.r.g)
	if err != nil {
		return nil, blockindex.Selection{}, err
	}
	s.r.sampled.look(index, s.matchers)
	plan, err := index.Plan(ctx, s.matchers...)
	if err != nil {
		return nil, blockindex.Selection{}, fmt.Errorf("look the matchers up: %w", err)
	}
	if err := s.r.enterFinding(ctx, plan.Finding); err != nil {
		return nil, blockindex.Selection{}, err
	}
	defer s.r.finding.leave(plan.Finding)
	selected, err := plan.Select(ctx)
	if err != nil {
		return nil, selected, err
	}
	n := len(selected.Refs)
	s.r.sampled.take(index, selected)
	return index, selected, errors.Join(s.r.usage.touch(n), s.r.usage.hold(refBytes*n))
}

// hand has the chunks of rows read and hands them out in their turn.
func (s *blockStream) hand(ctx context.Context, rows []row, bytes int64, z sizes) error {
	s.r.stats.entries.since(s.handed)
	defer func() { s.handed = time.Now() }()
	if len(rows) == 0 {
		return nil
	}
	if err := s.await(ctx, bytes); err != nil {
		return err
	}
	next := s.lay(rows)
	next.bytes = bytes
	ctx = s.r.stats.chunks.under(ctx)
	if z.parallel {
		s.loaders.Go(func() { s.load(ctx, next, s.r.g.cache) })
	} else if s.load(ctx, next, s.stream); next.err != nil {
		return next.err
	}
	select {
	case s.spans <- next: // there is room for more than the window has
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// await takes room in the window. While it waits for its reader a stream is no worker.
func (s *blockStream) await(ctx context.Context, bytes int64) error {
	size := func() int64 { return s.sizes().window }
	if s.window.try(bytes, size) {
		return nil
	}
	s.r.workers.Release(1)
	err := s.window.enter(ctx, bytes, size)
	return errors.Join(s.r.workers.Acquire(context.WithoutCancel(ctx), 1), err)
}

// Next moves to the next series, waiting for the next span if need be.
func (s *blockStream) Next() bool {
	if s.heirs != nil {
		return s.heirs.Next()
	}
	if s.ended {
		return false
	}
	if s.at++; s.at < len(s.now.series) {
		return true
	}
	if n := len(s.now.series); n > 0 {
		s.last = s.now.series[n-1].Labels
	}
	s.leave(s.now)
	if s.now = s.next(); s.now != nil {
		s.at = 0
		return true
	}
	s.ended = true
	s.r.active.Add(-1)
	s.cancel()
	return s.end()
}

// next waits for the next span that has series. It returns nil at the end and after an error.
func (s *blockStream) next() *span {
	defer s.r.stats.waiting.since(time.Now())
	for next := range s.spans {
		<-next.read
		switch {
		case next.err != nil:
			s.failure = next.err
			return nil
		case len(next.series) > 0:
			return next
		}
		s.leave(next)
	}
	s.failure = s.err
	return nil
}

// At returns the series.
func (s *blockStream) At() *series.Series {
	if s.heirs != nil {
		return s.heirs.At()
	}
	return &s.now.series[s.at]
}

// Err is the error that ended the answer early.
func (s *blockStream) Err() error {
	if s.heirs != nil {
		return s.heirs.Err()
	}
	return s.failed
}

// Warnings name what is missing of the block.
func (s *blockStream) Warnings() annotations.Annotations {
	all := maps.Clone(s.warnings)
	if err := s.bad.err(&s.pick); err != nil {
		all.Add(err)
	}
	if s.heirs != nil {
		all.Merge(s.heirs.Warnings())
	}
	return all
}

// end decides what becomes of a stream that was read to its end or cannot be read
// on: then it is replaced, or there is a warning or an error. It reports whether
// there is one more series.
func (s *blockStream) end() bool {
	g := s.r.g
	if err := s.bad.err(&s.pick); err != nil {
		g.metrics.warnings.Inc()
		g.log.Warn("chunks left out", "block", s.block.meta.ULID, "err", err)
	}
	switch {
	case s.failure == nil:
		return false
	case s.r.ctx.Err() != nil || errors.Is(s.failure, storeapi.ErrLimit):
		s.failed = s.failure
		return false
	}
	if !s.replaces && g.gone(s.failure) {
		if heirs, err := s.r.replace(s); err == nil && len(heirs) > 0 {
			g.metrics.replanned.Inc()
			s.heirs = s.r.start(heirs)
			return s.heirs.Next()
		}
	}
	err := fmt.Errorf("%s is missing: %w", blockText(&s.pick), s.failure)
	if s.r.Partial == storeapi.Abort {
		s.failed = err
		return false
	}
	g.metrics.warnings.Inc()
	g.log.Warn("block left out of an answer", "block", s.block.meta.ULID, "err", err)
	s.warnings.Add(err)
	return false
}

// start runs streams side by side and merges them.
func (r *request) start(streams []*blockStream) series.Set {
	r.active.Add(int64(len(streams)))
	sets := make([]series.Set, len(streams))
	for i, s := range streams {
		sets[i] = s
		ctx, cancel := context.WithCancel(r.ctx)
		s.cancel = cancel
		go s.run(ctx)
	}
	return merge.Sets(sets...)
}
