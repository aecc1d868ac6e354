package pagecache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/varve-io/varve/pkg/bucket"
)

var (
	// errHangs ends a request that brought no byte for too long.
	errHangs = errors.New("no byte came")
	// errBroken marks an answer that broke off.
	errBroken = errors.New("the answer broke off")
)

const (
	// firstPause is how long one waits before asking again; it doubles up to
	// maxPause, and half of it is random.
	firstPause = 50 * time.Millisecond
	maxPause   = 5 * time.Second
	// hangFactor times the usual time to the first byte is not yet a hang.
	hangFactor = 20
)

// fetcher reads parts of objects from the bucket: side by side, again after errors
// that pass, and twice if the first answer is late.
type fetcher struct {
	bkt     bucketRanges
	opts    Options
	buffers *buffers
	metrics *metrics
	slots   *slots
	pace    *pace
	waiting waiting
	running sync.WaitGroup // requests
}

func newFetcher(bkt bucketRanges, o Options, b *buffers, m *metrics) *fetcher {
	return &fetcher{bkt: bkt, opts: o, buffers: b, metrics: m, slots: newSlots(o.Concurrency, m), pace: newPace(m)}
}

// wait returns when no request is under way.
func (f *fetcher) wait() { f.running.Wait() }

func (f *fetcher) price() price {
	always, most := f.pace.gaps()
	return price{always: always, most: most, free: f.slots.free(), part: f.opts.PartBytes}
}

