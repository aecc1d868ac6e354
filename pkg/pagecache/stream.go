package pagecache

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http/httptrace"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/varve-io/varve/pkg/bucket"
)

// Stream reads objects from front to back in many calls, such as the chunks of a block.
// Where they follow each other closely, one long answer of the bucket serves several of
// them: it is read as far as each call needs, and waits in between. So the length of a
// request does not depend on how much its reader has room for. A Stream is used by one
// goroutine. Close it.
type Stream struct {
	c *Cache
	// ahead says until where an object is wanted from off on, without gaps worth a request.
	ahead func(o Object, off int64) (until int64)
	flow  *flow // that may go on, or nil
}

// Stream returns a stream. Ahead says until where an object is going to be read from off
// on, without gaps that are worth a request; off if that is not known.
func (c *Cache) Stream(ahead func(o Object, off int64) (until int64)) *Stream {
	return &Stream{c: c, ahead: ahead}
}

// ReadRanges is Cache.ReadRanges. What a long answer that it begins is read for later,
// the end of ctx ends.
func (s *Stream) ReadRanges(ctx context.Context, ranges []Range) (*Lease, error) {
	return s.c.readRanges(ctx, ranges, s)
}

// Close gives up an answer that was not read to its end.
func (s *Stream) Close() { s.follow(nil) }

// Flows reports whether an answer is under way that the next call may go on with.
func (s *Stream) Flows() bool { return s.flow != nil && !s.flow.ended() }

// follow leaves the flow for another one.
func (s *Stream) follow(w *flow) {
	if s.flow != nil {
		s.flow.drop()
	}
	s.flow = w
}

// longest bounds an answer that is read in steps, in parts.
const longest = 2

// fetch brings parts, which are sorted: the first from the answer under way, if it comes
// to it, and the last as the beginning of a long one, if more of the object will be wanted.
func (s *Stream) fetch(ctx context.Context, u *Usage, parts []*part, settle func(*part, error)) ([]*part, error) {
	f := s.c.fetcher
	if s.flow != nil {
		parts = s.flow.serve(parts, f.price().always)
	}
	if last := parts[len(parts)-1]; last.flow == nil {
		next := s.begin(ctx, last)
		defer s.follow(next) // the one before may be of use until then
		last.flow = next
	}
	return f.fetch(ctx, u, parts, settle)
}

// begin returns a flow that begins with a part, or nil if nothing is to follow.
func (s *Stream) begin(ctx context.Context, p *part) *flow {
	f := s.c.fetcher
	until := min(s.ahead(p.object, p.end), p.object.Size)
	if most := p.off + longest*f.opts.PartBytes; until > most {
		until = most / pageSize * pageSize // where pieces end
	}
	if until <= p.end || !f.waiting.allowed() {
		return nil
	}
	w := newFlow(ctx, p.object, p.off, until)
	w.among = &f.waiting
	f.waiting.add(w)
	return w
}

// waiting are the long answers under way. Each keeps a connection, also while nobody reads;
// where those are few, it is they that new requests wait for. So when one hangs, they are
// given up, and for a while there are none.
type waiting struct {
	mu    sync.Mutex
	flows map[*flow]struct{}
	pause time.Duration
	until time.Time // none before
}

const (
	// mostWaiting is how many long answers there are at most.
	mostWaiting = 1024
	// firstWithout is for how long there are none after a hang; it doubles up to maxWithout.
	firstWithout = time.Minute
	maxWithout   = time.Hour
)

func (l *waiting) allowed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.flows) < mostWaiting && !time.Now().Before(l.until)
}

func (l *waiting) add(w *flow) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.flows == nil {
		l.flows = map[*flow]struct{}{}
	}
	l.flows[w] = struct{}{}
}

func (l *waiting) remove(w *flow) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.flows, w)
}

// giveUp ends those that nobody reads at the moment.
func (l *waiting) giveUp() {
	l.mu.Lock()
	var idle []*flow
	if len(l.flows) > 0 && !time.Now().Before(l.until) {
		l.pause = min(max(2*l.pause, firstWithout), maxWithout)
		l.until = time.Now().Add(l.pause)
		idle = slices.Collect(maps.Keys(l.flows))
	}
	l.mu.Unlock()
	for _, w := range idle {
		w.dropIdle()
	}
}

