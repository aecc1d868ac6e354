package pagecache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// ErrShort marks an object that is shorter than its size promises.
var ErrShort = errors.New("object is shorter than listed")

// Object is an immutable object of the bucket.
type Object struct {
	Name string
	// Size is in bytes.
	Size int64
	// Version tells objects apart that had this name one after the other, such as
	// an ETag does. It may be empty where names are not used again. The bucket is asked
	// for the bytes of this version.
	Version string
}

// bucketRanges is the part of a bucket that the cache needs.
type bucketRanges interface {
	GetRange(ctx context.Context, o Object, off, length int64) (io.ReadCloser, error)
}

// Cache reads objects by range. It is safe for concurrent use.
type Cache struct {
	opts    Options
	metrics *metrics
	memory  *memory
	disk    *disk // or nil
	fetcher *fetcher
	buffers buffers
	readers atomic.Uint64 // requests that have a number
}

// New returns a cache over bkt. Close it when its last read has returned.
func New(bkt bucketRanges, o Options, log *slog.Logger, reg prometheus.Registerer) (*Cache, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	c := &Cache{opts: o, metrics: newMetrics(reg)}
	c.memory = newMemory(o.MemoryBytes, c.metrics)
	c.fetcher = newFetcher(bkt, o, &c.buffers, c.metrics)
	if o.Dir != "" && o.DiskBytes > 0 {
		var err error
		if c.disk, err = openDisk(o, &c.buffers, log, c.metrics); err != nil {
			log.Warn("pages are kept in memory only", "dir", o.Dir, "err", err)
			c.metrics.diskErrors.Inc()
		} else {
			c.metrics.diskUp.Set(1)
			c.memory.tell(c.disk.use)
		}
	}
	return c, nil
}

// Close waits for what is still under way and finishes the files on disk. It may be
// called again.
func (c *Cache) Close() error {
	c.fetcher.wait()
	if c.disk == nil {
		return nil
	}
	return c.disk.close()
}

// Read fills p with the bytes of an object from off on.
func (c *Cache) Read(ctx context.Context, o Object, p []byte, off int64) error {
	n := int64(len(p))
	if err := checkRange(o, off, n); err != nil {
		return err
	}
	if k := (pageKey{o, off / pageSize}); n > 0 && (off+n-1)/pageSize == k.n { // the common case
		if b := c.memory.get(k, off, off+n); b != nil {
			copy(p, b)
			c.metrics.hit(usageOf(ctx), n)
			return nil
		}
	}
	ranges := []Range{{Object: o, Off: off, Len: n}}
	lease, err := c.ReadRanges(ctx, ranges)
	if err != nil {
		return err
	}
	copy(p, ranges[0].Bytes)
	lease.Release()
	return nil
}

// ReadOver is the gap between two ranges up to which one request brings both.
func (c *Cache) ReadOver() int64 {
	always, _ := c.fetcher.pace.gaps()
	return always
}

// Forget drops what is kept of the n bytes at off, because they turned out to be wrong.
func (c *Cache) Forget(o Object, off, n int64) {
	var keys []string
	for i := off / pageSize; i*pageSize < off+n; i++ {
		k := pageKey{o, i}
		c.memory.shard(k).forget(k)
		if c.disk != nil {
			c.disk.forget(k)
		}
		if c.opts.Remote != nil {
			keys = append(keys, k.remoteKey())
		}
	}
	if len(keys) > 0 {
		c.opts.Remote.Delete(context.Background(), keys...)
	}
}

// checkRange refuses what lies outside an object.
func checkRange(o Object, off, n int64) error {
	if off < 0 || n < 0 || off > math.MaxInt64-n || off+n > o.Size {
		return fmt.Errorf("read %d bytes at %d of %s: %w (%d bytes)", n, off, o.Name, ErrShort, o.Size)
	}
	return nil
}
