package pagecache

import (
	"context"
	"sync/atomic"
)

// Usage is what the reads of one request took. Reads under a context of
// WithUsage add to it.
type Usage struct {
	// Ranges were wanted, Needed bytes long together.
	Ranges, Needed atomic.Int64
	// Of those bytes, FromMemory, FromDisk and FromRemote were there, and Shared were on
	// their way for somebody else. The others came by Requests of one's own, repeated and
	// hedged ones included, which brought Fetched bytes.
	FromMemory, FromDisk, FromRemote, Shared atomic.Int64
	Requests, Fetched                        atomic.Int64
	// Retries and Hedges are among the Requests.
	Retries, Hedges atomic.Int64
	// Waited is how long reads took that memory alone could not answer, in
	// nanoseconds; reads side by side count each for itself.
	Waited atomic.Int64

	reader atomic.Uint64 // number of the request, once it has one
}

// number returns which of the requests this is, by a counter of all.
func (u *Usage) number(all *atomic.Uint64) uint64 {
	if u.reader.Load() == 0 {
		u.reader.CompareAndSwap(0, all.Add(1))
	}
	return u.reader.Load()
}

type usageKey struct{}

// WithUsage makes reads under the context add to u.
func WithUsage(ctx context.Context, u *Usage) context.Context {
	return context.WithValue(ctx, usageKey{}, u)
}

// usageOf returns where reads under the context are counted, or nil.
func usageOf(ctx context.Context) *Usage {
	u, _ := ctx.Value(usageKey{}).(*Usage)
	return u
}
