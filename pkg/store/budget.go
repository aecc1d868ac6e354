package store

import (
	"context"
	"math"
	"runtime/debug"
	"sync"

	"golang.org/x/sync/semaphore"
)

// budget is the memory that all Series requests may hold together.
type budget struct {
	size int64
	free *semaphore.Weighted
}

// newBudget returns the budget that the options set or, if they do not, half of what
// the process' memory limit leaves beside the caches: the rest is for what is not
// reckoned with, and for garbage.
func newBudget(o Options) *budget {
	const (
		besides = 64 << 20 // the program itself
		// unlimited is how many requests have all their memory at once where there is no
		// limit; four times as many go on with the least.
		unlimited = 2
	)
	size := o.MemoryBytes
	if size == 0 {
		size = unlimited * o.RequestBytes
		if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
			size = (limit - besides - o.Cache.MemoryBytes - directoryBytes) / 2
		}
	}
	size = max(size, firstShare(o.RequestBytes))
	return &budget{size: size, free: semaphore.NewWeighted(size)}
}

// firstShare is what a request has from its beginning on.
func firstShare(requestBytes int64) int64 {
	return max(requestBytes/4, minRequestBytes)
}

// enter waits for the first share of a request. Whatever a request takes beyond, it
// takes without waiting, so that requests never wait for each other's ends.
func (b *budget) enter(ctx context.Context, most int64) (*share, error) {
	first := firstShare(most)
	if err := b.free.Acquire(ctx, first); err != nil {
		return nil, err
	}
	return &share{budget: b, most: most, held: first}, nil
}

// share is the memory of one request.
type share struct {
	budget *budget
	most   int64

	mu   sync.Mutex
	held int64
	left bool
}

// size is the memory that the request may use.
func (s *share) size() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

// grow makes the share as large as wanted, if it may be and if there is so much.
func (s *share) grow(size int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	more := min(size, s.most) - s.held
	if s.left || more > 0 && !s.budget.free.TryAcquire(more) {
		return false
	}
	s.held += max(more, 0)
	return size <= s.most
}

// leave gives the share back.
func (s *share) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.left {
		s.left = true
		s.budget.free.Release(s.held)
	}
}