// flow is an answer of the bucket, read in one step or several.
type flow struct {
	object Object
	end    int64
	ctx    context.Context //nolint:containedctx // an answer outlives the step that it began with
	cancel context.CancelCauseFunc
	among  *waiting // or nil

	// Of who made busy true.
	off   int64 // of the next byte
	body  io.ReadCloser
	asked atomic.Int64 // when the bucket's client asked last, if it says so, Unix nanoseconds

	mu      sync.Mutex
	busy    bool
	begun   bool
	dropped bool
}

// newFlow returns a flow that is asked for in its first step.
func newFlow(ctx context.Context, o Object, off, end int64) *flow {
	w := &flow{object: o, off: off, end: end}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	return w
}

// serve has the flow bring the first of the parts, as far as it goes, if it comes there
// over no more than gap.
func (w *flow) serve(parts []*part, gap int64) []*part {
	first := parts[0]
	if w.ended() || w.object != first.object || first.off < w.off || first.off-w.off > gap {
		return parts
	}
	n := 0
	for n < len(first.pieces) && first.pieces[n].end <= w.end {
		n++
	}
	switch n {
	case 0:
	case len(first.pieces):
		first.flow = w
	default:
		head, tail := cut(first.pieces[:n]), cut(first.pieces[n:])
		head.flow = w
		return append([]*part{head, tail}, parts[1:]...)
	}
	return parts
}

// cut is the part that has some neighbouring pieces.
func cut(pieces []*piece) *part {
	p := &part{object: pieces[0].key.object, off: pieces[0].off, end: pieces[len(pieces)-1].end, pieces: pieces}
	for _, piece := range pieces {
		p.wanted += piece.end - piece.off
	}
	return p
}

// ended reports whether nothing more can be had, also because a step was given up and is
// still under way.
func (w *flow) ended() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.busy || w.dropped || w.off == w.end
}

// resumes reports whether the next step goes on with an answer that has begun.
func (w *flow) resumes() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.begun
}

// enter begins a step, which rest ends, if there can be one. It reports whether the step
// goes on with an answer that has begun.
func (w *flow) enter() (resumes bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy || w.dropped {
		return false, fmt.Errorf("%w: it was given up", errBroken)
	}
	resumes, w.begun, w.busy = w.begun, true, true
	return resumes, nil
}

// open asks for the answer. A client that asks again by itself calls refused before, if it
// asked too much.
func (w *flow) open(f *fetcher, u *Usage, refused func()) error {
	u.Requests.Add(1)
	f.metrics.requests.Inc()
	// A client that asks again by itself must not make the bucket look slow.
	ctx := httptrace.WithClientTrace(w.ctx, &httptrace.ClientTrace{GetConn: func(string) { w.asked.Store(time.Now().UnixNano()) }})
	body, err := f.bkt.GetRange(bucket.WithThrottled(ctx, refused), w.object, w.off, w.end-w.off)
	if err != nil {
		return err
	}
	w.body = body
	return nil
}

// late is how long after start the bucket was asked last.
func (w *flow) late(start time.Time) time.Duration {
	return time.Duration(max(0, w.asked.Load()-start.UnixNano()))
}

// skip reads over n bytes.
func (w *flow) skip(f *fetcher, u *Usage, n int64) error {
	n, err := io.CopyN(io.Discard, w.body, n)
	w.off += n
	f.count(u, n)
	if err != nil {
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	return nil
}

// rest ends a step. After an error the flow is of no use.
func (w *flow) rest(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy = false
	if w.dropped = w.dropped || err != nil; w.dropped {
		w.close()
	}
}

// drop gives up what is left of the answer.
func (w *flow) drop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dropped = true; w.busy {
		w.cancel(errGivenUp)
		return // who reads closes it
	}
	w.close()
}

// dropIdle is drop, unless a step is under way or the first is still to come.
func (w *flow) dropIdle() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.busy && w.begun {
		w.dropped = true
		w.close()
	}
}

// close ends the answer. The connection of one that was read whole serves others. The
// caller holds mu.
func (w *flow) close() {
	if w.body != nil {
		w.body.Close()
		w.body = nil
	}
	w.cancel(errGivenUp)
	w.among.remove(w)
}
