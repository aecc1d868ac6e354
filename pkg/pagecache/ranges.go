package pagecache

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Range is a run of bytes that is wanted.
type Range struct {
	Object   Object
	Off, Len int64
	// Bytes is set by ReadRanges. It must not be written to, and is valid until the
	// lease is released.
	Bytes []byte
}

// ReadRanges reads ranges of one or several objects, in any order, and sets their
// Bytes. What is missing is fetched with few requests side by side. The bytes lie
// where they arrived or where they are cached; the lease, which may be nil, holds the
// buffers of the first kind. After an error no Bytes are valid.
//
// The memory in flight is that of the ranges and the gaps between them; who reads
// much does so in several calls.
func (c *Cache) ReadRanges(ctx context.Context, ranges []Range) (*Lease, error) {
	return c.readRanges(ctx, ranges, c.fetcher)
}

// bringer brings parts, or others of the same pieces, which it returns, and settles
// every one of them, also after an error.
type bringer interface {
	fetch(ctx context.Context, u *Usage, parts []*part, settle func(*part, error)) ([]*part, error)
}

func (c *Cache) readRanges(ctx context.Context, ranges []Range, from bringer) (*Lease, error) {
	for _, r := range ranges {
		if err := checkRange(r.Object, r.Off, r.Len); err != nil {
			return nil, err
		}
	}
	b := &batch{c: c, from: from, usage: usageOf(ctx)}
	if b.usage == nil {
		b.usage = new(Usage)
	}
	defer b.account(ranges)
	for i := range ranges {
		if !c.hit(b, &ranges[i]) {
			b.wants = append(b.wants, want{Range: &ranges[i]})
		}
	}
	if len(b.wants) == 0 {
		return nil, nil //nolint:nilnil // a nil lease is a lease of nothing
	}
	start := time.Now()
	defer func() { b.usage.Waited.Add(int64(time.Since(start))) }()
	if err := b.read(ctx); err != nil {
		b.lease.Release()
		r := b.wants[0]
		if len(ranges) > 1 {
			return nil, fmt.Errorf("read %d ranges, of %s and others: %w", len(ranges), r.Object.Name, err)
		}
		return nil, fmt.Errorf("read %d bytes at %d of %s: %w", r.Len, r.Off, r.Object.Name, err)
	}
	return b.lease, nil
}

// hit sets the bytes of a range that memory has in one piece.
func (c *Cache) hit(b *batch, r *Range) bool {
	if r.Len == 0 {
		r.Bytes = []byte{}
		return true
	}
	k := pageKey{r.Object, r.Off / pageSize}
	if (r.Off+r.Len-1)/pageSize != k.n {
		return false
	}
	r.Bytes = c.memory.get(k, r.Off, r.Off+r.Len)
	if r.Bytes == nil {
		return false
	}
	b.fromMemory += r.Len
	return true
}

// batch is one call of ReadRanges that memory alone cannot answer.
type batch struct {
	c     *Cache
	from  bringer
	usage *Usage
	wants []want
	own   []*piece // that nobody else brings
	spare *piece   // or nil
	lease *Lease

	found map[pageKey]extents // what the remote cache has of pages that were looked up

	fromMemory, disk, remote, shared int64
}

// want is a range and where its bytes come from, in order.
type want struct {
	*Range
	sources []source
}

// read answers the wants. What others were to bring and did not is looked for again.
func (b *batch) read(ctx context.Context) error {
	for wants := b.wants; len(wants) > 0; {
		for i := range wants {
			b.look(&wants[i])
		}
		parts, err := b.bring(ctx)
		if err != nil {
			return err
		}
		var again []want
		for i := range wants {
			ok, err := b.wait(ctx, wants[i].sources)
			if err != nil {
				return err
			}
			if !ok {
				again = append(again, want{Range: wants[i].Range})
				wants[i].sources = nil
			}
		}
		b.assemble(wants, parts)
		wants = again
	}
	return nil
}

// look finds where the bytes of a want come from.
func (b *batch) look(w *want) {
	for off, end := w.Off, w.Off+w.Len; off < end; {
		k := pageKey{w.Object, off / pageSize}
		to := min((k.n+1)*pageSize, end)
		w.sources = b.c.memory.shard(k).find(w.sources, b, k, off, to)
		off = to
	}
}

// bring reads the pieces of the batch, from disk or from the bucket.
func (b *batch) bring(ctx context.Context) ([]*part, error) {
	own := b.own
	b.own = nil
	if len(own) == 0 {
		return nil, nil
	}
	sortPieces(own)
	parts, missing := b.fromDisk(own)
	more, missing := b.fromRemote(ctx, missing)
	parts = append(parts, more...)
	if len(missing) == 0 {
		return parts, nil
	}
	fetched, err := b.from.fetch(ctx, b.usage, plan(missing, b.c.fetcher.price()), b.settle)
	return append(parts, fetched...), err
}

// diskReaders is how many pages one batch reads from disk at a time.
const diskReaders = 8

