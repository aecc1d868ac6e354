package buckettest

import (
	"sync"

	"github.com/thanos-io/objstore"
)

// Log is a bucket that writes down what is done to it. The order is that in which
// operations ended. It is safe for concurrent use.
type Log struct {
	intercept
	mu   sync.Mutex
	done []entry
}

type entry struct {
	op  Op
	err error
}

// NewLog returns b with a log.
func NewLog(b objstore.Bucket) *Log {
	l := &Log{}
	l.intercept = intercept{Bucket: b, around: func(op Op, do func() error) error {
		err := do()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.done = append(l.done, entry{op, err})
		return err
	}}
	return l
}

// Writes returns the operations that changed the bucket, such as "upload x/index".
func (l *Log) Writes() []string {
	return l.lines(func(e entry) bool { return e.op.Writes() && e.err == nil })
}

// All returns every operation; one that ended in an error says so at its end.
func (l *Log) All() []string { return l.lines(func(entry) bool { return true }) }

// Count returns how many operations of a kind were begun.
func (l *Log) Count(k Kind) int { return len(l.lines(func(e entry) bool { return e.op.Kind == k })) }

// Reset forgets what was done.
func (l *Log) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done = nil
}

func (l *Log) lines(wanted func(entry) bool) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []string
	for _, e := range l.done {
		if !wanted(e) {
			continue
		}
		line := e.op.String()
		if e.err != nil {
			line += ": " + e.err.Error()
		}
		lines = append(lines, line)
	}
	return lines
}
