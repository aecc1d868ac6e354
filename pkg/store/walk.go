package store

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"
	"golang.org/x/sync/errgroup"

	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
)

// walk merges the rows of all blocks of a request and reads their chunks window by
// window, one window ahead of the reader of the answer. It is a set; run fills it.
type walk struct {
	r       *request
	windows chan []series.Series

	// Of run alone, until windows is closed.
	inputs  inputs
	streams []*blockStream // all that were started
	rows    []streamRow    // of the window
	bytes   int64          // of the window
	err     error

	mu       sync.Mutex
	warnings annotations.Annotations

	now []series.Series // the window that is being read
	at  int
}

// streamRow is a row and where it comes from.
type streamRow struct {
	*row
	from *blockStream
}

// input is a stream of rows: those of a block, or some that were put back.
type input struct {
	cur    streamRow
	stream *blockStream // or nil
	back   []streamRow
	place  int // among inputs, for a stable order
}

// advance moves to the next row.
func (in *input) advance() bool {
	if in.stream != nil {
		in.cur = streamRow{in.stream.next(), in.stream}
		return in.cur.row != nil
	}
	if len(in.back) == 0 {
		return false
	}
	in.cur, in.back = in.back[0], in.back[1:]
	return true
}

// inputs is a heap by the rows at which inputs stand.
type inputs []*input

func (h inputs) Len() int      { return len(h) }
func (h inputs) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *inputs) Push(x any)   { *h = append(*h, x.(*input)) }
func (h *inputs) Pop() any {
	n := len(*h) - 1
	last := (*h)[n]
	*h = (*h)[:n]
	return last
}

func (h inputs) Less(i, j int) bool {
	a, b := h[i], h[j]
	if c := labels.Compare(a.cur.labels, b.cur.labels); c != 0 {
		return c < 0
	}
	return cmp.Or(strings.Compare(a.cur.replica, b.cur.replica), cmp.Compare(a.place, b.place)) < 0
}

// run walks until the end of the rows or of the request.
func (w *walk) run(ctx context.Context, streams []*blockStream) {
	defer w.r.g.running.Done()
	defer close(w.windows)
	w.err = w.read(ctx, streams)
	for _, s := range w.streams {
		w.warnOfChunks(s)
	}
}

func (w *walk) read(ctx context.Context, streams []*blockStream) error {
	if err := w.start(ctx, streams); err != nil {
		return err
	}
	for {
		if err := w.gather(ctx); err != nil || len(w.rows) == 0 {
			return err
		}
		loaded, err := w.load(ctx)
		if err != nil {
			return err
		}
		if len(w.rows) == 0 {
			continue // they were put back
		}
		select {
		case w.windows <- loaded:
		case <-ctx.Done():
			return ctx.Err()
		}
		for _, row := range w.rows {
			row.from.done = row.labels
		}
		w.rows, w.bytes = nil, 0
	}
}

// start runs streams side by side and takes them in.
func (w *walk) start(ctx context.Context, streams []*blockStream) error {
	w.streams = append(w.streams, streams...)
	for _, s := range streams {
		sctx, cancel := context.WithCancel(ctx)
		s.cancel = cancel
		go s.run(sctx)
	}
	for _, s := range streams {
		if err := w.feed(ctx, &input{stream: s, place: len(w.streams)}); err != nil {
			return err
		}
	}
	return nil
}

// feed puts an input that is not among the inputs there by its next row, or ends it.
func (w *walk) feed(ctx context.Context, in *input) error {
	if in.advance() {
		heap.Push(&w.inputs, in)
		return nil
	}
	if s := in.stream; s != nil {
		s.cancel()
		if s.err != nil {
			return w.lose(ctx, s, s.err)
		}
	}
	return nil
}

// gather takes the rows of a window: as many as the request may hold now, and all of a series.
func (w *walk) gather(ctx context.Context) error {
	defer w.r.stats.rows.since(time.Now())
	most := w.r.window()
	var ends gaps
	for len(w.inputs) > 0 {
		in := w.inputs[0]
		if n := len(w.rows); n > 0 && w.bytes >= most && !labels.Equal(w.rows[n-1].labels, in.cur.labels) {
			return nil
		}
		w.rows = append(w.rows, in.cur)
		w.bytes += int64(in.cur.memory()) + ends.add(in.cur)
		if in.stream != nil && len(in.stream.now) > 0 { // the common case
			in.advance()
			heap.Fix(&w.inputs, 0)
			continue
		}
		heap.Pop(&w.inputs)
		if err := w.feed(ctx, in); err != nil {
			return err
		}
	}
	return nil
}

// gaps reckons the bytes that the chunks of rows take while they are read: also those
// between them, if they are so few that the page cache may read over them.
type gaps map[*blockStream]chunkRef

func (g *gaps) add(row streamRow) (bytes int64) {
	const readOver = 64 << 10
	if *g == nil {
		*g = gaps{}
	}
	last, ok := (*g)[row.from]
	for _, c := range row.chunks {
		bytes += int64(c.size)
		if gap := int64(c.off) - int64(last.off) - int64(last.size); ok && c.segment == last.segment && gap > 0 && gap <= readOver {
			bytes += gap
		}
		last, ok = c, true
	}
	if ok {
		(*g)[row.from] = last
	}
	return bytes
}

