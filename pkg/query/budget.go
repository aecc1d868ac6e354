package query

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
)

// Budget limits the bytes of series that queries hold: each on its own, and all
// of the process together. It is safe for concurrent use.
type Budget struct {
	perQuery, perProcess int64
	patience             time.Duration // see account.pause
	used                 atomic.Int64
}

// NewBudget returns a budget in bytes.
func NewBudget(perQuery, perProcess int64) *Budget {
	return &Budget{perQuery: perQuery, perProcess: perProcess, patience: 5 * time.Second}
}

// Open begins the account of one query. It travels in the context; close gives
// everything back, once the query's series are not used any more.
func (b *Budget) Open(ctx context.Context) (_ context.Context, closeAccount func()) {
	a := &account{budget: b}
	return context.WithValue(ctx, accountKey{}, a), a.close
}

// OpenPassing is Open for an answer that is passed on as it is read: only what is
// read ahead of that counts, and from half the limit on streams wait for the reader.
func (b *Budget) OpenPassing(ctx context.Context) (_ context.Context, closeAccount func()) {
	a := &account{budget: b, passing: true}
	a.change.L = &a.mu
	return context.WithValue(ctx, accountKey{}, a), a.close
}

// Used is the number of bytes held now.
func (b *Budget) Used() int64 { return b.used.Load() }

type accountKey struct{}

type account struct {
	budget  *Budget
	passing bool // see Budget.OpenPassing

	mu     sync.Mutex
	used   int64
	closed bool

	// Of a passing account:
	change  sync.Cond // of what follows, used and closed
	wanted  *stream   // the reader waits for it
	starved bool      // and has done so for long
	paused  int       // streams wait for the reader
}

// accountOf returns the account of the query that ctx belongs to, or none.
func accountOf(ctx context.Context) *account {
	a, _ := ctx.Value(accountKey{}).(*account)
	return a
}

// draw takes n bytes for what selector returned, or gives them back where n is
// negative. The error names the limit, the amount and what would make the query
// smaller. A closed account gives nothing: a stream may end later than its query.
func (a *account) draw(n int64, selector string) error {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return errClosed
	}
	n = max(n, -a.used)
	a.used += n
	mine, all := a.used, a.budget.used.Add(n)
	if n <= 0 {
		return nil
	}
	var limit string
	switch {
	case mine > a.budget.perQuery:
		limit = fmt.Sprintf("the limit of one query, --query.max-bytes=%d: this query holds %d bytes", a.budget.perQuery, mine)
	case all > a.budget.perProcess:
		limit = fmt.Sprintf("the limit of all queries together, --query.max-total-bytes=%d: they hold %d bytes, %d of them for this query", a.budget.perProcess, all, mine)
	default:
		return nil
	}
	return fmt.Errorf("%w: %s, the last of them for %s; add matchers to the selector, shorten the time range, or allow coarser data with max_source_resolution",
		errBudget, limit, selector)
}

// pause keeps a stream waiting while much is read ahead of a reader that is slow.
// The stream that the reader waits for does not wait, and none does once the reader
// has waited for long: a stream at rest keeps a slot of its store's, for which the other
// one may be queued.
func (a *account) pause(s *stream) {
	if a == nil || !a.passing {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.paused++
	for a.used > a.budget.perQuery/2 && (a.wanted != s || s.unread.Load() > 0) && !a.starved && !a.closed {
		a.change.Wait()
	}
	a.paused--
}

// want says that the reader waits for a stream, until the function it returns is called.
func (a *account) want(s *stream) (satisfied func()) {
	if a == nil || !a.passing {
		return func() {}
	}
	set := func(wanted *stream) {
		a.mu.Lock()
		a.wanted, a.starved = wanted, false
		a.mu.Unlock()
		a.change.Broadcast()
	}
	set(s)
	late := time.AfterFunc(a.budget.patience, func() {
		a.mu.Lock()
		a.starved = a.wanted == s
		a.mu.Unlock()
		a.change.Broadcast()
	})
	return func() {
		late.Stop()
		set(nil)
	}
}

// passOn gives back what a series took that the reader of a passing account has.
func (a *account) passOn(s *series.Series) {
	if a != nil && a.passing {
		_ = a.draw(-storeapi.Weigh(s), "") // errs only once closed, when all is given back
		a.change.Broadcast()
	}
}

// close gives everything back.
func (a *account) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	a.budget.used.Add(-a.used)
	a.used = 0
	a.change.Broadcast()
}

// errClosed ends what is still read for a query that has ended.
var errClosed = fmt.Errorf("the query has ended: %w", context.Canceled)

// errBudget marks the end of a query by its budget.
var errBudget = fmt.Errorf("query needs more memory than it may have: %w", storeapi.ErrLimit)

// IsLimit reports whether err says that a query was ended by a limit.
func IsLimit(err error) bool { return errors.Is(err, storeapi.ErrLimit) }

// IsUnavailable reports whether err says that data are missing and the query
// did not want a partial answer.
func IsUnavailable(err error) bool { return errors.Is(err, storeapi.ErrUnavailable) }
