package storeapi

import (
	"errors"
	"fmt"
	"path"
	"runtime"
	"strings"
)

// ErrInternal marks a request that ended in a panic.
var ErrInternal = errors.New("internal error")

// Recovered makes a panic the error of the function that defers it. Every goroutine
// that works for a request needs it: what one answer holds must not end the others.
func Recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: panic in %s: %v; other requests are not affected, please report this one", ErrInternal, panicPlace(), p)
	}
}

// panicPlace is the function that panicked: on the stack, the first one below the
// runtime's that lie below the panic.
func panicPlace() string {
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
