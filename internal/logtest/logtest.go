// Package logtest reads what a program under test logs, and waits for what it does.
//
// It stands beside the floors; only tests import it.
package logtest

import (
	"regexp"
	"sync"
	"testing"
	"time"
)

// patience is how long a test waits for a program on a busy machine.
const patience = time.Minute

// Buffer is a log that may be read while it is written. Its zero value is empty.
type Buffer struct {
	mu   sync.Mutex
	text []byte
}

// Write implements io.Writer.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(b.text, p...)
	return len(p), nil
}

// String is what was written until now.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.text)
}

// Address waits for the log line of a server and returns where it listens.
func (b *Buffer) Address(t testing.TB, message string) string {
	t.Helper()
	line := regexp.MustCompile(`msg="` + message + `" address=(\S+)`)
	var found []string
	Eventually(t, "the log line "+message, func() bool {
		found = line.FindStringSubmatch(b.String())
		return found != nil
	})
	return found[1]
}

// Eventually waits until ok says so, and fails the test when that takes a minute.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s", patience, what)
		}
	}
}
