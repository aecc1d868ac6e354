package bucketops

import "sync"

// meter counts the bytes that are written to it. It is safe for concurrent use.
type meter struct {
	progress Progress
	what     string
	total    int64

	mu   sync.Mutex
	done int64
}

func newMeter(p Progress, what string, total int64) *meter {
	return &meter{progress: p, what: what, total: total}
}

// Write counts.
func (m *meter) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done += int64(len(p))
	m.progress(m.what, m.done, m.total)
	return len(p), nil
}
