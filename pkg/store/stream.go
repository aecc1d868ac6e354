package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/varve-io/varve/pkg/blockindex"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/merge"
	"github.com/varve-io/varve/pkg/pagecache"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
)

// blockStream is the series of one block in the order of their labels. One goroutine,
// run, reads them span by span, one span ahead of who reads the set.
type blockStream struct {
	pick
	r        *request
	matchers []*labels.Matcher // of the data
	after    labels.Labels     // series up to it are left out
	replaces bool              // it stands in for a block that vanished

	stream  *pagecache.Stream        // of its chunks
	reader  *blockindex.SeriesReader // nil if chunks are not read in the order of the index
	segment uint32                   // of the chunk that was read last
	wanted  []wanted                 // used again for each span

	handed time.Time // when the last span was, before the next series entries are read

	spans chan *span
	err   error // valid when spans is closed
	bad   badChunks

	// Of the reader of the set alone.
	now      *span
	at       int
	last     labels.Labels // of the span before
	heirs    series.Set    // what goes on in its place
	ended    bool
	failed   error
	warnings annotations.Annotations
}

func newBlockStream(r *request, p pick, matchers []*labels.Matcher) *blockStream {
	s := &blockStream{pick: p, r: r, matchers: matchers, spans: make(chan *span), now: new(span), at: -1}
	s.stream = r.g.cache.Stream(s.ahead)
	return s
}

// run reads the block until its end or that of the request.
func (s *blockStream) run(ctx context.Context) {
	defer s.r.g.running.Done()
	defer close(s.spans)
	if s.err = s.r.workers.Acquire(ctx, 1); s.err != nil {
		return
	}
	defer s.r.workers.Release(1)
	defer s.stream.Close()
	s.err = s.read(ctx)
}

// read streams the block: matchers, postings, series entries, chunks. A span never
// parts the rows of one series.
func (s *blockStream) read(ctx context.Context) error {
	index, selected, err := s.selectSeries(s.r.stats.selecting.under(ctx))
	if err != nil {
		return err
	}
	s.handed = time.Now()
	ordered := s.rows(s.r.stats.entries.under(ctx), index, selected)
	reorders, err := s.reorders(ctx, index)
	if err != nil {
		return err
	}
	if reorders {
		ordered = s.sorted(ordered)
	} else {
		ordered = heldBack(ordered)
	}
	var rows []row
	sum, most := s.r.newReckoning(), s.r.firstRoom(len(selected.Refs))
	for next, err := range ordered {
		if err != nil {
			return err
		}
		if n := len(rows); n > 0 && sum.bytes >= most && !labels.Equal(rows[n-1].labels, next.labels) {
			if err := s.hand(ctx, rows); err != nil {
				return err
			}
			rows, sum, most = rows[:0], s.r.newReckoning(), s.room()
		}
		rows = append(rows, next)
		sum.add(&next)
	}
	return s.hand(ctx, rows)
}

// room is the bytes of the next span.
func (s *blockStream) room() int64 {
	if s.stream.Flows() {
		return s.r.stepRoom()
	}
	return s.r.room()
}

// selectSeries resolves the matchers.
func (s *blockStream) selectSeries(ctx context.Context) (*blockindex.Index, blockindex.Selection, error) {
	defer s.r.stats.selecting.since(time.Now())
	index, err := s.block.openIndex(ctx, s.r.g)
	if err != nil {
		return nil, blockindex.Selection{}, err
	}
	selected, err := index.Select(ctx, s.matchers...)
	if err != nil {
		return nil, selected, err
	}
	n := len(selected.Refs)
	s.r.sample(index, selected)
	return index, selected, errors.Join(s.r.usage.touch(n), s.r.usage.hold(refBytes*n))
}

// hand loads rows and hands them out. While it waits for its reader a stream is no worker.
func (s *blockStream) hand(ctx context.Context, rows []row) error {
	s.r.stats.entries.since(s.handed)
	defer func() { s.handed = time.Now() }()
	loaded, err := s.load(s.r.stats.chunks.under(ctx), rows)
	if err != nil || len(loaded.series) == 0 {
		return err
	}
	s.r.workers.Release(1)
	select {
	case s.spans <- loaded:
	case <-ctx.Done():
	}
	return errors.Join(s.r.workers.Acquire(context.WithoutCancel(ctx), 1), ctx.Err())
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
	s.r.leave(s.now)
	began := time.Now()
	next, ok := <-s.spans
	s.r.stats.waiting.since(began)
	if ok {
		s.now, s.at = next, 0
		return true
	}
	s.ended = true
	s.r.active.Add(-1)
	s.now = nil
	return s.end()
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
	case s.err == nil:
		return false
	case s.r.ctx.Err() != nil || errors.Is(s.err, storeapi.ErrLimit):
		s.failed = s.err
		return false
	}
	if !s.replaces && (errors.Is(s.err, bucket.ErrNotFound) || g.bkt.IsObjNotFoundErr(s.err)) {
		if heirs, err := s.r.replace(s); err == nil && len(heirs) > 0 {
			g.metrics.replanned.Inc()
			s.heirs = s.r.start(heirs)
			return s.heirs.Next()
		}
	}
	err := fmt.Errorf("%s is missing: %w", blockText(&s.pick), s.err)
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
		go s.run(r.ctx)
	}
	return merge.Sets(sets...)
}
