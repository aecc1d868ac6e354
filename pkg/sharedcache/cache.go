package sharedcache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// servers are memcached or Redis.
type servers interface {
	// get adds what is there to found. It may add some and return an error.
	get(ctx context.Context, keys []string, found map[string][]byte) error
	set(ctx context.Context, key string, value []byte) error
	delete(ctx context.Context, keys []string) error
	close() error
}

// Cache keeps values in servers. It is safe for concurrent use.
type Cache struct {
	servers servers
	name    string // of the kind of servers
	limits  Limits
	most    int // bytes of a value
	log     *slog.Logger
	metrics *metrics

	lookups chan struct{} // one for each that may be under way
	queue   chan entry
	queued  atomic.Int64 // bytes
	writers sync.WaitGroup
	stop    context.CancelFunc
	stopped context.Context //nolint:containedctx // ends the writers, which belong to no caller

	mu       sync.Mutex
	failures int       // one after another
	retryAt  time.Time // until then the servers are left alone
}

type entry struct {
	key   string
	value []byte
}

const (
	// maxValue is the most bytes of a value, unless the configuration says another number.
	maxValue = 1 << 20
	// maxQueued are the bytes that may wait to be written.
	maxQueued = 16 << 20
)

// Open returns a cache on the servers of a configuration. It asks them nothing yet, so
// that a process starts without them. Close it.
func Open(ctx context.Context, c *Config, log *slog.Logger, reg prometheus.Registerer) (*Cache, error) {
	cache := &Cache{log: log, most: maxValue}
	var err error
	switch {
	case c.Memcached != nil:
		cache.name, cache.limits = "memcached", c.Memcached.Limits
		if c.Memcached.MaxItemSize > 0 {
			cache.most = int(c.Memcached.MaxItemSize)
		}
		cache.servers = openMemcached(ctx, c.Memcached, c.TTL, log)
	case c.Redis != nil:
		cache.name, cache.limits = "redis", c.Redis.Limits
		cache.servers, err = openRedis(c.Redis, c.TTL, log)
	default:
		err = errors.New("no servers are configured")
	}
	if err != nil {
		return nil, fmt.Errorf("open a shared cache: %w", err)
	}
	cache.metrics = newMetrics(reg, cache.name)
	cache.metrics.up.Set(1)
	cache.lookups = make(chan struct{}, cache.limits.MaxGetMultiConcurrency)
	cache.queue = make(chan entry, cache.limits.MaxAsyncBufferSize)
	cache.stopped, cache.stop = context.WithCancel(context.WithoutCancel(ctx))
	for range cache.limits.MaxAsyncConcurrency {
		cache.writers.Go(cache.write)
	}
	return cache, nil
}

// Close drops what waits to be written and ends the connections. Nothing may be under
// way or begin afterwards.
func (c *Cache) Close() error {
	c.stop()
	c.writers.Wait()
	return c.servers.close()
}

// Get returns the values that are there. They belong to the caller.
func (c *Cache) Get(ctx context.Context, keys []string) map[string][]byte {
	if len(keys) == 0 || c.pausing() {
		return nil
	}
	select {
	case c.lookups <- struct{}{}:
		defer func() { <-c.lookups }()
	default:
		return nil // the servers have enough to do; the caller has another source
	}
	start := time.Now()
	found := make(map[string][]byte, len(keys))
	err := c.servers.get(ctx, keys, found)
	c.metrics.lookup.Observe(time.Since(start).Seconds())
	if ctx.Err() == nil {
		c.judge("look up", err)
	}
	c.metrics.wanted.Add(float64(len(keys)))
	c.metrics.hits.Add(float64(len(found)))
	return found
}

// Set has a value written, unless too many wait or it is too large. The value must not
// be changed afterwards.
func (c *Cache) Set(key string, value []byte) {
	n := int64(len(value))
	if len(value) > c.most || c.pausing() {
		c.metrics.skipped.Inc()
		return
	}
	if c.queued.Add(n) <= maxQueued {
		select {
		case c.queue <- entry{key, value}:
			return
		default:
		}
	}
	c.queued.Add(-n)
	c.metrics.skipped.Inc()
}

// Delete drops values that turned out to be wrong. One that waits to be written may
// still come.
func (c *Cache) Delete(ctx context.Context, keys ...string) {
	if !c.pausing() {
		c.judge("delete", c.servers.delete(ctx, keys))
	}
}

// write is one of the writers.
func (c *Cache) write() {
	for {
		select {
		case e := <-c.queue:
			c.queued.Add(-int64(len(e.value)))
			if c.pausing() {
				c.metrics.skipped.Inc()
				continue
			}
			err := c.servers.set(c.stopped, e.key, e.value)
			c.judge("write", err)
			if err == nil {
				c.metrics.written.Add(float64(len(e.value)))
			}
		case <-c.stopped.Done():
			return
		}
	}
}

// pausing reports whether the servers are left alone after errors.
func (c *Cache) pausing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.retryAt.IsZero() && time.Now().Before(c.retryAt)
}

// judge counts errors, and has the servers left alone after a run of them. One success
// ends that.
func (c *Cache) judge(operation string, err error) {
	if err != nil && c.stopped.Err() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		if !c.retryAt.IsZero() {
			c.log.Info("shared cache answers again", "servers", c.name)
		}
		c.failures, c.retryAt = 0, time.Time{}
		c.metrics.up.Set(1)
		return
	}
	c.metrics.errors.Inc()
	if c.failures++; c.failures < c.limits.Breaker.ConsecutiveFailures {
		return
	}
	if c.retryAt.IsZero() {
		c.log.Warn("shared cache is left alone until it answers; everything is read without it",
			"servers", c.name, "operation", operation, "retry_every", c.limits.Breaker.OpenDuration, "err", err)
	}
	c.retryAt = time.Now().Add(c.limits.Breaker.OpenDuration)
	c.metrics.up.Set(0)
}