// load reads the chunks of the window, or puts its rows back for a block that vanished.
// A series of which no chunk can be had is left out.
func (w *walk) load(ctx context.Context) ([]series.Series, error) {
	loaded := make([]series.Series, len(w.rows))
	n := 0
	for _, row := range w.rows {
		n += len(row.chunks)
	}
	room := make([]series.Chunk, n)
	byStream := map[*blockStream][]wanted{}
	for i, row := range w.rows {
		k := len(row.chunks)
		loaded[i] = series.Series{Labels: row.labels, Replica: row.replica, Chunks: room[:k:k]}
		room = room[k:]
		for j, c := range row.chunks {
			into := &loaded[i].Chunks[j]
			*into = series.Chunk{MinTime: c.mint, MaxTime: c.maxt, Resolution: int64(row.from.block.meta.Resolution())}
			byStream[row.from] = append(byStream[row.from], wanted{c, into})
		}
	}
	if w.r.SkipChunks {
		return loaded, nil
	}
	lost, err := w.fill(ctx, byStream)
	if err != nil {
		return nil, err
	}
	for _, l := range lost {
		if err := w.lose(ctx, l.stream, l.err); err != nil {
			return nil, err
		}
	}
	if len(w.rows) == 0 {
		return nil, nil
	}
	return w.whole(loaded)
}

// lostStream is a stream that cannot be read on, and why.
type lostStream struct {
	stream *blockStream
	err    error
}

// fill reads the chunks of all blocks side by side.
func (w *walk) fill(ctx context.Context, byStream map[*blockStream][]wanted) (lost []lostStream, err error) {
	defer w.r.stats.chunks.since(time.Now())
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	for s, all := range byStream {
		g.Go(func() error {
			err := s.fill(gctx, all)
			if err == nil || gctx.Err() != nil || errors.Is(err, storeapi.ErrLimit) {
				return err
			}
			for _, c := range all {
				c.into.Data = nil
			}
			mu.Lock()
			defer mu.Unlock()
			lost = append(lost, lostStream{s, err})
			return nil
		})
	}
	return lost, g.Wait()
}

// whole leaves out the chunks that could not be had, and series without others.
func (w *walk) whole(loaded []series.Series) ([]series.Series, error) {
	kept := loaded[:0]
	samples, chunks := 0, 0
	for _, l := range loaded {
		l.Chunks = slices.DeleteFunc(l.Chunks, func(c series.Chunk) bool { return c.Data == nil })
		for _, c := range l.Chunks {
			samples += numSamples(c)
		}
		if chunks += len(l.Chunks); len(l.Chunks) > 0 {
			kept = append(kept, l)
		}
	}
	w.r.g.metrics.chunks.Add(float64(chunks))
	w.r.stats.numChunks.Add(int64(chunks))
	return kept, w.r.usage.readSamples(samples)
}

// lose decides what becomes of a stream that cannot be read on: replaced, a warning
// or an error. If it is replaced the rows of the window are put back, without its own.
func (w *walk) lose(ctx context.Context, s *blockStream, err error) error {
	if ctx.Err() != nil || errors.Is(err, storeapi.ErrLimit) {
		return err
	}
	if s.lost {
		return nil
	}
	s.lost = true
	s.cancel()
	g := w.r.g
	if !s.replaces && (errors.Is(err, bucket.ErrNotFound) || g.bkt.IsObjNotFoundErr(err)) {
		if heirs, replaceErr := w.r.replace(s); replaceErr == nil && len(heirs) > 0 {
			g.metrics.replanned.Inc()
			w.putBack(s)
			return w.start(ctx, heirs)
		}
	}
	w.drop(s)
	err = fmt.Errorf("%s is missing: %w", blockText(&s.pick), err)
	if w.r.Partial == storeapi.Abort {
		return err
	}
	g.log.Warn("block left out of an answer", "block", s.block.meta.ULID, "err", err)
	w.warn(err)
	return nil
}

// putBack makes the rows of the window an input again, except those of a stream, of
// which no row is left anywhere.
func (w *walk) putBack(s *blockStream) {
	w.drop(s)
	back := slices.DeleteFunc(w.rows, func(r streamRow) bool { return r.from == s })
	w.rows, w.bytes = nil, 0
	in := &input{back: back}
	if in.advance() {
		heap.Push(&w.inputs, in)
	}
}

// drop removes the rows of a stream from the inputs.
func (w *walk) drop(s *blockStream) {
	kept := w.inputs[:0]
	for _, in := range w.inputs {
		in.back = slices.DeleteFunc(in.back, func(r streamRow) bool { return r.from == s })
		if in.cur.from != s || in.stream == nil && in.advance() {
			kept = append(kept, in)
		}
	}
	w.inputs = kept
	heap.Init(&w.inputs)
}

// warnOfChunks says which chunks of a block were left out.
func (w *walk) warnOfChunks(s *blockStream) {
	if s.bad.count == 0 {
		return
	}
	w.warn(fmt.Errorf("%s: %d chunks left out, the first for: %w", blockText(&s.pick), s.bad.count, s.bad.first))
	w.r.g.log.Warn("chunks left out", "block", s.block.meta.ULID, "chunks", s.bad.count, "err", s.bad.first)
}

func (w *walk) warn(err error) {
	w.r.g.metrics.warnings.Inc()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.warnings.Add(err)
}

// Next moves to the next series, waiting for the next window if need be.
func (w *walk) Next() bool {
	for w.at++; w.at >= len(w.now); w.at = 0 {
		now, ok := <-w.windows
		if w.now = now; !ok {
			return false
		}
	}
	return true
}

// At returns the series.
func (w *walk) At() *series.Series { return &w.now[w.at] }

// Err is the error that ended the answer early.
func (w *walk) Err() error { return w.err }

// Warnings name the blocks of which something is missing.
func (w *walk) Warnings() annotations.Annotations {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.warnings)
}