// fetch implements bringer.
func (f *fetcher) fetch(ctx context.Context, u *Usage, parts []*part, settle func(*part, error)) ([]*part, error) {
	if len(parts) == 1 { // the common case
		return parts, f.bring(ctx, u, parts[0], settle)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(f.opts.Concurrency)
	for _, p := range parts {
		g.Go(func() error { return f.bring(ctx, u, p, settle) })
	}
	return parts, g.Wait()
}

// bring reads a part and settles it.
func (f *fetcher) bring(ctx context.Context, u *Usage, p *part, settle func(*part, error)) error {
	data, err := f.persist(ctx, u, p)
	switch {
	case err == nil:
		p.own(f.buffers, data)
		for _, piece := range p.pieces {
			piece.part, piece.bytes = p, data[piece.off-p.off:piece.end-p.off]
		}
		settle(p, nil)
	case ctx.Err() != nil:
		settle(p, errGivenUp)
	default:
		settle(p, err)
	}
	return err
}

// persist asks for a part until it comes, a few times.
func (f *fetcher) persist(ctx context.Context, u *Usage, p *part) ([]byte, error) {
	if p.flow != nil && p.flow.resumes() { // a connection that waited for long may be gone
		if data, err := f.ask(ctx, u, p); err == nil || ctx.Err() != nil {
			return data, err
		}
		p.flow = nil
	}
	for n := 1; ; n++ {
		data, err := f.ask(ctx, u, p)
		if err == nil || ctx.Err() != nil || !passes(err) {
			return data, err
		}
		p.flow = nil
		if n == f.opts.Attempts {
			return nil, fmt.Errorf("after %d attempts: %w", n, err)
		}
		u.Retries.Add(1)
		f.metrics.retries.Inc()
		if err := f.rest(ctx, n); err != nil {
			return nil, err
		}
	}
}

// rest waits before the n-th repetition of a request.
func (f *fetcher) rest(ctx context.Context, n int) error {
	pause := min(firstPause<<min(n-1, 16), maxPause)
	select {
	case <-time.After(pause/2 + rand.N(pause/2)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// patience is how long a request may bring nothing.
func (f *fetcher) patience() time.Duration {
	return max(f.opts.Patience, hangFactor*f.pace.usual())
}

// hung is why a request ends that brings nothing for so long.
func hung(patience time.Duration) error { return fmt.Errorf("%w for %s", errHangs, patience) }

// judge learns from how a request went, and says of one that hung that it did.
func (f *fetcher) judge(w *flow, err error, start time.Time) error {
	switch cause := context.Cause(w.ctx); {
	case err == nil:
		f.slots.succeeded()
	case errors.Is(cause, errHangs):
		f.waiting.giveUp()
		return cause
	case errors.Is(err, bucket.ErrThrottled):
		f.throttled(w, start)
	}
	return err
}

// throttled makes fewer requests from now on, for the bucket refused one of a flow.
func (f *fetcher) throttled(w *flow, start time.Time) {
	f.metrics.throttled.Inc()
	f.slots.throttled(start.Add(w.late(start)), time.Now())
}

// passes reports whether the same request may succeed later.
func passes(err error) bool {
	return errors.Is(err, bucket.ErrTransient) || errors.Is(err, ErrShort) || errors.Is(err, errHangs) || errors.Is(err, errBroken)
}

// answer is what came of a request.
type answer struct {
	data   []byte
	err    error
	hedged bool
}

// ask makes a request for a part, and another one if that is among the slowest.
// The first good answer counts.
func (f *fetcher) ask(ctx context.Context, u *Usage, p *part) ([]byte, error) {
	if err := f.slots.acquire(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // the slower request
	answers := make(chan answer, 2)
	var came atomic.Int64 // bytes so far
	begin := func(w *flow, hedged bool) {
		f.running.Go(func() {
			defer f.slots.release()
			data, err := f.request(ctx, u, request{p, w, &came})
			answers <- answer{data, err, hedged}
		})
	}
	n, start := p.end-p.off, time.Now()
	resumes := p.flow != nil && p.flow.resumes()
	begin(p.flow, false)
	late := time.NewTimer(f.pace.slowAfter(n))
	defer late.Stop()
	for flying := 1; ; {
		select {
		case a := <-answers:
			if flying--; a.err != nil && flying > 0 {
				continue
			}
			if a.err == nil && !resumes {
				f.pace.answered(time.Since(start), n)
			}
			if a.err == nil && a.hedged {
				f.metrics.hedgesWon.Inc()
			}
			return a.data, a.err
		case <-late.C:
			if flying == 2 {
				continue
			}
			if !f.mayHedge(came.Load(), n, time.Since(start)) {
				late.Reset(f.pace.slowAfter(n))
				continue
			}
			flying++
			u.Hedges.Add(1)
			f.metrics.hedges.Inc()
			begin(nil, true)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// mayHedge takes a slot for a hedge of a request of which so many of n bytes came in that
// time, if there is one that nobody else needs.
func (f *fetcher) mayHedge(came, n int64, took time.Duration) bool {
	if !f.pace.late(came, n, took) || !f.slots.calm() || !f.slots.try() {
		return false
	}
	if !f.pace.hedge() {
		f.slots.release()
		return false
	}
	return true
}

// request is one for a part, from a flow, or by itself if that is nil.
type request struct {
	part *part
	flow *flow
	came *atomic.Int64 // counts the bytes while they come
}

// request makes a request. It holds a slot.
func (f *fetcher) request(ctx context.Context, u *Usage, r request) (_ []byte, err error) {
	p, w := r.part, r.flow
	if w == nil {
		w = newFlow(ctx, p.object, p.off, p.end)
		defer w.drop()
	}
	defer context.AfterFunc(ctx, func() { w.cancel(context.Cause(ctx)) })()
	patience, start := f.patience(), time.Now()
	hang := time.AfterFunc(patience, func() { w.cancel(hung(patience)) })
	defer hang.Stop()
	defer func() { err = f.judge(w, err, start) }()

	resumes, err := w.enter()
	if err != nil {
		return nil, err
	}
	defer func() { w.rest(err) }()
	if resumes {
		err = w.skip(f, u, p.off-w.off)
	} else {
		err = w.open(f, u, func() { //nolint:contextcheck // an answer outlives the step that it began with
			hang.Reset(patience) // a refusal is an answer, too
			f.throttled(w, start)
		})
	}
	if err != nil {
		return nil, err
	}
	n := p.end - p.off
	data := f.buffers.get(n)
	read, first := 0, time.Duration(0)
	for read < len(data) && err == nil {
		var k int
		k, err = w.body.Read(data[read:])
		if read += k; k > 0 {
			r.came.Add(int64(k))
			if first == 0 {
				first = time.Since(start)
			}
			hang.Reset(patience)
		}
	}
	w.off += int64(read)
	f.count(u, int64(read))
	if read == len(data) {
		if !resumes {
			late := w.late(start)
			f.pace.arrived(first-late, time.Since(start)-late, n)
		}
		return data, nil
	}
	f.buffers.put(data)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("%w: %d bytes at %d instead of %d", ErrShort, read, p.off, n)
	}
	return nil, fmt.Errorf("%w after %d bytes: %w", errBroken, read, err)
}

// count books bytes that came.
func (f *fetcher) count(u *Usage, n int64) {
	u.Fetched.Add(n)
	f.metrics.fetched.Add(float64(n))
}
