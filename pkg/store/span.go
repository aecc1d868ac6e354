package store

import (
	"context"
	"slices"
	"sync"

	"github.com/varve-io/varve/pkg/pagecache"
	"github.com/varve-io/varve/pkg/panics"
	"github.com/varve-io/varve/pkg/series"
)

// span is a run of the series of a block with their chunks, whose bytes the lease holds.
type span struct {
	series []series.Series
	room   room // that series and their chunks lie in
	lease  *pagecache.Lease
	err    error // why it could not be read
	bytes  int64 // of the window
	wanted []wanted
	read   chan struct{} // closed when what is above is valid
}

// room is memory for series and their chunks, which a stream uses again once its reader is
// through with them.
type room struct {
	series []series.Series
	chunks []series.Chunk
}

// window is the memory that the spans of a stream take, those that are read and the one
// that is handed out.
type window struct {
	mu    sync.Mutex
	taken int64
	freed chan struct{} // holds a token when some was given back
}

func newWindow() *window { return &window{freed: make(chan struct{}, 1)} }

// enter waits until n more bytes are within size, or nothing is taken.
func (w *window) enter(ctx context.Context, n int64, size func() int64) error {
	if w.try(n, size) {
		return nil
	}
	defer w.wake() // there may be room for the next one, too
	for {
		select {
		case <-w.freed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if w.try(n, size) {
			return nil
		}
	}
}

// wake has one of those that wait look again.
func (w *window) wake() {
	select {
	case w.freed <- struct{}{}:
	default:
	}
}

// try takes n bytes. A span ends with a whole series, so it may be a little longer than planned.
func (w *window) try(n int64, size func() int64) bool {
	const surplus = 16
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.taken > 0 {
		if most := size(); w.taken+n > most+most/surplus {
			return false
		}
	}
	w.taken += n
	return true
}

// now is how much is taken.
func (w *window) now() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.taken
}

func (w *window) leave(n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.taken -= n
	w.wake()
}

// lay makes the series of a span out of rows, and says which chunks it wants.
func (s *blockStream) lay(rows []row) *span {
	n := 0
	for _, r := range rows {
		n += len(r.chunks)
	}
	next := &span{room: s.roomFor(len(rows), n), read: make(chan struct{})}
	next.series = next.room.series
	all, at := next.room.chunks, 0
	if !s.r.SkipChunks && n > 0 {
		next.wanted = s.wants(n)
	}
	resolution := int64(s.block.meta.Resolution())
	for i := range rows {
		r := &rows[i]
		k := len(r.chunks)
		next.series[i] = series.Series{Labels: r.labels, Replica: r.replica, Chunks: all[at : at+k : at+k]}
		for _, c := range r.chunks {
			all[at] = series.Chunk{MinTime: c.mint, MaxTime: c.maxt, Resolution: resolution}
			if next.wanted != nil {
				next.wanted = append(next.wanted, wanted{c.segment, c.off, c.size, uint32(at)})
			}
			at++
		}
		if r.room != nil {
			s.laid(r)
		}
	}
	return next
}

// roomFor returns room for so many series and chunks, which lay fills.
func (s *blockStream) roomFor(rows, chunks int) (r room) {
	select {
	case r = <-s.rooms:
	default:
	}
	return room{emptied(r.series, rows)[:rows], emptied(r.chunks, chunks)[:chunks]}
}

// wants returns an empty slice with room for n.
func (s *blockStream) wants(n int) (used []wanted) {
	select {
	case used = <-s.unused:
	default:
	}
	return emptied(used, n)
}

// emptied returns an empty slice with room for n, that of used if it has it. New ones have a
// little more, for the next span is about as long.
func emptied[T any](used []T, n int) []T {
	if n <= cap(used) {
		return used[:0]
	}
	return make([]T, 0, n+n/8)
}

// load reads the chunks of a span. A series of which no chunk can be had is left out.
func (s *blockStream) load(ctx context.Context, next *span, from chunkReader) {
	defer close(next.read)
	if next.wanted == nil {
		return
	}
	next.err = panics.Caught(func() (err error) {
		next.lease, err = s.fill(ctx, next.room.chunks, next.wanted, from)
		return err
	})
	if next.err == nil {
		next.series = s.whole(next.series)
	}
	select {
	case s.unused <- next.wanted[:0]:
	default:
	}
	next.wanted = nil
}

// whole leaves out the chunks that could not be had, and series without others.
func (s *blockStream) whole(loaded []series.Series) []series.Series {
	kept, n := loaded[:0], 0
	missing := func(c series.Chunk) bool { return c.Data == nil }
	for _, l := range loaded {
		if slices.ContainsFunc(l.Chunks, missing) {
			l.Chunks = slices.DeleteFunc(l.Chunks, missing)
		}
		if n += len(l.Chunks); len(l.Chunks) > 0 {
			kept = append(kept, l)
		}
	}
	s.r.g.metrics.chunks.Add(float64(n))
	s.r.stats.numChunks.Add(int64(n))
	return kept
}

