package pagecache

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// Lease holds the buffers that ranges were read into. Releasing it lets them be
// used again; who forgets to only makes work for the garbage collector. A nil
// Lease holds nothing and may be used like any other.
type Lease struct {
	refs  atomic.Int32
	pool  *buffers
	holds [][]byte
}

// Retain makes one more Release necessary, for example one for each message that
// the bytes travel in. It may be called while the lease is held.
func (l *Lease) Retain() {
	if l != nil {
		l.refs.Add(1)
	}
}

// Release gives up the bytes of the ranges. After the last one they are overwritten.
func (l *Lease) Release() {
	if l == nil {
		return
	}
	switch n := l.refs.Add(-1); {
	case n < 0:
		panic("pagecache: a lease was released more often than retained")
	case n == 0:
		for _, b := range l.holds {
			l.pool.put(b)
		}
		l.holds = nil
	}
}

// Size is the memory that the lease holds, in bytes.
func (l *Lease) Size() (n int64) {
	if l == nil {
		return 0
	}
	for _, b := range l.holds {
		n += int64(cap(b))
	}
	return n
}

// hold puts a buffer under the lease; l may be nil.
func (l *Lease) hold(pool *buffers, b []byte) *Lease {
	if l == nil {
		l = &Lease{pool: pool}
		l.refs.Store(1)
	}
	l.holds = append(l.holds, b)
	return l
}

const (
	// Buffers from minBuffer to maxBuffer bytes are used again, in sizes of four
	// steps to a doubling; smaller ones are not worth it, larger ones are rare.
	minBuffer = 32 << 10
	maxBuffer = 32 << 20
	steps     = 4
)

// buffers are those that wait for their next use.
type buffers struct {
	classes [64 * steps]sync.Pool
	// spoil is called with what comes back; tests find with it who kept using it.
	spoil func([]byte)
}

// class returns the smallest class that has n bytes, and its size.
func class(n int) (c, size int) {
	exp := bits.Len(uint(n-1)) - 1 // 1<<exp < n <= 2<<exp, for n > 1
	step := (1 << exp) / steps
	k := (n - 1<<exp + step - 1) / step
	return exp*steps + k - 1, 1<<exp + k*step
}

func (p *buffers) get(n int64) []byte {
	if n < minBuffer || n > maxBuffer {
		return make([]byte, n)
	}
	c, size := class(int(n))
	if b, ok := p.classes[c].Get().(*[]byte); ok {
		return (*b)[:n]
	}
	return make([]byte, size)[:n]
}

func (p *buffers) put(b []byte) {
	if b = b[:cap(b)]; p.spoil != nil {
		p.spoil(b)
	}
	if len(b) < minBuffer || len(b) > maxBuffer {
		return
	}
	if c, size := class(len(b)); size == len(b) {
		p.classes[c].Put(&b)
	}
}
