package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/varve-io/varve/pkg/blockindex"
	"github.com/varve-io/varve/pkg/series"
)

// blockStream is the rows of one block in the order of their labels, which one
// goroutine, run, reads ahead of a walk.
type blockStream struct {
	pick
	r        *request
	matchers []*labels.Matcher // of the data
	after    labels.Labels     // series up to it are left out
	replaces bool              // it stands in for a block that vanished

	batches chan []row
	cancel  context.CancelFunc
	err     error // valid when batches is closed

	// Of the walk alone.
	now  []row // the batch that is being read
	done labels.Labels
	lost bool
	bad  badChunks
}

func newBlockStream(r *request, p pick, matchers []*labels.Matcher) *blockStream {
	return &blockStream{pick: p, r: r, matchers: matchers, batches: make(chan []row)}
}

// next returns the next row, waiting for the next batch if need be, or nil.
func (s *blockStream) next() *row {
	if len(s.now) == 0 {
		s.now = <-s.batches
	}
	if len(s.now) == 0 {
		return nil
	}
	r := &s.now[0]
	s.now = s.now[1:]
	return r
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

// read streams the block: matchers, postings, series entries.
func (s *blockStream) read(ctx context.Context) error {
	index, selected, err := s.selectSeries(ctx)
	if err != nil {
		return err
	}
	rows := s.rows(ctx, index, selected)
	reorders, err := s.reorders(ctx, index)
	if err != nil {
		return err
	}
	if reorders {
		rows = s.sorted(rows)
	} else {
		rows = heldBack(rows)
	}
	var batch []row
	bytes := 0
	for row, err := range rows {
		if err != nil {
			return err
		}
		batch = append(batch, row)
		if bytes += row.memory(); bytes >= s.r.rowBytes {
			if err := s.send(ctx, batch); err != nil {
				return err
			}
			batch, bytes = nil, 0
		}
	}
	if len(batch) > 0 {
		return s.send(ctx, batch)
	}
	return nil
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

// send hands out a batch. While it waits for its reader a stream is no worker.
func (s *blockStream) send(ctx context.Context, batch []row) error {
	s.r.workers.Release(1)
	select {
	case s.batches <- batch:
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

// memory is about what a row takes, and later its chunks besides their bytes.
func (r *row) memory() int {
	const perRow, perChunk = 200, 130
	return perRow + int(r.labels.ByteSize()) + len(r.replica) + perChunk*len(r.chunks)
}

// refBytes is what a reference takes until its series is read.
const refBytes = 4

// rows reads series entries in the order of the index. Where there are many blocks
// it takes few of them at a time, because what a reader holds counts once for each.
func (s *blockStream) rows(ctx context.Context, index *blockindex.Index, selected blockindex.Selection) iter.Seq2[row, error] {
	const few = 512
	atOnce := max(len(selected.Refs), 1)
	if s.r.crowded {
		atOnce = few
	}
	refs := make([]uint32, len(selected.Refs)) // they have 32 bits in every index
	for i, ref := range selected.Refs {
		refs[i] = uint32(ref)
	}
	part := selected
	part.Refs = nil
	return func(yield func(row, error) bool) {
		for some := range slices.Chunk(refs, atOnce) {
			part.Refs = part.Refs[:0]
			for _, ref := range some {
				part.Refs = append(part.Refs, storage.SeriesRef(ref))
			}
			for r, err := range s.entries(ctx, index.Series(part)) {
				if !yield(r, err) || err != nil {
					return
				}
			}
		}
	}
}

// entries are the rows of a reader.
func (s *blockStream) entries(ctx context.Context, reader *blockindex.SeriesReader) iter.Seq2[row, error] {
	return func(yield func(row, error) bool) {
		mint, maxt := s.times[0].MinTime, s.times[len(s.times)-1].MaxTime-1
		var e blockindex.Entry
		for reader.Next(ctx, mint, maxt, &e) {
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
		if err := reader.Err(); err != nil {
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
