package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// stallWait is how long a read of an answer waits for its next byte. What comes
// before the first one, http_config.response_header_timeout bounds.
const stallWait = time.Minute

// stallError says that an answer began and did not go on.
type stallError struct{ wait time.Duration }

func (e *stallError) Error() string {
	return fmt.Sprintf("the answer stalled: not a byte came for %s", e.wait)
}

// patience gives up answers that stall: of objects, listings and all else. A slow
// answer goes on as long as it moves, and a reader may take its time between reads.
type patience struct {
	next http.RoundTripper
	wait time.Duration
}

func (p patience) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	answer, err := p.next.RoundTrip(r.WithContext(ctx))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	timer := time.AfterFunc(p.wait, func() { cancel(&stallError{p.wait}) })
	timer.Stop() // it runs during reads alone
	answer.Body = &watchedBody{
		ReadCloser: answer.Body, timer: timer, wait: p.wait, cancel: cancel,
		cause: func() error { return context.Cause(ctx) },
	}
	return answer, nil
}

// watchedBody ends its request when a read takes longer than wait.
type watchedBody struct {
	io.ReadCloser
	timer  *time.Timer
	wait   time.Duration
	cancel context.CancelCauseFunc
	cause  func() error // why the request has ended
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.wait)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	if err != nil && !errors.Is(err, io.EOF) {
		if stall, ok := errors.AsType[*stallError](b.cause()); ok {
			return n, stall
		}
	}
	return n, err //nolint:wrapcheck // who asked explains it
}

func (b *watchedBody) Close() error {
	err := b.ReadCloser.Close()
	b.timer.Stop()
	b.cancel(nil)
	return err
}