const (
	// The parts of a request's memory that is not held until its end: of the spans of all
	// streams, and of the series entries that they read.
	spansPart, entriesPart = 3.0 / 4, 1.0 / 4
	// heldPart is the part of a request's memory that may be held until its end.
	heldPart = 2
	// sideBySide is how many spans of a stream are on their way at the same time, the one that
	// is handed out among them, where its window has room for spans of goodSpan and more;
	// maxSpan bounds them. Each is a request, and each request has a connection.
	sideBySide = 12
	goodSpan   = 640 << 10
	maxSpan    = 8 << 20
)

// sizes are how many bytes the spans of a stream take: all together, and the next one.
type sizes struct {
	window, span int64
	parallel     bool // spans are read side by side
}

// sizes are those of a stream now. They grow as long as there is memory, and as other
// streams come to their end.
func (r *request) sizes() sizes {
	r.share.grow(r.share.most)
	return r.divide(r.fairShare(spansPart))
}

// firstSizes are those of a stream that is to read n series: small if there are many, so
// that the first series are there soon.
func (r *request) firstSizes(n int) sizes {
	const few = 256
	if n <= few {
		return r.sizes()
	}
	z := r.divide(r.fairShare(spansPart))
	if r.divide(int64(spansPart*float64(r.share.most)) / max(r.active.Load(), 1)).parallel {
		z = r.sizes() // from the beginning on, or an answer for one by one would be in the way
	}
	z.span /= 2
	return z
}

// divide says how long spans are in a window. In a small one there are two, of which one
// is read while the other is handed out.
func (r *request) divide(window int64) sizes {
	if window >= sideBySide*goodSpan {
		return sizes{window, min(window/sideBySide, maxSpan), true}
	}
	return sizes{window: window, span: window / 2}
}

// step is z for a stream that goes on with an answer of the bucket: the request is made,
// and more memory would not make it longer.
func (r *request) step(z sizes) sizes {
	const least, together = 128 << 10, 12 << 20
	span := min(z.window/2, max(least, together/max(r.active.Load(), 1)))
	return sizes{window: 2 * span, span: span}
}

// entryRoom is the bytes that a stream may hold of n series entries.
func (r *request) entryRoom(n int) int64 {
	const perEntry = 300 // about
	if int64(n)*perEntry > r.fairShare(entriesPart) {
		r.share.grow(r.share.most)
	}
	return r.fairShare(entriesPart)
}

// enterFinding waits until there are n bytes in which a stream finds its series: those side by
// side have half of what the request has, but for what it holds. One that needs more does it alone.
func (r *request) enterFinding(ctx context.Context, n int64) error {
	room := func() int64 { return r.share.size()/heldPart - r.usage.held.Load() }
	if n*r.active.Load() > room() {
		r.share.grow(r.share.most)
	}
	return r.finding.enter(ctx, n, room)
}

// fairShare is a stream's part of the memory for something.
func (r *request) fairShare(part float64) int64 {
	size := r.share.size()
	free := size - min(r.usage.held.Load()+r.finding.now(), size/heldPart)
	return int64(part*float64(free)) / max(r.active.Load(), 1)
}

// leave notes that nothing of a span is handed out any more, see answer.Reclaim.
func (s *blockStream) leave(l *span) {
	if s.r.reclaims {
		s.r.left = append(s.r.left, leftSpan{s, l.lease, l.room})
	}
	l.lease, l.room = nil, room{}
	s.window.leave(l.bytes)
	l.bytes = 0
}

// leftSpan is what is free when the reader of an answer has gone on.
type leftSpan struct {
	of    *blockStream
	lease *pagecache.Lease
	room  room
}

func (l *leftSpan) free() {
	l.lease.Release()
	select {
	case l.of.rooms <- l.room:
	default:
	}
}

// reckoning is the memory that a span of rows takes: also that of the bytes between
// chunks, if they are so few that the page cache reads over them. Those count half, for
// they are held while the span is read and not while it is handed out.
type reckoning struct {
	bytes, readOver int64
	last            chunkRef
}

func (r *request) newReckoning() reckoning { return reckoning{readOver: r.g.cache.ReadOver()} }

func (k *reckoning) add(r *row) {
	k.bytes += int64(r.memory())
	for _, c := range r.chunks {
		k.bytes += int64(c.size)
		gap := int64(c.off) - int64(k.last.off) - int64(k.last.size)
		if k.last.size > 0 && c.segment == k.last.segment && gap > 0 && gap <= k.readOver {
			k.bytes += gap / 2
		}
		k.last = c
	}
}
