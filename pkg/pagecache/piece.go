package pagecache

import (
	"context"
	"errors"
	"slices"
	"sort"
)

// piece is a run of bytes inside one page that is on its way: one batch brings
// it, others may wait for it.
type piece struct {
	key      pageKey
	off, end int64
	owner    *batch
	// part brings the piece, and bytes are where. Only the owner looks at them.
	part  *part
	bytes []byte

	// The shard's lock guards these until wait is closed, and data, which the owner alone
	// sets, by that.
	settled bool
	wait    chan struct{} // made by the first other batch that wants the piece
	data    []byte        // valid after wait, never written to
	err     error
}

// source is where a part of a range comes from: bytes at hand, or a piece that
// covers [off, end) at least.
type source struct {
	off, end int64
	data     []byte
	piece    *piece
}

// bytes returns the bytes of [off, end) once the piece, if any, is here.
func (s source) bytes(b *batch) []byte {
	switch {
	case s.piece == nil:
		return s.data
	case s.piece.owner == b:
		return s.piece.bytes[s.off-s.piece.off : s.end-s.piece.off]
	default:
		return s.piece.data[s.off-s.piece.off : s.end-s.piece.off]
	}
}

// find appends to dst where the bytes [off, end) of a page come from. What nobody
// brings yet becomes pieces of b.
func (s *shard) find(dst []source, b *batch, k pageKey, off, end int64) []source {
	b.prepare()
	dst = slices.Grow(dst, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	var held extents
	p := s.pages[k.hash()]
	if p != nil && p.key == k {
		held = p.extents
	}
	at := off
	for _, e := range held.from(off) {
		if e.off >= end {
			break
		}
		if at < e.off {
			dst = s.await(dst, b, k, at, e.off)
			at = e.off
		}
		to := min(e.end(), end)
		dst = append(dst, source{off: at, end: to, data: e.slice(at, to)})
		b.fromMemory += to - at
		at = to
	}
	if at < end {
		return s.await(dst, b, k, at, end)
	}
	if p != nil {
		p.use() // only what is there is used again; a page that grows is not
	}
	return dst
}

// prepare has memory at hand for a piece: to ask for some may take long, and is not done
// while others wait for a shard.
func (b *batch) prepare() {
	if b.spare == nil {
		b.spare = new(piece)
	}
	b.own = slices.Grow(b.own, 1)
}

// newPiece returns an empty piece.
func (b *batch) newPiece() (p *piece) {
	if p, b.spare = b.spare, nil; p == nil {
		p = new(piece)
	}
	return p
}

// await is find for bytes that are not in memory. The caller holds mu.
func (s *shard) await(dst []source, b *batch, k pageKey, off, end int64) []source {
	coming := s.coming[k]
	i := sort.Search(len(coming), func(i int) bool { return coming[i].end > off })
	for at := off; at < end; i++ {
		if i < len(coming) && coming[i].off <= at { // somebody brings it
			p := coming[i]
			if p.owner != b && p.wait == nil {
				p.wait = make(chan struct{})
			}
			to := min(p.end, end)
			dst = append(dst, source{off: at, end: to, piece: p})
			at = to
			continue
		}
		to := end
		if i < len(coming) {
			to = min(to, coming[i].off)
		}
		p := b.newPiece()
		*p = piece{key: k, off: at, end: to, owner: b}
		coming = slices.Insert(coming, i, p)
		b.own = append(b.own, p)
		dst = append(dst, source{off: at, end: to, piece: p})
		at = to
	}
	s.coming[k] = coming
	return dst
}

// hold keeps the bytes of pieces of one page.
func (s *shard) hold(k pageKey, pieces []*piece) {
	more := make([]extent, len(pieces))
	for i, p := range pieces {
		more[i] = extent{p.off, p.bytes}
	}
	s.add(k, more)
}

// settle ends pieces of one page: their bytes are handed to who waits, or err is.
func (s *shard) settle(k pageKey, pieces []*piece, err error) {
	for _, p := range s.awaited(pieces) { // most of them, while nobody waits for the shard
		p.data = slices.Clone(p.bytes)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range pieces {
		p.settled = true
		if p.err = err; p.wait != nil {
			if p.data == nil {
				p.data = slices.Clone(p.bytes)
			}
			close(p.wait)
		}
	}
	coming := slices.DeleteFunc(s.coming[k], func(p *piece) bool { return p.settled })
	if len(coming) == 0 {
		delete(s.coming, k)
		return
	}
	s.coming[k] = coming
}

// awaited returns those of the pieces that other batches wait for.
func (s *shard) awaited(pieces []*piece) (some []*piece) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range pieces {
		if p.wait != nil {
			some = append(some, p)
		}
	}
	return some
}

// wait blocks until the pieces of other batches that a range needs are here. It
// reports false if one of them was given up by its own batch, so that the bytes
// have to be looked for again.
func (b *batch) wait(ctx context.Context, sources []source) (bool, error) {
	for _, s := range sources {
		if s.piece == nil || s.piece.owner == b {
			continue
		}
		select {
		case <-s.piece.wait:
		case <-ctx.Done():
			return false, ctx.Err()
		}
		switch {
		case s.piece.err == nil:
			b.shared += s.end - s.off
		case errors.Is(s.piece.err, errGivenUp):
			return false, nil
		default:
			return false, s.piece.err
		}
	}
	return true, nil
}

// errGivenUp ends pieces whose batch ended before it brought them: its context
// ended, or others of its pieces could not be had.
var errGivenUp = errors.New("given up by who read it first")
