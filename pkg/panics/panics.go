// Package panics turns panics into errors, so that what one block holds, or one request asks,
// ends that job or request alone and not the process with all others. It lies below the floors
// and imports nothing of ours.
//
// Data from outside must not panic, and fuzzing is there to see to that; this is for what it missed.
// A panic leaves what it interrupted as it was: nothing that is caught here may hold a lock that is
// not released by a deferred call.
package panics

import (
	"errors"
	"fmt"
	"path"
	"runtime"
	"strings"
)

// Err marks what ended in a panic.
var Err = errors.New("internal error")

// Recovered makes a panic the error of the function that defers it. Every goroutine that works
// for a request or a job needs it.
func Recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: panic in %s: %v; nothing else is affected, please report this", Err, place(), p)
	}
}

// Caught calls fn and makes a panic its error.
func Caught(fn func() error) (err error) {
	defer Recovered(&err)
	return fn()
}

// place is the function that panicked: on the stack, the first one below the
// runtime's that lie below the panic.
func place() string {
	var stack [32]uintptr
	frames := runtime.CallersFrames(stack[:runtime.Callers(2, stack[:])])
	panicking := false
	for more := true; more; {
		var f runtime.Frame
		f, more = frames.Next()
		if panicking && !strings.HasPrefix(f.Function, "runtime.") {
			return fmt.Sprintf("%s (%s:%d)", f.Function, path.Base(f.File), f.Line)
		}
		panicking = panicking || f.Function == "runtime.gopanic"
	}
	return "a place unknown"
}
