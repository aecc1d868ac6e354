package query

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/util/annotations"

	"github.com/varve-io/varve/pkg/panics"
	"github.com/varve-io/varve/pkg/proxyapi"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
)

// stream reads the series of one endpoint as fast as they come, in a goroutine
// that ends with the endpoint's answer or with the context. It does not wait for
// the merge, but for a reader above that is slow: while it did, it would keep a slot of
// its store's that a stream the merge waits for may be queued behind. What it holds
// is drawn on the account of the query. It is a series.Set.
type stream struct {
	target  string
	partial storeapi.PartialResponse
	account *account
	fetch   *Fetch          // nil if the query does not want to know
	taken   []series.Series // from ahead, not yet handed out
	at      series.Series
	ended   bool // the consumer has seen the end

	mu     sync.Mutex
	news   sync.Cond // of ahead and done
	ahead  []series.Series
	unread atomic.Int64 // how many are ahead, for the account
	done   bool

	// Set before done, and read only after that.
	err      error
	warnings annotations.Annotations
}

// openStream asks one endpoint, which gives up by itself once the other side was
// silent for too long. An error that is one of the whole answer ends the other
// streams too, through fail.
func (f *Fanout) openStream(ctx context.Context, fail context.CancelCauseFunc, e Endpoint, req *storeapi.Request) *stream {
	s := &stream{target: describe(e.Address, e.Info), partial: req.Partial, account: accountOf(ctx)}
	s.news.L = &s.mu
	f.metrics.asked.Inc()
	go func() {
		defer s.end()
		s.finish(ctx, f, s.read(ctx, f, e, req))
		if s.err != nil {
			fail(s.err)
		}
	}()
	return s
}

// read collects the endpoint's series and returns the error that ended them.
func (s *stream) read(ctx context.Context, f *Fanout, e Endpoint, req *storeapi.Request) (err error) {
	defer panics.Recovered(&err)
	selector := selectorText(req.Matchers)
	ctx, end := s.follow(ctx, e.Address, selector)
	defer end()
	set := e.Peer.Series(storeapi.WithDraw(ctx, func(bytes int64) error {
		f.metrics.bytes.Add(float64(max(0, bytes)))
		if err := s.account.draw(bytes, selector); err != nil || bytes <= 0 {
			return err
		}
		s.account.pause(s)
		return nil
	}), req)
	for set.Next() {
		s.fetch.count(set.At())
		s.mu.Lock()
		s.ahead = append(s.ahead, *set.At())
		s.unread.Add(1)
		s.mu.Unlock()
		s.news.Signal()
	}
	s.warnings = set.Warnings()
	return set.Err()
}

// end tells the consumer that nothing more comes.
func (s *stream) end() {
	s.mu.Lock()
	s.done = true
	s.mu.Unlock()
	s.news.Signal()
}

// finish turns what ended the stream into an error or a warning.
func (s *stream) finish(ctx context.Context, f *Fanout, err error) {
	if err != nil && ctx.Err() == nil {
		f.metrics.silent.Inc()
	}
	s.warnings, s.err = settle(ctx, s.target, s.partial, err, s.warnings)
}

// settle decides what becomes of the error and the warnings of one endpoint. In
// Warn mode an error means missing data and becomes a warning, unless it says
// that the request itself is wrong, too large, or was given up, or that we are at fault.
func settle(ctx context.Context, target string, partial storeapi.PartialResponse, err error, warnings annotations.Annotations) (annotations.Annotations, error) {
	switch {
	case err != nil && ctx.Err() != nil:
		return warnings, context.Cause(ctx)
	case errors.Is(err, errBudget):
		return warnings, err
	case errors.Is(err, ErrInternal), errors.Is(err, storeapi.ErrLimit), errors.Is(err, storeapi.ErrBadRequest), errors.Is(err, proxyapi.ErrBadRequest):
		return warnings, fmt.Errorf("%s: %w", target, err)
	case err != nil && partial == storeapi.Abort:
		return warnings, fmt.Errorf("%w: data of %s are missing, and a partial answer is not wanted: %w", storeapi.ErrUnavailable, target, err)
	case err != nil:
		warnings = annotations.New().Merge(warnings)
		return warnings.Add(fmt.Errorf("the answer is incomplete: %s: %w", target, err)), nil
	case partial == storeapi.Abort:
		for _, warning := range warnings {
			if !errors.Is(warning, annotations.PromQLInfo) {
				return warnings, fmt.Errorf("%w: %s warns, and a partial answer is not wanted: %w", storeapi.ErrUnavailable, target, warning)
			}
		}
	}
	return warnings, nil
}

func (s *stream) Next() bool {
	if len(s.taken) == 0 {
		s.taken = s.take()
	}
	if len(s.taken) == 0 {
		s.at, s.ended = series.Series{}, true
		return false
	}
	s.at, s.taken[0] = s.taken[0], series.Series{} // held by the consumer alone from now on
	s.taken = s.taken[1:]
	s.account.passOn(&s.at)
	return true
}

// take waits for series and returns all that are there; none at the end.
func (s *stream) take() []series.Series {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ahead) == 0 && !s.done {
		defer s.account.want(s)()
	}
	for len(s.ahead) == 0 && !s.done {
		s.news.Wait()
	}
	all := s.ahead
	s.ahead = nil
	s.unread.Store(0)
	return all
}

// At returns a copy of its own: the merge holds on to several series of a stream.
func (s *stream) At() *series.Series {
	at := s.at
	return &at
}

func (s *stream) Err() error {
	if !s.ended {
		return nil
	}
	return s.err
}

func (s *stream) Warnings() annotations.Annotations {
	if !s.ended {
		return nil
	}
	return s.warnings
}
