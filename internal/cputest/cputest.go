// Package cputest measures CPU time, which other work on the machine disturbs less than the clock.
//
// It stands beside the floors; only tests import it.
package cputest

import (
	"syscall"
	"testing"
	"time"
)

// Used is the CPU time of the process until now, collecting garbage included. Kernels count that of several threads by
// ticks of some milliseconds, so it is no measure of anything shorter than a hundred.
func Used(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
