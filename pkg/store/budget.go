package store

import (
	"context"
	"fmt"
	"math"
	"runtime/debug"
	"sync"

	"golang.org/x/sync/semaphore"
)

// budget is how many requests are answered at once, and the memory that they hold
// together. A part of both is kept for narrow requests, which need not wait for others to end.
type budget struct {
	request int64 // the most that one request holds
	size    int64 // of all memory
	free    *semaphore.Weighted
	turns   *semaphore.Weighted
	// kept are turns for narrow requests, each with the memory that one begins with.
	kept *semaphore.Weighted
	most struct{ turns, free, kept int64 }
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
	first, narrow := firstShare(o.RequestBytes), narrowShare(o.RequestBytes)
	kept := int64(o.MaxConcurrency / 4)
	size := o.MemoryBytes
	if size == 0 {
		size = unlimited*o.RequestBytes + kept*narrow
		if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
			size = (limit - besides - o.Cache.MemoryBytes - directoryBytes) / 2
		}
	}
	size = max(size, first)
	kept = min(kept, size/4/narrow, (size-first)/narrow)
	b := &budget{request: o.RequestBytes, size: size}
	b.most.turns, b.most.free, b.most.kept = int64(o.MaxConcurrency)-kept, size-kept*narrow, kept
	b.turns, b.free, b.kept = semaphore.NewWeighted(b.most.turns), semaphore.NewWeighted(b.most.free), semaphore.NewWeighted(kept)
	return b
}

// firstShare is what a Series request has from its beginning on.
func firstShare(requestBytes int64) int64 {
	return max(requestBytes/4, minRequestBytes)
}

// narrowShare is what a narrow request needs, and begins with if it has to wait for others.
func narrowShare(requestBytes int64) int64 {
	return max(requestBytes/16, minRequestBytes)
}

// enter waits for the turn of a request, and for its first share. One that would have to
// wait, and that narrow says of that it is, waits for others of its kind alone. Whatever a request
// takes beyond, it takes without waiting, so that requests never wait for each other's ends.
func (b *budget) enter(ctx context.Context, first int64, narrow func() bool) (*share, error) {
	first = min(max(first, minRequestBytes), b.request, b.most.free)
	if b.turns.TryAcquire(1) {
		if b.free.TryAcquire(first) {
			return b.share(b.turns, first), nil
		}
		b.turns.Release(1)
	}
	if b.most.kept > 0 && narrow() {
		if err := b.kept.Acquire(ctx, 1); err != nil {
			return nil, fmt.Errorf("wait for one of %d concurrent narrow requests to end: %w", b.most.kept, err)
		}
		s := b.share(b.kept, narrowShare(b.request))
		s.own = s.held
		return s, nil
	}
	if err := b.turns.Acquire(ctx, 1); err != nil {
		return nil, fmt.Errorf("wait for one of %d concurrent requests to end: %w", b.most.turns, err)
	}
	if err := b.free.Acquire(ctx, first); err != nil {
		b.turns.Release(1)
		return nil, fmt.Errorf("wait for memory that other requests hold: %w", err)
	}
	return b.share(b.turns, first), nil
}

func (b *budget) share(turn *semaphore.Weighted, held int64) *share {
	return &share{budget: b, turn: turn, most: b.request, held: held}
}

// share is the turn of one request, and its memory.
type share struct {
	budget *budget
	turn   *semaphore.Weighted
	most   int64

	mu   sync.Mutex
	held int64
	own  int64 // of what is held, that which came with the turn
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
		s.budget.free.Release(s.held - s.own)
		s.turn.Release(1)
	}
}
