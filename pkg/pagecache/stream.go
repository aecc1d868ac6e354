package pagecache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Stream reads the n bytes at off one after the other, past memory and disk: for
// what is read once. It is one request, and another one from where the first broke off
// or hung. The stream ends with ctx, and must be closed.
func (c *Cache) Stream(ctx context.Context, o Object, off, n int64) (io.ReadCloser, error) {
	if err := checkRange(o, off, n); err != nil {
		return nil, err
	}
	u := usageOf(ctx)
	if u == nil {
		u = new(Usage)
	}
	u.Ranges.Add(1)
	u.Needed.Add(n)
	c.metrics.needed.Add(float64(n))
	return &stream{f: c.fetcher, ctx: ctx, usage: u, object: o, at: off, end: off + n}, nil
}

// stream is what is left of a range that is read in order.
type stream struct {
	f       *fetcher
	ctx     context.Context //nolint:containedctx // a reader has no parameter for the context that it lives by
	usage   *Usage
	object  Object
	at, end int64

	body   io.ReadCloser // nil while there is no request
	cancel context.CancelCauseFunc
	cause  func() error
	tries  int // in a row that brought nothing
}

// Read brings some more bytes.
func (s *stream) Read(p []byte) (int, error) {
	for s.at < s.end {
		n, err := s.more(p[:min(int64(len(p)), s.end-s.at)])
		if n > 0 || err == nil {
			s.at += int64(n)
			s.usage.Fetched.Add(int64(n))
			s.f.metrics.fetched.Add(float64(n))
			s.tries = 0
			return n, nil // an error comes again
		}
		s.hangUp()
		if s.tries++; s.ctx.Err() != nil || s.tries == s.f.opts.Attempts || !passes(err) {
			return 0, fmt.Errorf("read %s from %d to %d: %w", s.object.Name, s.at, s.end, err)
		}
		s.usage.Retries.Add(1)
		s.f.metrics.retries.Inc()
		if err := s.f.rest(s.ctx, s.tries); err != nil {
			return 0, err
		}
	}
	return 0, io.EOF
}

// more reads from the request under way, or from a new one.
func (s *stream) more(p []byte) (n int, err error) {
	if s.body == nil {
		if err := s.open(); err != nil {
			return 0, err
		}
	}
	if len(p) == 0 {
		return 0, nil
	}
	patience := s.f.patience()
	hang := time.AfterFunc(patience, func() { s.cancel(hung(patience)) })
	defer hang.Stop()
	n, err = s.body.Read(p)
	switch {
	case n > 0 || err == nil:
		return n, nil
	case errors.Is(s.cause(), errHangs):
		return 0, s.cause()
	case errors.Is(err, io.EOF):
		return 0, fmt.Errorf("%w: it ends at %d", ErrShort, s.at)
	default:
		return 0, fmt.Errorf("%w: %w", errBroken, err)
	}
}

// open makes a request for what is left. It has a slot until the answer begins: who
// reads a stream may read other things meanwhile.
func (s *stream) open() error {
	if err := s.f.slots.acquire(s.ctx); err != nil {
		return err
	}
	defer s.f.slots.release()
	s.usage.Requests.Add(1)
	s.f.metrics.requests.Inc()
	ctx, cancel := context.WithCancelCause(s.ctx)
	s.cancel, s.cause = cancel, func() error { return context.Cause(ctx) }
	patience, start := s.f.patience(), time.Now()
	hang := time.AfterFunc(patience, func() { cancel(hung(patience)) })
	defer hang.Stop()
	body, err := s.f.bkt.GetRange(ctx, s.object.Name, s.at, s.end-s.at)
	err = s.f.judge(ctx, err, start)
	if err != nil {
		if body != nil {
			body.Close()
		}
		cancel(nil)
		return err
	}
	s.body = body
	return nil
}

// hangUp ends the request under way.
func (s *stream) hangUp() {
	if s.body != nil {
		s.cancel(nil)
		s.body.Close() // of a request that was given up
		s.body = nil
	}
}

// Close ends the stream.
func (s *stream) Close() error {
	s.hangUp()
	s.at = s.end
	return nil
}
