package pagecache

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// slots bound the requests in flight. The bound falls by a third when the bucket
// says that it is asked too much, and grows by one as often as that many requests
// went well. Who came first is served first.
//
// A bucket that refuses one request in twenty, however few there are, is not asked too much: its
// refusals are repeated, and count from one in eight on.
type slots struct {
	most    int
	metrics *metrics

	mu      sync.Mutex
	limit   float64
	used    int
	waiting *list.List // of chan struct{}, closed when the slot is given
	lowered time.Time
	refused float64 // the share of refusals among the last answers
}

const (
	// answers is over about how many the share of refusals is taken, and tolerated how many of them say nothing.
	answers   = 64
	tolerated = 1. / 8
)

func newSlots(most int, m *metrics) *slots {
	m.concurrency.Set(float64(most))
	return &slots{most: most, limit: float64(most), waiting: list.New(), metrics: m}
}

func (s *slots) acquire(ctx context.Context) error {
	s.mu.Lock()
	if s.waiting.Len() == 0 && s.used < int(s.limit) {
		s.used++
		s.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	place := s.waiting.PushBack(turn)
	s.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-turn: // it came at the same time
		s.used--
		s.serve()
	default:
		s.waiting.Remove(place)
	}
	return ctx.Err()
}

// try takes a slot if nobody has to wait for it.
func (s *slots) try() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting.Len() > 0 || s.used >= int(s.limit) {
		return false
	}
	s.used++
	return true
}

func (s *slots) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used--
	s.serve()
}

// serve gives free slots to who waits. The caller holds mu.
func (s *slots) serve() {
	for s.waiting.Len() > 0 && s.used < int(s.limit) {
		close(s.waiting.Remove(s.waiting.Front()).(chan struct{}))
		s.used++
	}
}

// throttled lowers the bound, once for all requests that were in flight together.
func (s *slots) throttled(started, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused += (1 - s.refused) / answers
	if s.refused < tolerated || started.Before(s.lowered) {
		return
	}
	s.lowered = now
	s.limit = max(1, s.limit*2/3)
	s.metrics.concurrency.Set(s.limit)
}

func (s *slots) succeeded() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused -= s.refused / answers
	if s.limit == float64(s.most) {
		return
	}
	s.limit = min(float64(s.most), s.limit+1/s.limit)
	s.metrics.concurrency.Set(s.limit)
	s.serve()
}

// free is how many more requests would begin at once, at least 1.
func (s *slots) free() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(1, int(s.limit)-s.used-s.waiting.Len())
}

// calm reports that the bucket did not complain lately.
func (s *slots) calm() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return 2*s.limit >= float64(s.most)
}
