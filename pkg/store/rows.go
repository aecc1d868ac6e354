package store

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/blockindex"
	"github.com/varve-io/varve/pkg/series"
)

// row is a series before its chunks are read.
type row struct {
	labels  labels.Labels
	replica string
	chunks  []chunkRef
	room    *refRoom // that they lie in
}

// refRoom is memory for the references of some rows. It is used again when all of these were laid out.
type refRoom struct {
	refs []chunkRef
	rows int
}

// chunkRef is a chunk of which size is what we expect its record to have.
type chunkRef struct {
	mint, maxt         int64
	segment, off, size uint32
}

// memory is about what a row takes, and later its chunks besides their bytes.
func (r *row) memory() int {
	const perRow, perChunk = 200, 100
	return perRow + int(r.labels.ByteSize()) + len(r.replica) + perChunk*len(r.chunks)
}

// refBytes is what a reference takes until its series is read.
const refBytes = 4

// rows reads series entries in the order of the index.
func (s *blockStream) rows(ctx context.Context, index *blockindex.Index, selected blockindex.Selection) iter.Seq2[row, error] {
	return func(yield func(row, error) bool) {
		mint, maxt := s.times[0].MinTime, s.times[len(s.times)-1].MaxTime-1
		reader := s.entries(index, selected)
		defer reader.Close()
		s.reader = reader
		var e blockindex.Entry
		for reader.Next(ctx, mint, maxt, &e) {
			if !s.holds(e.Labels) {
				continue
			}
			r := s.row(&e)
			if s.replaces && labels.Compare(r.labels, s.after) <= 0 && !s.after.IsEmpty() || !s.r.Shard.Keeps(r.labels) {
				continue
			}
			if s.ownRefs(&r, &e); len(r.chunks) == 0 {
				s.laid(&r)
				continue
			}
			if s.r.SkipChunks {
				s.laid(&r)
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

// entries returns a reader of series entries. Where there is room for it the next ones are read
// while spans are laid out of those at hand: else nothing would be asked for meanwhile.
func (s *blockStream) entries(index *blockindex.Index, selected blockindex.Selection) *blockindex.SeriesReader {
	reader := index.Series(selected)
	room := s.r.entryRoom(len(selected.Refs))
	reader.Window(room)
	if room >= 2*blockindex.MaxWindow && s.r.Limit == 0 {
		reader.ReadAhead()
	}
	if !s.byRow {
		reader.Add(s.added)
	}
	reader.Share(s.r.shared)
	return reader
}

// ownRefs gives a row the chunks of an entry that are wanted. Those of many rows lie in one room.
func (s *blockStream) ownRefs(r *row, e *blockindex.Entry) {
	const together = 512
	if n := len(e.Chunks); cap(s.refs.refs)-len(s.refs.refs) < n {
		if k := len(s.free) - 1; k >= 0 && n <= cap(s.free[k].refs) {
			s.refs, s.free = s.free[k], s.free[:k]
			s.refs.refs = s.refs.refs[:0]
		} else {
			s.refs = &refRoom{refs: make([]chunkRef, 0, max(together, n))}
		}
	}
	begin := len(s.refs.refs)
	s.refs.refs = s.chunkRefs(s.refs.refs, e.Chunks, e.Next)
	r.chunks, r.room = s.refs.refs[begin:len(s.refs.refs):len(s.refs.refs)], s.refs
	s.refs.rows++
}

// laid notes that a row's references are not needed any more.
func (s *blockStream) laid(r *row) {
	if r.room.rows--; r.room.rows == 0 && r.room != s.refs {
		s.free = append(s.free, r.room)
	}
	r.room, r.chunks = nil, nil
}

// row gives an entry its final labels; its chunks come later.
func (s *blockStream) row(e *blockindex.Entry) (r row) {
	if s.byRow {
		r.labels, r.replica = series.Final(e.Labels, s.block.labels, s.r.WithoutLabels)
		return r
	}
	return row{labels: e.Labels, replica: s.replica} // the reader added the external ones
}

// changes finds out what becomes of the labels of the series, and whether the final ones may be in
// another order than those of the index: when labels of the series are replaced or removed.
func (s *blockStream) changes(ctx context.Context, index *blockindex.Index) (reorders bool, err error) {
	removed, err := hasAny(ctx, index, s.r.WithoutLabels)
	if err != nil {
		return false, err
	}
	var external []string
	s.block.labels.Range(func(l labels.Label) { external = append(external, l.Name) })
	replaced, err := hasAny(ctx, index, external)
	// Shards are chosen by the labels that a series has in its block.
	if s.byRow = removed || s.only != nil; !s.byRow {
		s.added, s.replica = series.Final(labels.EmptyLabels(), s.block.labels, s.r.WithoutLabels)
	}
	return removed || replaced, err
}

// hasAny reports whether any series has one of the labels.
func hasAny(ctx context.Context, index *blockindex.Index, names []string) (bool, error) {
	for _, name := range names {
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
			last = r.labels
			return yield(r, nil)
		}
		for r, err := range rows {
			if err != nil {
				yield(row{}, err)
				return
			}
			follows := false // the last one
			for len(held) > 0 && labels.Compare(held[len(held)-1].labels, r.labels) <= 0 {
				if follows = true; !emit() {
					return
				}
			}
			if !follows && labels.Compare(r.labels, last) < 0 {
				yield(row{}, fmt.Errorf("%w: series %s is out of order", blockindex.ErrCorrupt, r.labels))
				return
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
		s.reader = nil
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
