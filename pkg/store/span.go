package store

import (
	"context"
	"slices"

	"github.com/varve-io/varve/pkg/pagecache"
	"github.com/varve-io/varve/pkg/series"
)

// span is a run of the series of a block with their chunks, whose bytes the lease holds.
type span struct {
	series []series.Series
	lease  *pagecache.Lease
}

// load reads the chunks of rows. A series of which no chunk can be had is left out.
func (s *blockStream) load(ctx context.Context, rows []row) (*span, error) {
	n := 0
	for _, r := range rows {
		n += len(r.chunks)
	}
	loaded := &span{series: make([]series.Series, len(rows))}
	room, all := make([]series.Chunk, n), s.wanted[:0]
	resolution := int64(s.block.meta.Resolution())
	for i, r := range rows {
		k := len(r.chunks)
		loaded.series[i] = series.Series{Labels: r.labels, Replica: r.replica, Chunks: room[:k:k]}
		for j, c := range r.chunks {
			room[j] = series.Chunk{MinTime: c.mint, MaxTime: c.maxt, Resolution: resolution}
			all = append(all, wanted{c, &room[j]})
		}
		room = room[k:]
	}
	if s.r.SkipChunks || n == 0 {
		return loaded, nil
	}
	s.wanted = all
	defer clear(all) // not to keep what is handed out
	var err error
	if loaded.lease, err = s.fill(ctx, all); err != nil {
		return nil, err
	}
	loaded.series, err = s.whole(loaded.series)
	return loaded, err
}

// whole leaves out the chunks that could not be had, and series without others.
func (s *blockStream) whole(loaded []series.Series) ([]series.Series, error) {
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
	s.r.g.metrics.chunks.Add(float64(chunks))
	s.r.stats.numChunks.Add(int64(chunks))
	return kept, s.r.usage.readSamples(samples)
}

// The parts of a request's memory that is not held until its end: of the spans, of
// which each stream has two, one that is read and one that is handed out, and of the
// series entries that streams read.
const spansPart, entriesPart = 3.0 / 8, 1.0 / 4

// heldPart is the part of a request's memory that may be held until its end.
const heldPart = 2

// room is the bytes of the next span of a stream. It grows as long as there is
// memory, and as other streams come to their end.
func (r *request) room() int64 {
	r.share.grow(r.share.most)
	return r.fairShare(spansPart)
}

// stepRoom is the bytes of the next span of a stream that goes on with an answer of the
// bucket: the request is made, and more memory would not make it longer.
func (r *request) stepRoom() int64 {
	const least, together, few = 128 << 10, 12 << 20, 4
	room, active := r.room(), r.active.Load()
	if active <= few {
		return room // parts side by side are faster than one connection
	}
	return min(room, max(least, together/active))
}

// firstRoom is the bytes of the first span of a stream of n series: few if there are
// many, so that the first series are there soon.
func (r *request) firstRoom(n int) int64 {
	const few = 256
	if n <= few {
		return r.room()
	}
	return r.fairShare(spansPart) / 2
}

// entryRoom is the bytes that a stream may hold of n series entries.
func (r *request) entryRoom(n int) int64 {
	const perEntry = 300 // about
	if int64(n)*perEntry > r.fairShare(entriesPart) {
		r.share.grow(r.share.most)
	}
	return r.fairShare(entriesPart)
}

// fairShare is a stream's part of the memory for something.
func (r *request) fairShare(part float64) int64 {
	free := float64(r.share.size() - r.usage.held.Load())
	return int64(part*free) / max(r.active.Load(), 1)
}

// leave notes that nothing of a span is handed out any more, see answer.Reclaim.
func (r *request) leave(s *span) {
	if r.reclaims && s.lease != nil {
		r.left = append(r.left, s.lease)
	}
	s.lease = nil
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
