package fetcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/bucket"
)

// Fetcher turns a bucket into block sets. It is safe for concurrent use; calls
// to Fetch wait for each other.
type Fetcher struct {
	bkt     bucket.Reader
	opts    Options
	log     *slog.Logger
	metrics *metrics
	shared  *shared
	journal journal

	mu    sync.Mutex
	known map[ulid.ULID]*directory // what the last look saw and read; nil before the first
}

// New returns a fetcher of valid options. It does not touch bucket or disk.
func New(bkt bucket.Reader, o Options, log *slog.Logger, reg prometheus.Registerer) *Fetcher {
	return &Fetcher{bkt: bkt, opts: o, log: log, metrics: newMetrics(reg), shared: newShared(), journal: journal{dir: o.CacheDir}}
}

// Fetch gives what the bucket holds now. The set and all it points to are
// immutable, and later sets share parts of it. With an error there is no set, and
// the caller goes on with the last one, whose Listed says how old it is.
func (f *Fetcher) Fetch(ctx context.Context) (*block.Set, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	start := time.Now()
	f.metrics.syncs.Inc()
	set, err := f.fetch(ctx, start)
	if err != nil {
		f.metrics.failures.Inc()
		return nil, err
	}
	f.metrics.duration.Observe(time.Since(start).Seconds())
	f.metrics.lastSync.Set(float64(start.UnixMilli()) / 1000)
	f.metrics.show(set)
	return set, nil
}

func (f *Fetcher) fetch(ctx context.Context, now time.Time) (*block.Set, error) {
	if f.known == nil {
		f.remember()
	}
	dirs, err := f.list(ctx, block.SortedIDs(slices.Collect(maps.Keys(f.known))), now)
	if err != nil {
		return nil, fmt.Errorf("list the bucket: %w", err)
	}
	err = f.readAll(ctx, dirs)
	f.known = dirs // also of a look that was broken off: the next has less to read
	if err := f.journal.flush(); err != nil {
		f.log.Warn("local copies not kept", "dir", f.opts.CacheDir, "err", err)
	}
	if err != nil {
		return nil, fmt.Errorf("read what the bucket says of its blocks: %w", err)
	}
	f.forget()
	return f.assemble(dirs, now), nil
}

// remember takes what an earlier process read from the journal.
func (f *Fetcher) remember() {
	f.known = map[ulid.ULID]*directory{}
	err := f.journal.load(func(r *record) {
		id, rel, _ := block.ParseName(r.Object)
		c := f.parse(id, &content{rel: f.shared.name(rel), version: r.version()}, r.Content)
		if c.err != nil {
			return // corrupt ones are read again, and reported
		}
		f.metrics.reads.WithLabelValues(fromDisk).Inc()
		dir := f.known[id]
		if dir == nil {
			dir = &directory{}
			f.known[id] = dir
		}
		if old := dir.find(rel); old != nil {
			*old = c
		} else {
			dir.small = append(dir.small, c)
		}
	})
	if err := errors.Join(err, f.journal.sweep()); err != nil {
		f.log.Warn("local copies not used", "dir", f.opts.CacheDir, "err", err)
	}
}

// forget drops from the journal what the bucket no longer has.
func (f *Fetcher) forget() {
	n := 0
	for _, dir := range f.known {
		n += len(dir.small)
	}
	err := f.journal.compact(n, func(r *record) bool {
		id, rel, _ := block.ParseName(r.Object)
		dir := f.known[id]
		if dir == nil {
			return false
		}
		c := dir.find(rel)
		return c != nil && c.version == r.version()
	})
	if err != nil {
		f.log.Warn("old local copies not dropped", "dir", f.opts.CacheDir, "err", err)
	}
}

// readAll fills in the content of every meta.json and mark that was listed, from
// the last look or from the bucket. Errors stay beside their object; only the end
// of ctx ends the whole.
func (f *Fetcher) readAll(ctx context.Context, dirs map[ulid.ULID]*directory) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(f.opts.Concurrency)
	for id, dir := range dirs {
		for i := range dir.small {
			c := &dir.small[i]
			if old := f.known[id]; old != nil {
				if last := old.find(c.rel); last != nil && last.version == c.version && last.final() {
					*c = *last
					continue
				}
			}
			g.Go(func() error {
				if ctx.Err() == nil {
					f.read(ctx, id, c)
				}
				if ctx.Err() == nil {
					f.report(id, c)
				}
				return ctx.Err()
			})
		}
	}
	return g.Wait()
}

// report logs at once that an object could not be read, because the look at the
// others may take long. A corrupt meta.json is logged once for each version, a
// corrupt mark by marks.
func (f *Fetcher) report(id ulid.ULID, c *content) {
	switch {
	case c.err == nil, errors.Is(c.err, bucket.ErrNotFound):
	case errors.Is(c.err, block.ErrCorrupt) && c.rel != block.MetaFile:
	default:
		f.log.Warn("block left out because what the bucket says of it was not read", "object", block.ObjectName(id, c.rel), "err", c.err)
	}
}

