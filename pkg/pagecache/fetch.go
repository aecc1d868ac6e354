package pagecache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
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

// fetch brings parts and settles every one of them, also after an error.
func (f *fetcher) fetch(ctx context.Context, u *Usage, parts []*part, settle func(*part, error)) error {
	if len(parts) == 1 { // the common case
		return f.bring(ctx, u, parts[0], settle)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(f.opts.Concurrency)
	for _, p := range parts {
		g.Go(func() error { return f.bring(ctx, u, p, settle) })
	}
	return g.Wait()
}

// bring reads a part and settles it.
func (f *fetcher) bring(ctx context.Context, u *Usage, p *part, settle func(*part, error)) error {
	data, err := f.persist(ctx, u, p)
	switch {
	case err == nil:
		p.data = data
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
	for n := 1; ; n++ {
		data, err := f.ask(ctx, u, p)
		if err == nil || ctx.Err() != nil || !passes(err) {
			return data, err
		}
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
func (f *fetcher) judge(ctx context.Context, err error, start time.Time) error {
	switch cause := context.Cause(ctx); {
	case err == nil:
		f.slots.succeeded()
	case errors.Is(cause, errHangs):
		return cause
	case errors.Is(err, bucket.ErrThrottled):
		f.metrics.throttled.Inc()
		f.slots.throttled(start, time.Now())
	}
	return err
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
	begin := func(hedged bool) {
		u.Requests.Add(1)
		f.metrics.requests.Inc()
		f.running.Go(func() {
			defer f.slots.release()
			data, err := f.request(ctx, u, p)
			answers <- answer{data, err, hedged}
		})
	}
	n, start := p.end-p.off, time.Now()
	begin(false)
	late := time.NewTimer(f.pace.slowAfter(n))
	defer late.Stop()
	for flying := 1; ; {
		select {
		case a := <-answers:
			if flying--; a.err != nil && flying > 0 {
				continue
			}
			if a.err == nil {
				f.pace.answered(time.Since(start), n)
				if a.hedged {
					f.metrics.hedgesWon.Inc()
				}
			}
			return a.data, a.err
		case <-late.C:
			if flying == 2 {
				continue
			}
			if !f.mayHedge() {
				late.Reset(f.pace.slowAfter(n))
				continue
			}
			flying++
			u.Hedges.Add(1)
			f.metrics.hedges.Inc()
			begin(true)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// mayHedge takes a slot for a hedge, if there is one that nobody else needs.
func (f *fetcher) mayHedge() bool {
	if !f.slots.calm() || !f.slots.try() {
		return false
	}
	if !f.pace.hedge() {
		f.slots.release()
		return false
	}
	return true
}

// request makes one request. It holds a slot.
func (f *fetcher) request(ctx context.Context, u *Usage, p *part) (_ []byte, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	patience, start := f.patience(), time.Now()
	hang := time.AfterFunc(patience, func() { cancel(hung(patience)) })
	defer hang.Stop()
	defer func() { err = f.judge(ctx, err, start) }()

	n := p.end - p.off
	rc, err := f.bkt.GetRange(ctx, p.object.Name, p.off, n)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	data := f.buffers.get(n)
	read, first := 0, time.Duration(0)
	for read < len(data) && err == nil {
		var k int
		k, err = rc.Read(data[read:])
		if read += k; k > 0 {
			if first == 0 {
				first = time.Since(start)
			}
			hang.Reset(patience)
		}
	}
	u.Fetched.Add(int64(read))
	f.metrics.fetched.Add(float64(read))
	switch {
	case read == len(data):
		f.pace.arrived(first, time.Since(start), n)
		return data, nil
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		err = fmt.Errorf("%w: %d bytes at %d instead of %d", ErrShort, read, p.off, n)
	default:
		err = fmt.Errorf("%w after %d bytes: %w", errBroken, read, err)
	}
	f.buffers.put(data)
	return nil, err
}
