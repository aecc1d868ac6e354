package pagecache

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// pageSize is the unit of caching. A small need must stay cheap, and a page must
// be worth its bookkeeping of about 200 bytes.
const pageSize = 16 << 10

// ErrShort marks an object that is shorter than its size promises.
var ErrShort = errors.New("object is shorter than listed")

// Object is an immutable object of the bucket and its size in bytes.
type Object struct {
	Name string
	Size int64
}

// ranges is the part of a bucket that the cache needs.
type ranges interface {
	GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error)
}

// Cache reads objects through memory. It is safe for concurrent use.
type Cache struct {
	bkt     ranges
	opts    Options
	metrics *metrics
	slots   *semaphore.Weighted // for requests to the bucket

	mu     sync.Mutex
	pages  map[key]*list.Element // of *page
	recent *list.List            // of *page, the one used last in front
	bytes  int64
	coming map[key]*flight
}

// key names a page: the n-th of an object.
type key struct {
	object string
	n      int64
}

type page struct {
	key  key
	data []byte
}

// flight is a read of neighbouring pages that is under way.
type flight struct {
	first int64 // number of the first page
	count int64
	done  chan struct{}
	data  []byte // of all the pages; valid after done
	err   error
}

// New returns an empty cache over bkt.
func New(bkt ranges, o Options, reg prometheus.Registerer) (*Cache, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return &Cache{
		bkt:     bkt,
		opts:    o,
		metrics: newMetrics(reg),
		slots:   semaphore.NewWeighted(int64(o.Concurrency)),
		pages:   map[key]*list.Element{},
		recent:  list.New(),
		coming:  map[key]*flight{},
	}, nil
}

// Read fills p with the bytes of an object from off on.
func (c *Cache) Read(ctx context.Context, o Object, p []byte, off int64) error {
	if off < 0 || off+int64(len(p)) > o.Size {
		return fmt.Errorf("read %d bytes at %d of %s: %w (%d bytes)", len(p), off, o.Name, ErrShort, o.Size)
	}
	for len(p) > 0 {
		own, others := c.plan(o, p, off)
		err := c.fetch(ctx, o, own)
		again := false
		for _, f := range append(own, others...) {
			if err != nil {
				break
			}
			select {
			case <-f.done:
			case <-ctx.Done():
				err = ctx.Err()
				continue
			}
			switch {
			case f.err == nil:
				copyOverlap(p, off, f.data, f.first*pageSize)
			case errors.Is(f.err, context.Canceled) || errors.Is(f.err, context.DeadlineExceeded):
				again = true // somebody else's patience ended, not ours
			default:
				err = f.err
			}
		}
		if err != nil {
			return fmt.Errorf("read %d bytes at %d of %s: %w", len(p), off, o.Name, err)
		}
		if !again {
			return nil
		}
	}
	return nil
}

// Forget drops the pages that hold the n bytes at off, because they turned out
// to be wrong.
func (c *Cache) Forget(o Object, off, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := off / pageSize; i*pageSize < off+n; i++ {
		if e, ok := c.pages[key{o.Name, i}]; ok {
			c.drop(e)
		}
	}
}

// plan copies the pages in memory to p and sorts the others into flights to be
// made by the caller and flights that somebody else makes.
func (c *Cache) plan(o Object, p []byte, off int64) (own, others []*flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := off / pageSize; i*pageSize < off+int64(len(p)); i++ {
		k := key{o.Name, i}
		if e, ok := c.pages[k]; ok {
			c.recent.MoveToFront(e)
			copyOverlap(p, off, e.Value.(*page).data, i*pageSize)
			c.metrics.hits.Inc()
			continue
		}
		if f, ok := c.coming[k]; ok {
			if len(others) == 0 || others[len(others)-1] != f {
				others = append(others, f)
			}
			c.metrics.hits.Inc()
			continue
		}
		if len(own) == 0 || own[len(own)-1].first+own[len(own)-1].count != i {
			own = append(own, &flight{first: i, done: make(chan struct{})})
		}
		f := own[len(own)-1]
		f.count++
		c.coming[k] = f
		c.metrics.misses.Inc()
	}
	return own, others
}

// fetch makes the flights, side by side, and waits for them.
func (c *Cache) fetch(ctx context.Context, o Object, flights []*flight) error {
	if len(flights) == 1 { // the common case
		return c.fly(ctx, o, flights[0])
	}
	var g errgroup.Group
	g.SetLimit(c.opts.Concurrency)
	for _, f := range flights {
		g.Go(func() error { return c.fly(ctx, o, f) })
	}
	return g.Wait()
}

// fly reads the pages of a flight and keeps them.
func (c *Cache) fly(ctx context.Context, o Object, f *flight) error {
	off := f.first * pageSize
	data, err := c.get(ctx, o, off, min(f.count*pageSize, o.Size-off))

	c.mu.Lock()
	defer c.mu.Unlock()
	f.data, f.err = data, err
	for i := range f.count {
		k := key{o.Name, f.first + i}
		delete(c.coming, k)
		if err == nil {
			c.keep(k, data[i*pageSize:min((i+1)*pageSize, int64(len(data)))])
		}
	}
	close(f.done)
	return err
}

// get reads from the bucket.
func (c *Cache) get(ctx context.Context, o Object, off, n int64) (data []byte, err error) {
	if err := c.slots.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer c.slots.Release(1)
	c.metrics.requests.Inc()
	rc, err := c.bkt.GetRange(ctx, o.Name, off, n)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	data = make([]byte, n)
	read, err := io.ReadFull(rc, data)
	c.metrics.fetched.Add(float64(read))
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("%w: %d bytes at %d instead of %d", ErrShort, read, off, n)
	case err != nil:
		return nil, fmt.Errorf("after %d bytes: %w", read, err)
	}
	return data, nil
}

// keep adds a copy of a page and makes room for it. The caller holds mu.
func (c *Cache) keep(k key, data []byte) {
	if _, ok := c.pages[k]; ok || int64(len(data)) > c.opts.MaxBytes {
		return
	}
	c.pages[k] = c.recent.PushFront(&page{key: k, data: append([]byte(nil), data...)})
	c.bytes += int64(len(data))
	for c.bytes > c.opts.MaxBytes {
		c.drop(c.recent.Back())
	}
	c.metrics.bytes.Set(float64(c.bytes))
}

// drop removes a page. The caller holds mu.
func (c *Cache) drop(e *list.Element) {
	p := c.recent.Remove(e).(*page)
	delete(c.pages, p.key)
	c.bytes -= int64(len(p.data))
	c.metrics.bytes.Set(float64(c.bytes))
}

// copyOverlap copies to p, which begins at off, what src, which begins at at, has of it.
func copyOverlap(p []byte, off int64, src []byte, at int64) {
	if at >= off {
		copy(p[at-off:], src)
		return
	}
	copy(p, src[off-at:])
}
