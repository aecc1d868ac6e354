package store

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockindex"
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
	indexes *blockindex.Directories
	log     *slog.Logger
	metrics *metrics
	cache   *pagecache.Cache
	budget  *budget // of requests

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
	// Earlier versions kept copies of indexes here.
	if err := os.RemoveAll(filepath.Join(o.Dir, "indexes")); err != nil {
		return nil, fmt.Errorf("remove old copies of indexes: %w", err)
	}
	indexes, err := blockindex.NewDirectories(filepath.Join(o.Dir, "directories"), directoryBytes, reg)
	if err != nil {
		return nil, err
	}
	if o.Cache.Dir == "" {
		o.Cache.Dir = filepath.Join(o.Dir, "pages")
	}
	cache, err := pagecache.New(&versions{bkt: bkt, log: log}, o.Cache, log, reg)
	if err != nil {
		return nil, err
	}
	return &Gateway{
		bkt:     bkt,
		opts:    o,
		indexes: indexes,
		log:     log,
		metrics: newMetrics(reg),
		cache:   cache,
		budget:  newBudget(o),
	}, nil
}

// directoryBytes of memory hold pages of page directories, those in use.
const directoryBytes = 24 << 20

// Sync takes over the blocks of a bucket. Requests that run keep the blocks they
// began with; later ones see the new set, whole.
func (g *Gateway) Sync(ctx context.Context, set *block.Set) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("sync blocks: %w", err)
	}
	now := time.Now()
	entries := g.opts.visible(set, now)
	blocks, before, err := g.swap(entries, set)
	if err != nil {
		return err
	}
	named := func(name string) bool {
		id, _, _ := strings.Cut(name, ".")
		return blocks[id] != nil && blocks[id].directoryName() == name
	}
	if err := g.indexes.Sweep(named); err != nil {
		return fmt.Errorf("remove page directories of blocks that are gone: %w", err)
	}
	g.metrics.blocks.Set(float64(len(blocks)))
	g.metrics.lastSync.Set(float64(now.UnixMilli()) / 1000)
	added, dropped := missing(before, blocks), missing(blocks, before)
	if added+dropped > 0 {
		g.log.Info("blocks changed", "blocks", len(blocks), "added", added, "dropped", dropped, "hidden", len(set.Blocks)-len(entries))
	}
	return nil
}

// swap makes entries, those visible of a set, the current blocks. Of blocks that the
// set has as unreadable those stay that are there: they were read before.
func (g *Gateway) swap(entries []*block.Entry, set *block.Set) (blocks, before map[string]*openBlock, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, nil, errClosed
	}
	if g.set != nil {
		before = g.set.blocks
	}
	blocks = make(map[string]*openBlock, len(entries))
	for _, e := range entries {
		id := e.Meta.ULID.String()
		if blocks[id] = before[id]; blocks[id] == nil || blocks[id].version != e.Version {
			blocks[id] = newOpenBlock(e)
		}
	}
	for _, u := range set.Unreadable {
		if b := before[u.ID.String()]; b != nil {
			blocks[u.ID.String()] = b
		}
	}
	g.set = newBlockSet(blocks, block.Remaining(entries), set.Listed)
	return blocks, before, nil
}

// missing is how many of the second blocks are not among the first.
func missing(first, second map[string]*openBlock) (n int) {
	for id := range second {
		if first[id] == nil {
			n++
		}
	}
	return n
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

// Close waits for the requests that run, whose contexts should have ended.
func (g *Gateway) Close() error {
	g.mu.Lock()
	g.closed = true
	g.set = nil
	g.mu.Unlock()
	g.running.Wait()
	return g.cache.Close()
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
