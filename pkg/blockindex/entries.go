package blockindex

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
)

// entryBatch is series entries that are read at once.
type entryBatch struct {
	refs  []uint32
	spans []entrySpan
	buf   []byte // that the spans lie in

	// Of one that is read ahead:
	cancel context.CancelFunc
	read   chan struct{} // closed when err says how it went
	err    error
}

// entrySpan is entries that follow each other closely.
type entrySpan struct {
	begin, end int64
	buf        []byte
}

// ReadAhead has the next entries read while those at hand are taken, so that two windows
// are held. Close the reader then.
func (r *SeriesReader) ReadAhead() { r.ahead = true }

// Close ends what is read ahead.
func (r *SeriesReader) Close() {
	if r.coming != nil {
		r.coming.cancel()
		<-r.coming.read
		r.coming = nil
	}
}

// load reads the entries of the next references, or takes those that were read ahead.
func (r *SeriesReader) load(ctx context.Context) error {
	unused := r.buf // for nothing is held any more
	b, err := r.coming, error(nil)
	if r.coming = nil; b != nil {
		<-b.read
		b.cancel()
		err = b.err
	} else if b, err = r.nextBatch(unused); err == nil {
		unused, err = nil, r.x.src.Read(ctx, b.ranges()...)
	}
	if err != nil {
		return fmt.Errorf("read series entries: %w", err)
	}
	r.buf = b.buf
	long := r.hold(b)
	if r.read += len(b.refs); r.ahead && r.read < len(r.refs) {
		r.begin(ctx, unused)
	}
	return r.loadLong(ctx, long)
}

// begin reads the next entries, into unused if they fit.
func (r *SeriesReader) begin(ctx context.Context, unused []byte) {
	b, err := r.nextBatch(unused)
	if err != nil {
		return // load will say so
	}
	ctx, b.cancel = context.WithCancel(ctx)
	b.read = make(chan struct{})
	r.coming = b
	go func() {
		defer close(b.read)
		b.err = r.x.src.Read(ctx, b.ranges()...)
	}()
}

// nextBatch is the entries to be read next, as many as the window holds.
func (r *SeriesReader) nextBatch(buf []byte) (*entryBatch, error) {
	b := &entryBatch{}
	x, typical := r.x, r.x.typical.Load()
	refs := r.refs[r.read:]
	n, total := 0, int64(0)
	for ; n < len(refs) && total+int64(n)*perHeld < r.window*2/3; n++ {
		off, err := x.position(refs[n])
		if err != nil {
			return nil, err
		}
		end := min(off+typical, x.dir.seriesEnd)
		if k := len(b.spans) - 1; k >= 0 && off <= b.spans[k].end {
			total += end - b.spans[k].end
			b.spans[k].end = end
			continue
		}
		total += end - off
		b.spans = append(b.spans, entrySpan{begin: off, end: end})
	}
	b.refs = refs[:n]
	b.buf = slices.Grow(buf[:0], int(total))[:total]
	free := b.buf
	for i := range b.spans {
		s := &b.spans[i]
		s.buf, free = free[:s.end-s.begin], free[s.end-s.begin:]
	}
	return b, nil
}

// ranges are what is to be read.
func (b *entryBatch) ranges() []Range {
	ranges := make([]Range, len(b.spans))
	for i, s := range b.spans {
		ranges[i] = Range{s.begin, s.buf}
	}
	return ranges
}

// hold makes entries that were read those at hand, and returns which are longer than that.
func (r *SeriesReader) hold(b *entryBatch) (long []int) {
	r.entries = slices.Grow(r.entries[:0], len(b.refs))
	r.held = r.entries[:len(b.refs)]
	spans := b.spans
	for i, ref := range b.refs {
		off, _ := r.x.position(ref)
		if off >= spans[0].end {
			spans = spans[1:]
		}
		h := heldEntry{ref, spans[0].buf[off-spans[0].begin:]}
		if _, size := entrySize(h.read); size > int64(len(h.read)) {
			long = append(long, i)
		}
		r.held[i] = h
	}
	return long
}

// entrySize is where the body of the entry at the front of b begins and how long
// the whole is. It is 0, 0 for what is none.
func entrySize(b []byte) (body int, size int64) {
	length, n := binary.Uvarint(b[:min(len(b), binary.MaxVarintLen32)])
	if n <= 0 {
		return 0, 0
	}
	return n, int64(n) + int64(length) + 4
}

// loadLong reads those of the entries again that were longer than expected.
func (r *SeriesReader) loadLong(ctx context.Context, long []int) error {
	if len(long) == 0 {
		return nil
	}
	x := r.x
	ranges := make([]Range, len(long))
	for k, i := range long {
		h := &r.held[i]
		off, _ := x.position(h.ref)
		end := x.dir.seriesEnd
		_, size := entrySize(h.read)
		if i+1 < len(r.held) {
			// Entries do not overlap, which bounds what a broken length can cost.
			end, _ = x.position(r.held[i+1].ref)
		}
		if size > end-off {
			return corruptf("series %d has %d bytes where %d are", h.ref, size, end-off)
		}
		// A little more, for the entry that follows.
		size = min(size+x.typical.Load()/2, x.dir.seriesEnd-off)
		h.read = make([]byte, size)
		ranges[k] = Range{off, h.read}
	}
	if err := x.src.Read(ctx, ranges...); err != nil {
		return fmt.Errorf("read series entries: %w", err)
	}
	if typical := x.typical.Load(); len(long)*8 > len(r.held) && typical < maxTypical {
		x.typical.CompareAndSwap(typical, 2*typical)
	}
	return nil
}