// read fills in the content of one object.
func (f *Fetcher) read(ctx context.Context, id ulid.ULID, c *content) {
	name := block.ObjectName(id, c.rel)
	data, err := f.get(ctx, name, c.version.size)
	if err != nil {
		c.err = err
		return
	}
	*c = f.parse(id, c, data)
	if c.err != nil {
		return
	}
	if err := f.journal.add(&record{Object: name, ETag: c.version.etag, Modified: c.version.modified, Content: data}); err != nil {
		f.log.Warn("no local copy kept", "object", name, "err", err)
	}
}

// parse gives the content of a block's object, or in it block.ErrCorrupt.
func (f *Fetcher) parse(id ulid.ULID, c *content, data []byte) content {
	parsed := content{rel: c.rel, version: c.version}
	var err error
	if c.rel == block.MetaFile {
		parsed.meta, err = parseMeta(id, data)
	} else if parsed.mark, err = block.ParseMark(block.MarkKind(c.rel), data); err == nil {
		parsed.mark.ID = id // the directory counts
	}
	switch {
	case err != nil:
		parsed.err = fmt.Errorf("%s: %w", block.ObjectName(id, c.rel), err)
	case parsed.meta != nil:
		f.shared.meta(parsed.meta)
	}
	return parsed
}

// parseMeta reads the meta of the block whose directory it was found in.
func parseMeta(id ulid.ULID, data []byte) (*block.Meta, error) {
	meta, err := block.ParseMeta(data)
	if err != nil {
		return nil, err
	}
	if meta.ULID != id {
		return nil, fmt.Errorf("it describes block %s: %w", meta.ULID, block.ErrCorrupt)
	}
	return meta, nil
}

// get reads a small object of the size that was listed.
func (f *Fetcher) get(ctx context.Context, name string, size int64) (data []byte, err error) {
	f.metrics.reads.WithLabelValues(fromBucket).Inc()
	r, err := f.bkt.Get(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	data, err = io.ReadAll(io.LimitReader(r, size+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(data)) != size {
		return nil, fmt.Errorf("read %s: its size is not the %d bytes that were listed", name, size)
	}
	return data, nil
}

// assemble makes a set of directories and their contents.
func (f *Fetcher) assemble(dirs map[ulid.ULID]*directory, listed time.Time) *block.Set {
	set := &block.Set{Listed: listed}
	for id, dir := range dirs {
		marks, err := f.marks(id, dir)
		meta := dir.find(block.MetaFile)
		if meta != nil {
			err = errors.Join(meta.err, err)
		}
		switch {
		case errors.Is(err, bucket.ErrNotFound):
			// Deleted since it was listed: the next look sees what is left of it.
		case err != nil:
			set.Unreadable = append(set.Unreadable, block.Unreadable{ID: id, Err: err})
		case meta != nil:
			set.Blocks = append(set.Blocks, &block.Entry{
				Meta: meta.meta, Objects: dir.objects, ETags: dir.etags, Version: fmt.Sprintf("%016x", dir.data),
				Deletion: marks[block.DeletionMark], NoCompact: marks[block.NoCompactMark], NoDownsample: marks[block.NoDownsampleMark],
			})
		default:
			set.Partial = append(set.Partial, block.Partial{
				ID: id, LastModified: dir.newest, Deletion: marks[block.DeletionMark], Objects: dir.objects,
			})
		}
	}
	block.Sort(set.Blocks)
	slices.SortFunc(set.Partial, func(a, b block.Partial) int { return a.ID.Compare(b.ID) })
	slices.SortFunc(set.Unreadable, func(a, b block.Unreadable) int { return a.ID.Compare(b.ID) })
	return set
}

// marks gives a block's marks. A mark that will never be readable counts as
// absent, as it does for Thanos; one that could not be read this time makes the
// block unreadable, because what it forbids is not known.
func (f *Fetcher) marks(id ulid.ULID, dir *directory) (map[block.MarkKind]*block.Mark, error) {
	var marks map[block.MarkKind]*block.Mark // most blocks have none
	var errs []error
	for i := range dir.small {
		c := &dir.small[i]
		switch {
		case c.rel == block.MetaFile:
		case errors.Is(c.err, block.ErrCorrupt):
			f.log.Warn("mark ignored because it cannot be read", "block", id, "mark", c.rel, "err", c.err)
		case c.err != nil:
			errs = append(errs, c.err)
		default:
			if marks == nil {
				marks = map[block.MarkKind]*block.Mark{}
			}
			marks[block.MarkKind(c.rel)] = c.mark
		}
	}
	return marks, errors.Join(errs...)
}
