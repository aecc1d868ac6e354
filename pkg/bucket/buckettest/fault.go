package buckettest

import (
	"errors"
	"fmt"
	"sync"

	"github.com/thanos-io/objstore"
)

// ErrCrashed is what every operation of a process that died returns.
var ErrCrashed = errors.New("the process died")

// Moment says when a fault strikes its operation.
type Moment int

// The moments of a fault.
const (
	// Before means that the operation has no effect.
	Before Moment = iota
	// After means that it has its effect, and only the answer is lost.
	After
)

// Faulty is a bucket on which some operation goes wrong. It is safe for concurrent
// use.
type Faulty struct {
	intercept
	mu    sync.Mutex
	count int
	dead  bool
}

// FailAt returns b with its n-th operation of a kind, from 1 on, ending in err. The
// others go well.
func FailAt(b objstore.Bucket, k Kind, n int, when Moment, err error) *Faulty {
	return newFaulty(b, func(op Op) bool { return op.Kind == k }, n, when, func(*Faulty) error { return err })
}

// CrashAt returns b as a process sees it that dies at its n-th write, from 1 on:
// that and all later operations end in ErrCrashed. What it did so far stays in b,
// where its successor finds it.
func CrashAt(b objstore.Bucket, n int, when Moment) *Faulty {
	return newFaulty(b, Op.Writes, n, when, func(f *Faulty) error {
		f.dead = true
		return ErrCrashed
	})
}

// Crashed reports whether the process died: if not, it made fewer writes.
func (f *Faulty) Crashed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead
}

func newFaulty(b objstore.Bucket, counts func(Op) bool, n int, when Moment, strike func(*Faulty) error) *Faulty {
	f := &Faulty{}
	f.intercept = intercept{Bucket: b, around: func(op Op, do func() error) error {
		err := f.fault(op, counts, n, strike)
		switch {
		case err == nil:
			return do()
		case when == After && !errors.Is(err, errAfterDeath):
			if doErr := do(); doErr != nil {
				return doErr
			}
		}
		return fmt.Errorf("%s: %w", op, err)
	}}
	return f
}

// errAfterDeath tells the operations after a crash from the one that it struck.
var errAfterDeath = fmt.Errorf("before this: %w", ErrCrashed)

// fault returns the error of this operation, or nil if it may go well.
func (f *Faulty) fault(op Op, counts func(Op) bool, n int, strike func(*Faulty) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead {
		return errAfterDeath
	}
	if !counts(op) {
		return nil
	}
	f.count++
	if f.count != n {
		return nil
	}
	return strike(f)
}
