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
	holds []*buffer
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
			b.release()
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
		n += int64(cap(b.bytes))
	}
	return n
}

// hold puts a buffer under the lease, which releases it; l may be nil.
func (l *Lease) hold(b *buffer) *Lease {
	if l == nil {
		l = &Lease{}
		l.refs.Store(1)
	}
	l.holds = append(l.holds, b)
	return l
}

// buffer is bytes of a pool that several hold: a lease, and the disk until it has them.
// A nil buffer is one that nobody gives back.
type buffer struct {
	refs  atomic.Int32
	pool  *buffers
	bytes []byte
}

func newBuffer(pool *buffers, b []byte) *buffer {
	held := &buffer{pool: pool, bytes: b}
	held.refs.Store(1)
	return held
}

func (b *buffer) retain() {
	if b != nil {
		b.refs.Add(1)
	}
}

func (b *buffer) release() {
	if b != nil && b.refs.Add(-1) == 0 {
		b.pool.put(b.bytes)
	}
}

const (
	// Buffers from minBuffer to maxBuffer bytes are used again, in sizes of four
	// steps to a doubling; smaller ones are not worth it, larger ones are rare.
	minBuffer = 32 << 10
	maxBuffer = 32 << 20
	steps     = 4
	// maxIdle is how many bytes of buffers wait for their next use whatever the garbage
	// collector does; more of them wait until it comes.
	maxIdle = 8 << 20
)

// buffers are those that wait for their next use.
type buffers struct {
	classes [64 * steps]sync.Pool

	mu   sync.Mutex
	idle [64 * steps][][]byte
	size int64 // of idle

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
	if b := p.idleOf(c); b != nil {
		return b[:n]
	}
	for k := c; k <= c+steps; k++ {
		if b, ok := p.classes[k].Get().(*[]byte); ok {
			return (*b)[:n]
		}
	}
	return make([]byte, size)[:n]
}

// idleOf takes an idle buffer of a class, or a longer one of at most twice its size: the
// memory is there, and what is used for the first time has to be found and cleared.
func (p *buffers) idleOf(c int) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k := c; k <= c+steps; k++ {
		if last := len(p.idle[k]) - 1; last >= 0 {
			b := p.idle[k][last]
			p.idle[k] = p.idle[k][:last]
			p.size -= int64(len(b))
			return b
		}
	}
	return nil
}

func (p *buffers) put(b []byte) {
	if b = b[:cap(b)]; p.spoil != nil {
		p.spoil(b)
	}
	if len(b) < minBuffer || len(b) > maxBuffer {
		return
	}
	c, size := class(len(b))
	if size != len(b) {
		return
	}
	p.mu.Lock()
	fits := p.size+int64(size) <= maxIdle
	if fits {
		p.idle[c] = append(p.idle[c], b)
		p.size += int64(size)
	}
	p.mu.Unlock()
	if !fits {
		p.classes[c].Put(&b)
	}
}