// fromDisk settles what the disk has of the pieces, which are sorted, and returns the
// others.
func (b *batch) fromDisk(own []*piece) (parts []*part, missing []*piece) {
	if b.c.disk == nil {
		return nil, own
	}
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(diskReaders)
	for k, pieces := range pages(own) {
		if !b.c.disk.has(k) {
			continue
		}
		g.Go(func() error {
			p := b.c.disk.read(k, pieces)
			if p == nil {
				return nil
			}
			s := b.c.memory.shard(k)
			s.hold(k, p.pieces)
			s.settle(k, p.pieces, nil)
			mu.Lock()
			defer mu.Unlock()
			parts = append(parts, p)
			return nil
		})
	}
	_ = g.Wait() // no reader returns an error
	for _, p := range parts {
		b.disk += p.wanted
	}
	return parts, slices.DeleteFunc(own, func(p *piece) bool { return p.part != nil })
}

// pages are runs of pieces of one page; the pieces are sorted.
func pages(pieces []*piece) iter.Seq2[pageKey, []*piece] {
	return func(yield func(pageKey, []*piece) bool) {
		for from := 0; from < len(pieces); {
			k := pieces[from].key
			to := from + 1
			for to < len(pieces) && pieces[to].key == k {
				to++
			}
			if !yield(k, pieces[from:to]) {
				return
			}
			from = to
		}
	}
}

// bulk is what a remote cache is not for, and memory neither, if there is a disk: so
// much in one request is rarely wanted again. The second time it goes to disk, for to write
// what is read once costs as much time as to send it, and from there to memory.
const bulk = 256 << 10

// settle ends the pieces of a part that came from the bucket, or did not.
func (b *batch) settle(p *part, err error) {
	c := b.c
	for k, pieces := range pages(p.pieces) {
		s := c.memory.shard(k)
		if err == nil {
			long := p.flow != nil || p.wanted >= bulk
			passes := c.disk != nil && long && !c.disk.again(k, b.usage.number(&c.readers))
			onDisk := c.disk != nil && !passes && c.toDisk(k, p, pieces)
			if !passes && (!onDisk || !long) {
				s.hold(k, pieces)
			}
			if c.opts.Remote != nil && !long {
				b.tell(k, p.runs(pieces))
			}
		}
		s.settle(k, pieces, err)
	}
}

// toDisk has pieces of one page of a part written, and reports whether it will be. Until
// then they lie in the buffer of the part, unless that is mostly gaps.
func (c *Cache) toDisk(k pageKey, p *part, pieces []*piece) bool {
	x := p.runs(pieces)
	if p.sparse() {
		return c.disk.keep(k, extents(nil).with(x), nil)
	}
	return c.disk.keep(k, x, p.held)
}

// runs returns pieces of the part as extents, those that touch as one.
func (p *part) runs(pieces []*piece) (x []extent) {
	for i := 0; i < len(pieces); {
		off, end := pieces[i].off, pieces[i].end
		for i++; i < len(pieces) && pieces[i].off == end; i++ {
			end = pieces[i].end
		}
		x = append(x, extent{off, p.data[off-p.off : end-p.off]})
	}
	return x
}

// assemble sets the bytes of the wants: where they arrived or are kept if they lie
// there in one piece, else in a buffer of their own.
func (b *batch) assemble(wants []want, parts []*part) {
	var copied int64
	for i := range wants {
		if w := &wants[i]; len(w.sources) > 0 && !w.lend(b) {
			copied += w.Len
		}
	}
	if copied > 0 {
		room := b.c.buffers.get(copied)
		b.lease = b.lease.hold(newBuffer(&b.c.buffers, room))
		for i := range wants {
			if w := &wants[i]; len(w.sources) > 0 && w.Bytes == nil {
				w.Bytes, room = room[:w.Len:w.Len], room[w.Len:]
				for _, s := range w.sources {
					copy(w.Bytes[s.off-w.Off:], s.bytes(b))
				}
			}
		}
	}
	for _, p := range parts {
		if p.lent {
			b.lease = b.lease.hold(p.held)
		} else {
			p.held.release()
		}
	}
}

// lend sets the bytes of a want to where they lie, if that is one piece. The buffer
// of a part is lent only if at least half of it is wanted: a small want must not
// keep a large buffer.
func (w *want) lend(b *batch) bool {
	w.Bytes = nil
	first := w.sources[0]
	if first.piece == nil || first.piece.owner != b {
		if len(w.sources) == 1 {
			w.Bytes = first.bytes(b)
		}
		return len(w.sources) == 1
	}
	p := first.piece.part
	if p.sparse() {
		return false
	}
	for _, s := range w.sources {
		if s.piece == nil || s.piece.owner != b || s.piece.part != p {
			return false
		}
	}
	p.lent = true
	w.Bytes = p.data[w.Off-p.off : w.Off-p.off+w.Len : w.Off-p.off+w.Len]
	return true
}

// account books the call.
func (b *batch) account(ranges []Range) {
	var needed int64
	for _, r := range ranges {
		needed += r.Len
	}
	b.usage.Ranges.Add(int64(len(ranges)))
	b.usage.Needed.Add(needed)
	b.usage.FromMemory.Add(b.fromMemory)
	b.usage.FromDisk.Add(b.disk)
	b.usage.FromRemote.Add(b.remote)
	b.usage.Shared.Add(b.shared)
	b.c.metrics.needed.Add(float64(needed))
	b.c.metrics.memory.Add(float64(b.fromMemory))
	b.c.metrics.disk.Add(float64(b.disk))
	b.c.metrics.remote.Add(float64(b.remote))
	b.c.metrics.shared.Add(float64(b.shared))
}
