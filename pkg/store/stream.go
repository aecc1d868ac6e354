package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/varve-io/varve/pkg/blockindex"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/merge"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
)

// blockStream is the answer of one block: a set that one goroutine, run, fills
// batch by batch.
type blockStream struct {
	pick
	r        *request
	matchers []*labels.Matcher // of the data
	after    labels.Labels     // series up to it are left out
	replaces bool              // it stands in for a block that vanished

	batches chan []series.Series
	// Of run alone, until batches is closed.
	reader *blockindex.SeriesReader
	err    error
	bad    badChunks

	now      []series.Series // the batch that is being read
	at       int
	last     labels.Labels // of the last series that was handed out
	ended    bool
	heir     series.Set // takes over when the block has vanished
	failed   error
	warnings annotations.Annotations
}

func newBlockStream(r *request, p pick, matchers []*labels.Matcher) *blockStream {
	return &blockStream{pick: p, r: r, matchers: matchers, batches: make(chan []series.Series), at: -1}
}

// Next moves to the next series, waiting for the next batch if need be.
func (s *blockStream) Next() bool {
	if s.heir != nil {
		return s.heir.Next()
	}
	if s.at++; s.at < len(s.now) {
		s.last = s.now[s.at].Labels
		return true
	}
	for !s.ended {
		batch, ok := <-s.batches
		switch {
		case !ok:
			return s.end()
		case len(batch) > 0:
			s.now, s.at = batch, 0
			s.last = batch[0].Labels
			return true
		}
	}
	return false
}

// At returns the series.
func (s *blockStream) At() *series.Series {
	if s.heir != nil {
		return s.heir.At()
	}
	return &s.now[s.at]
}

// Err is the error that ended the set early.
func (s *blockStream) Err() error {
	if s.heir != nil {
		return s.heir.Err()
	}
	return s.failed
}

// Warnings name the block if a part of it is missing.
func (s *blockStream) Warnings() annotations.Annotations {
	if s.heir != nil {
		return s.warnings.Merge(s.heir.Warnings())
	}
	return s.warnings
}

// end decides what becomes of a stream that has run: replaced, a warning or an error.
func (s *blockStream) end() bool {
	s.now, s.at, s.ended = nil, -1, true
	if s.bad.count > 0 {
		s.warnings.Add(fmt.Errorf("%s: %d chunks left out, the first for: %w", blockText(&s.pick), s.bad.count, s.bad.first))
		s.r.g.metrics.warnings.Inc()
		s.r.g.log.Warn("chunks left out", "block", s.block.meta.ULID, "chunks", s.bad.count, "err", s.bad.first)
	}
	err := s.err
	if err == nil {
		return false
	}
	if s.r.ctx.Err() != nil || errors.Is(err, storeapi.ErrLimit) {
		s.failed = err
		return false
	}
	if !s.replaces && (errors.Is(err, bucket.ErrNotFound) || s.r.g.bkt.IsObjNotFoundErr(err)) {
		if heirs, replaceErr := s.r.replace(s); replaceErr == nil && len(heirs) > 0 {
			s.r.g.metrics.replanned.Inc()
			s.heir = merge.Sets(s.r.start(heirs)...)
			return s.heir.Next()
		}
	}
	err = fmt.Errorf("%s is missing: %w", blockText(&s.pick), err)
	if s.r.Partial == storeapi.Abort {
		s.failed = err
		return false
	}
	s.r.g.metrics.warnings.Inc()
	s.r.g.log.Warn("block left out of an answer", "block", s.block.meta.ULID, "err", err)
	s.warnings.Add(err)
	return false
}

// run reads the block until its end or that of the request.
func (s *blockStream) run(ctx context.Context) {
	defer s.r.g.running.Done()
	defer close(s.batches)
	if s.err = s.r.workers.Acquire(ctx, 1); s.err != nil {
		return
	}
	defer s.r.workers.Release(1)
	s.err = s.read(ctx)
}

// read streams the block: matchers, postings, series entries, chunks.
func (s *blockStream) read(ctx context.Context) error {
	index, err := s.block.openIndex(ctx, s.r.g)
	if err != nil {
		return err
	}
	selected, err := index.Select(ctx, s.matchers...)
	if err != nil {
		return err
	}
	if err := errors.Join(s.r.usage.touch(len(selected.Refs)), s.r.usage.hold(8*len(selected.Refs))); err != nil {
		return err
	}
	s.reader = index.Series(selected)
	rows := s.rows(ctx)
	reorders, err := s.reorders(ctx, index)
	if err != nil {
		return err
	}
	if reorders {
		rows = s.sorted(rows)
	} else {
		rows = heldBack(rows)
	}
	var b batch
	for row, err := range rows {
		if err != nil {
			return err
		}
		if b.add(row); b.bytes >= s.r.batchBytes {
			if err := s.send(ctx, &b); err != nil {
				return err
			}
		}
	}
	return s.send(ctx, &b)
}

