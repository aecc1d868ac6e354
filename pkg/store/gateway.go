package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/pagecache"
	"github.com/varve-io/varve/pkg/storeapi"
)

var _ storeapi.Store = (*Gateway)(nil)

// Gateway answers for the blocks that the last Sync gave it. It is safe for
// concurrent use.
type Gateway struct {
	bkt     bucket.Reader
	opts    Options
	dir     string // of the indexes
	log     *slog.Logger
	metrics *metrics
	cache   *pagecache.Cache
	gate    *semaphore.Weighted // of Series requests

	running sync.WaitGroup // goroutines of requests

	mu     sync.Mutex
	set    *blockSet // nil before the first Sync
	closed bool
}

// New returns a Gateway without blocks: it is unavailable until Sync. Its
// metrics are registered with reg.
func New(bkt bucket.Reader, o Options, log *slog.Logger, reg prometheus.Registerer) (*Gateway, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	dir := filepath.Join(o.Dir, "indexes")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	cache, err := pagecache.New(bkt, o.Cache, log, reg)
	if err != nil {
		return nil, err
	}
	return &Gateway{
		bkt:     bkt,
		opts:    o,
		dir:     dir,
		log:     log,
		metrics: newMetrics(reg),
		cache:   cache,
		gate:    semaphore.NewWeighted(int64(o.MaxConcurrency)),
	}, nil
}

// Sync takes over the blocks of a bucket. Requests that run keep the blocks they
// began with; later ones see the new set, whole.
func (g *Gateway) Sync(ctx context.Context, set *block.Set) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("sync blocks: %w", err)
	}
	now := time.Now()
	entries := g.opts.visible(set, now)
	added, dropped, err := g.swap(entries)
	if err != nil {
		return err
	}
	if err := g.sweep(entries); err != nil {
		return fmt.Errorf("remove indexes of blocks that are gone: %w", err)
	}
	g.metrics.blocks.Set(float64(len(entries)))
	g.metrics.lastSync.Set(float64(now.UnixMilli()) / 1000)
	if added+dropped > 0 {
		g.log.Info("blocks changed", "blocks", len(entries), "added", added, "dropped", dropped, "hidden", len(set.Blocks)-len(entries))
	}
	return nil
}

// swap makes entries the current set and retires the blocks that are not in it.
func (g *Gateway) swap(entries []*block.Entry) (added, dropped int, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return 0, 0, errClosed
	}
	old := map[string]*openBlock{}
	if g.set != nil {
		old = g.set.blocks
	}
	blocks := make(map[string]*openBlock, len(entries))
	for _, e := range entries {
		id := e.Meta.ULID.String()
		if blocks[id] = old[id]; blocks[id] == nil {
			blocks[id] = newOpenBlock(e, g.dir)
			added++
		}
	}
	g.set = newBlockSet(blocks)
	var errs []error
	for id, b := range old {
		if blocks[id] == nil {
			dropped++
			errs = append(errs, g.retire(b))
		}
	}
	return added, dropped, errors.Join(errs...)
}

// sweep removes the index files of blocks that are not among entries.
func (g *Gateway) sweep(entries []*block.Entry) error {
	wanted := make(map[string]bool, len(entries))
	for _, e := range entries {
		wanted[e.Meta.ULID.String()] = true
	}
	files, err := os.ReadDir(g.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range files {
		if _, err := ulid.ParseStrict(f.Name()); err == nil && !wanted[f.Name()] {
			// A request that still reads the file keeps it open.
			if err := os.Remove(filepath.Join(g.dir, f.Name())); !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// retire marks a block as gone and closes it, now or after its last request. The
// caller holds mu.
func (g *Gateway) retire(b *openBlock) error {
	b.retired = true
	if b.users > 0 {
		return nil
	}
	return b.close()
}

// release gives back a block that a request has used.
func (g *Gateway) release(b *openBlock) {
	g.mu.Lock()
	defer g.mu.Unlock()
	b.users--
	if b.retired && b.users == 0 {
		if err := b.close(); err != nil {
			g.log.Warn("index not closed", "block", b.meta.ULID, "err", err)
		}
	}
}

var errClosed = fmt.Errorf("%w: the gateway is closed", storeapi.ErrUnavailable)

// current returns the set to answer from. The caller holds mu.
func (g *Gateway) current() (*blockSet, error) {
	switch {
	case g.closed:
		return nil, errClosed
	case g.set == nil:
		return nil, fmt.Errorf("%w: the blocks of the bucket are not known yet", storeapi.ErrUnavailable)
	}
	return g.set, nil
}

// Close waits for the requests that run, whose contexts should have ended, and
// releases all blocks.
func (g *Gateway) Close() error {
	g.mu.Lock()
	g.closed = true
	set := g.set
	g.set = nil
	g.mu.Unlock()
	g.running.Wait()
	errs := []error{g.cache.Close()}
	if set == nil {
		return errors.Join(errs...)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, b := range set.blocks {
		errs = append(errs, g.retire(b))
	}
	return errors.Join(errs...)
}

// Info says which streams and times the gateway answers for.
func (g *Gateway) Info(context.Context) (storeapi.Info, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	set, err := g.current()
	if err != nil {
		return storeapi.Info{}, err
	}
	info := storeapi.Info{
		Component:        "store",
		MinTime:          math.MaxInt64,
		MaxTime:          math.MinInt64,
		APIs:             storeapi.StoreAPI,
		Native:           true,
		DropsLabels:      true,
		SupportsSharding: true,
	}
	bounds := g.opts.bounds(time.Now())
	for _, st := range set.streams {
		s := storeapi.Stream{Labels: st.labels, MinTime: math.MaxInt64, MaxTime: math.MinInt64}
		for _, b := range st.blocks {
			s.MinTime = min(s.MinTime, max(b.meta.MinTime, bounds.MinTime))
			s.MaxTime = max(s.MaxTime, min(b.meta.MaxTime, bounds.MaxTime)-1)
		}
		if !st.labels.IsEmpty() {
			info.LabelSets = append(info.LabelSets, st.labels)
		}
		info.Streams = append(info.Streams, s)
		info.MinTime, info.MaxTime = min(info.MinTime, s.MinTime), max(info.MaxTime, s.MaxTime)
	}
	return info, nil
}

// blockText names a block and a part of its time in messages.
func blockText(p *pick) string {
	var b strings.Builder
	fmt.Fprintf(&b, "block %s", p.block.meta.ULID)
	for _, t := range p.times {
		fmt.Fprintf(&b, " from %s to %s", timeText(t.MinTime), timeText(t.MaxTime))
	}
	return b.String()
}

func timeText(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }
