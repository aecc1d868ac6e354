package blockio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync/atomic"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/bucket"
)

// ReadAhead bounds what the objects that share it hold in memory and have under way.
type ReadAhead struct {
	window int64
	gate   chan struct{}
	single bool // no window is fetched before it is asked for
	opened atomic.Int64
}

const (
	// Below minWindow a request costs more than the bytes that it brings; beyond
	// maxWindow a request more does not matter any longer.
	minWindow = 64 << 10
	maxWindow = 4 << 20
	// sparseWindow is for reading little: some chunks of a series, or a header.
	sparseWindow = 16 << 10
)

// NewReadAhead is for objects of which so many are read at a time, within about
// so many bytes of memory, by so many requests at a time.
func NewReadAhead(memory int64, objects, requests int) *ReadAhead {
	// The one that is read, and behind its middle the next: objects that are read side by
	// side are at different places in their windows, so half of them hold two.
	window := memory * 2 / int64(3*max(objects, 1))
	return &ReadAhead{window: min(max(window, minWindow), maxWindow), gate: make(chan struct{}, requests)}
}

// Sparse is for objects of which something is read here and there: in small windows,
// each when it is asked for, by so many requests at a time.
func Sparse(requests int) *ReadAhead {
	return &ReadAhead{window: sparseWindow, gate: make(chan struct{}, requests), single: true}
}

// object makes an object that is read in this way.
func (r *ReadAhead) object(bkt bucket.Reader, name string, size int64) *Object {
	const golden = 0.618034 // its multiples lie evenly, however many they are
	_, part := math.Modf(golden * float64(r.opened.Add(1)))
	return &Object{bkt: bkt, name: name, size: size, ahead: r, shift: int64(part * float64(r.window))}
}

// Object is an object that is mostly read from front to end: in windows, the next
// of which is fetched while the second half of one is used. Any other order works and is slower. It is
// used by one goroutine, and closed when nothing reads it any more.
type Object struct {
	bkt   bucket.Reader
	name  string
	size  int64
	ahead *ReadAhead
	shift int64 // windows that are read ahead end at multiples of their size, and so much before
	cur   window
	next  *fetching
}

// window is a part of an object. Its bytes never change and stay valid.
type window struct {
	off  int64
	data []byte
}

func (w window) end() int64            { return w.off + int64(len(w.data)) }
func (w window) holds(off int64) bool  { return w.off <= off && off < w.end() }
func (w window) from(off int64) []byte { return w.data[off-w.off:] }

// fetching is a window on its way.
type fetching struct {
	window

	size   int64
	err    error
	done   chan struct{}
	cancel context.CancelFunc
}

func (f *fetching) brings(off int64) bool { return f.off <= off && off < f.off+f.size }

// Size is the length of the object in bytes.
func (o *Object) Size() int64 { return o.size }

// Name is the object's name in the bucket.
func (o *Object) Name() string { return o.name }

// At returns n bytes from off on, which stay valid and are not to be written to.
// Bytes that the object does not have are block.ErrCorrupt.
func (o *Object) At(ctx context.Context, off, n int64) ([]byte, error) {
	if off < 0 || n < 0 || off > o.size || n > o.size-off {
		return nil, fmt.Errorf("read %d bytes at %d of %s, which has %d: %w", n, off, o.name, o.size, block.ErrCorrupt)
	}
	if n == 0 {
		return nil, nil
	}
	if o.cur.holds(off) && n <= o.cur.end()-off {
		if o.next == nil && o.cur.end()-off < int64(len(o.cur.data)/2) {
			o.goOn(ctx)
		}
		return o.cur.from(off)[:n:n], nil
	}
	var joined []byte
	for {
		pos := off + int64(len(joined))
		if err := o.move(ctx, pos); err != nil {
			return nil, fmt.Errorf("read %s: %w", o.name, err)
		}
		rest := o.cur.from(pos)
		missing := n - int64(len(joined))
		if missing > int64(len(rest)) {
			joined = append(joined, rest...)
			continue
		}
		if joined == nil {
			return rest[:n:n], nil
		}
		return append(joined, rest[:missing]...), nil
	}
}

// Expect begins to fetch what is at off, which will be read next.
func (o *Object) Expect(ctx context.Context, off int64) {
	if o.cur.holds(off) || off < 0 || off >= o.size {
		return
	}
	if o.next == nil || !o.next.brings(off) {
		o.drop()
		o.next = o.fetch(ctx, off)
	}
}

// move makes the window that holds off the current one.
func (o *Object) move(ctx context.Context, off int64) error {
	if o.cur.holds(off) {
		return nil
	}
	if o.next == nil || !o.next.brings(off) {
		o.drop()
		o.next = o.fetch(ctx, off)
	}
	f := o.next
	o.next = nil
	<-f.done
	f.cancel()
	if f.err != nil {
		return f.err
	}
	o.cur = f.window
	return nil
}

// goOn begins to fetch the window behind the current one.
func (o *Object) goOn(ctx context.Context) {
	if end := o.cur.end(); end < o.size && !o.ahead.single {
		o.next = o.fetch(ctx, end)
	}
}

func (o *Object) fetch(ctx context.Context, off int64) *fetching {
	size := o.ahead.window
	switch {
	case o.size <= size:
		off = 0 // one request brings all of it
	case !o.ahead.single:
		if size -= (off + o.shift) % size; size < minWindow {
			size += o.ahead.window
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	f := &fetching{
		window: window{off: off}, size: min(size, o.size-off),
		done: make(chan struct{}), cancel: cancel,
	}
	go func() {
		defer close(f.done)
		select {
		case o.ahead.gate <- struct{}{}:
			defer func() { <-o.ahead.gate }()
			f.data, f.err = readRange(ctx, o.bkt, o.name, f.off, f.size)
		case <-ctx.Done():
			f.err = ctx.Err()
		}
	}()
	return f
}

// readRange reads n bytes of an object that has them.
func readRange(ctx context.Context, bkt bucket.Reader, name string, off, n int64) (data []byte, err error) {
	r, err := bkt.GetRange(ctx, name, off, n)
	if err != nil {
		return nil, fmt.Errorf("%d bytes at %d: %w", n, off, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	data = make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, fmt.Errorf("%d bytes at %d: %w", n, off, err)
	}
	return data, nil
}

// again is the same object, of which nothing was read.
func (o *Object) again() *Object {
	return o.ahead.object(o.bkt, o.name, o.size)
}

// Close ends reading ahead and lets go of what was read, which stays valid for
// those who have it. Reading may go on afterwards.
func (o *Object) Close() {
	o.cur = window{}
	o.drop()
}

// drop gives up the window that is on its way.
func (o *Object) drop() {
	if o.next != nil {
		o.next.cancel()
		<-o.next.done
		o.next = nil
	}
}
