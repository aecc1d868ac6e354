package compact

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/varve-io/varve/pkg/blockwriter"
)

// class says what an error asks for.
type class string

// The classes of errors.
const (
	// transient errors go by themselves, or when somebody mends what is outside:
	// the job is tried again, after longer and longer pauses.
	transient class = "transient"
	// resource errors come again with the same job: it has to become smaller.
	resource class = "resource"
	// corrupt errors come again with the same block: it is set aside.
	corrupt class = "corrupt"
	// lost leases are no errors of a job; another process does it.
	lost class = "lost"
)

func classify(err error) class {
	switch {
	case errors.Is(err, errLeaseLost):
		return lost
	case errors.As(err, new(*corruptError)):
		return corrupt
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.ENOMEM), errors.Is(err, blockwriter.ErrTooLarge):
		return resource
	}
	return transient
}

// failure is what is remembered of a job that ended in an error.
type failure struct {
	err       error
	class     class
	times     int
	notBefore time.Time
}

// Pauses after a job's first and after many errors.
const (
	firstPause   = 5 * time.Second
	longestPause = time.Hour
)

// again counts one more error of a job.
func (f failure) again(err error) failure {
	pause, c := longestPause, classify(err)
	if f.times < 10 && c != resource {
		pause = min(firstPause<<f.times, longestPause)
	}
	return failure{err: err, class: c, times: f.times + 1, notBefore: time.Now().Add(pause)}
}

// leaseEnd puts the reason why a lease ended in place of the error that its end caused.
func leaseEnd(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, errLeaseLost) {
		return cause
	}
	return err
}