// send loads the chunks of a batch, hands it out and empties it.
func (s *blockStream) send(ctx context.Context, b *batch) error {
	loaded, err := s.load(ctx, b.rows)
	if err != nil {
		return err
	}
	*b = batch{}
	// While it waits for its reader a stream is no worker, and holds little.
	if s.r.crowded {
		s.reader.Rest()
	}
	s.r.workers.Release(1)
	select {
	case s.batches <- loaded:
	case <-ctx.Done():
	}
	return errors.Join(s.r.workers.Acquire(context.WithoutCancel(ctx), 1), ctx.Err())
}

// row is a series before its chunks are read.
type row struct {
	labels  labels.Labels
	replica string
	chunks  []chunkRef
}

// chunkRef is a chunk of which size is what we expect its record to have.
type chunkRef struct {
	mint, maxt         int64
	segment, off, size uint32
}

// memory is about what a row takes.
func (r *row) memory() int {
	return 100 + len(r.labels.Bytes(nil)) + len(r.replica) + 32*len(r.chunks)
}

// batch is the rows whose chunks are read at once.
type batch struct {
	rows  []row
	bytes int64 // of chunks and of rows
}

func (b *batch) add(r row) {
	b.rows = append(b.rows, r)
	b.bytes += int64(r.memory())
	for _, c := range r.chunks {
		b.bytes += int64(c.size)
	}
}

// rows reads series entries in the order of the index.
func (s *blockStream) rows(ctx context.Context) iter.Seq2[row, error] {
	return func(yield func(row, error) bool) {
		mint, maxt := s.times[0].MinTime, s.times[len(s.times)-1].MaxTime-1
		var e blockindex.Entry
		for s.reader.Next(ctx, mint, maxt, &e) {
			var r row
			r.labels, r.replica = series.Final(e.Labels, s.block.labels, s.r.WithoutLabels)
			if s.replaces && labels.Compare(r.labels, s.after) <= 0 && !s.after.IsEmpty() || !s.r.Shard.Keeps(r.labels) {
				continue
			}
			if r.chunks = s.chunkRefs(&e); len(r.chunks) == 0 {
				continue
			}
			if s.r.SkipChunks {
				r.chunks = nil
			}
			if !yield(r, nil) {
				return
			}
		}
		if err := s.reader.Err(); err != nil {
			yield(row{}, err)
		}
	}
}

// reorders reports whether the final labels may be in another order than those of
// the index: when labels of the series are replaced or removed.
func (s *blockStream) reorders(ctx context.Context, index *blockindex.Index) (bool, error) {
	changed := slices.Clone(s.r.WithoutLabels)
	s.block.labels.Range(func(l labels.Label) { changed = append(changed, l.Name) })
	for _, name := range changed {
		if has, err := index.HasLabel(ctx, name); err != nil || has {
			return has, err
		}
	}
	return false, nil
}

// heldBack brings rows to which the same labels were added back into order. Such
// labels only swap a series with those that follow it and have its labels and
// more, so few rows are held at a time.
func heldBack(rows iter.Seq2[row, error]) iter.Seq2[row, error] {
	return func(yield func(row, error) bool) {
		var held []row // each comes after those above it
		var last labels.Labels
		emit := func() bool {
			r := held[len(held)-1]
			held = held[:len(held)-1]
			if labels.Compare(r.labels, last) < 0 {
				yield(row{}, fmt.Errorf("%w: series %s is out of order", blockindex.ErrCorrupt, r.labels))
				return false
			}
			last = r.labels
			return yield(r, nil)
		}
		for r, err := range rows {
			if err != nil {
				yield(row{}, err)
				return
			}
			for len(held) > 0 && labels.Compare(held[len(held)-1].labels, r.labels) <= 0 {
				if !emit() {
					return
				}
			}
			held = append(held, r)
		}
		for len(held) > 0 {
			if !emit() {
				return
			}
		}
	}
}

// sorted brings rows into order by holding all of them.
func (s *blockStream) sorted(rows iter.Seq2[row, error]) iter.Seq2[row, error] {
	return func(yield func(row, error) bool) {
		var all []row
		for r, err := range rows {
			if err == nil {
				err = s.r.usage.hold(r.memory())
			}
			if err != nil {
				yield(row{}, err)
				return
			}
			all = append(all, r)
		}
		slices.SortFunc(all, func(a, b row) int {
			if c := labels.Compare(a.labels, b.labels); c != 0 {
				return c
			}
			return strings.Compare(a.replica, b.replica)
		})
		for _, r := range all {
			if !yield(r, nil) {
				return
			}
		}
	}
}
