package fetcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
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

	mu    sync.Mutex
	known map[string]parsed // by object name, what the last fetch used
}

// parsed is the content of one version of a meta.json or a mark.
type parsed struct {
	version string
	meta    *block.Meta
	mark    *block.Mark
	err     error // block.ErrCorrupt: this version will never be readable
}

// New returns a fetcher of valid options. It does not touch bucket or disk.
func New(bkt bucket.Reader, o Options, log *slog.Logger, reg prometheus.Registerer) *Fetcher {
	return &Fetcher{bkt: bkt, opts: o, log: log, metrics: newMetrics(reg), known: map[string]parsed{}}
}

// Fetch gives what the bucket holds now. The set and all it points to are
// immutable, and later sets share parts of it. With an error there is no set,
// and the caller goes on with the last one.
func (f *Fetcher) Fetch(ctx context.Context) (*block.Set, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	start := time.Now()
	f.metrics.syncs.Inc()
	set, err := f.fetch(ctx)
	if err != nil {
		f.metrics.failures.Inc()
		return nil, err
	}
	f.metrics.duration.Observe(time.Since(start).Seconds())
	f.metrics.lastSync.SetToCurrentTime()
	f.metrics.show(set)
	return set, nil
}

func (f *Fetcher) fetch(ctx context.Context) (*block.Set, error) {
	dirs, err := list(ctx, f.bkt)
	if err != nil {
		return nil, fmt.Errorf("list the bucket: %w", err)
	}
	now, err := f.readAll(ctx, dirs)
	if err != nil {
		return nil, fmt.Errorf("read what the bucket says of its blocks: %w", err)
	}
	set := f.assemble(dirs, now)
	f.known = now
	f.prune(dirs)
	return set, nil
}

// readAll gives the content of every meta.json and mark that was listed. Errors
// are kept beside their object; only the end of ctx ends the whole.
func (f *Fetcher) readAll(ctx context.Context, dirs map[ulid.ULID]*directory) (map[string]parsed, error) {
	var mu sync.Mutex
	now := make(map[string]parsed, len(f.known))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(f.opts.Concurrency)
	for id, dir := range dirs {
		for rel, o := range dir.small {
			if old, ok := f.known[o.Name]; ok && old.version == version(o) {
				mu.Lock()
				now[o.Name] = old
				mu.Unlock()
				continue
			}
			g.Go(func() error {
				p := f.read(gctx, id, rel, o)
				if gctx.Err() == nil {
					f.report(rel, o, p.err)
				}
				mu.Lock()
				now[o.Name] = p
				mu.Unlock()
				return gctx.Err()
			})
		}
	}
	return now, g.Wait()
}

// report logs at once that an object could not be read, because the look at the
// others may take long. A corrupt meta.json is logged once for each version, a
// corrupt mark by marks.
func (f *Fetcher) report(rel string, o bucket.Object, err error) {
	switch {
	case err == nil, errors.Is(err, bucket.ErrNotFound):
	case errors.Is(err, block.ErrCorrupt) && rel != block.MetaFile:
	default:
		f.log.Warn("block left out because what the bucket says of it was not read", "object", o.Name, "err", err)
	}
}

// read gives the content of one object. Whatever may be otherwise next time has no version, so that it is read again.
func (f *Fetcher) read(ctx context.Context, id ulid.ULID, rel string, o bucket.Object) parsed {
	if rel == block.MetaFile {
		return f.readMeta(ctx, id, o)
	}
	data, err := f.get(ctx, o)
	if err != nil {
		return parsed{err: err}
	}
	mark, err := block.ParseMark(block.MarkKind(rel), data)
	if err != nil {
		return parsed{version: version(o), err: fmt.Errorf("%s: %w", o.Name, err)}
	}
	mark.ID = id // the directory counts
	return parsed{version: version(o), mark: mark}
}

func (f *Fetcher) readMeta(ctx context.Context, id ulid.ULID, o bucket.Object) parsed {
	if meta := f.fromDisk(id, o); meta != nil {
		f.metrics.reads.WithLabelValues(fromDisk).Inc()
		return parsed{version: version(o), meta: meta}
	}
	data, err := f.get(ctx, o)
	if err != nil {
		return parsed{err: err}
	}
	meta, err := parseMeta(id, data)
	if err != nil {
		return parsed{version: version(o), err: fmt.Errorf("%s: %w", o.Name, err)}
	}
	f.toDisk(id, o, data)
	return parsed{version: version(o), meta: meta}
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
func (f *Fetcher) get(ctx context.Context, o bucket.Object) (data []byte, err error) {
	f.metrics.reads.WithLabelValues(fromBucket).Inc()
	r, err := f.bkt.Get(ctx, o.Name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", o.Name, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	data, err = io.ReadAll(io.LimitReader(r, o.Size+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", o.Name, err)
	}
	if int64(len(data)) != o.Size {
		return nil, fmt.Errorf("read %s: its size is not the %d bytes that were listed", o.Name, o.Size)
	}
	return data, nil
}

// assemble puts directories and contents together.
func (f *Fetcher) assemble(dirs map[ulid.ULID]*directory, now map[string]parsed) *block.Set {
	set := &block.Set{}
	for id, dir := range dirs {
		marks, err := f.marks(id, dir, now)
		meta, complete := now[block.MetaName(id)]
		err = errors.Join(meta.err, err)
		switch {
		case errors.Is(err, bucket.ErrNotFound):
			// Deleted since it was listed: the next look sees what is left of it.
		case err != nil:
			set.Unreadable = append(set.Unreadable, block.Unreadable{ID: id, Err: err})
		case complete:
			set.Blocks = append(set.Blocks, &block.Entry{
				Meta: meta.meta, Objects: dir.objects,
				Deletion: marks[block.DeletionMark], NoCompact: marks[block.NoCompactMark], NoDownsample: marks[block.NoDownsampleMark],
			})
		default:
			set.Partial = append(set.Partial, block.Partial{
				ID: id, LastModified: dir.newest, Deletion: marks[block.DeletionMark], Objects: dir.objects,
			})
		}
	}
	sortSet(set)
	return set
}

// marks gives a block's marks. A mark that will never be readable counts as
// absent, as it does for Thanos; one that could not be read this time makes the
// block unreadable, because what it forbids is not known.
func (f *Fetcher) marks(id ulid.ULID, dir *directory, now map[string]parsed) (map[block.MarkKind]*block.Mark, error) {
	marks := map[block.MarkKind]*block.Mark{}
	var errs []error
	for _, kind := range block.MarkKinds() {
		o, ok := dir.small[string(kind)]
		if !ok {
			continue
		}
		switch p := now[o.Name]; {
		case errors.Is(p.err, block.ErrCorrupt):
			f.log.Warn("mark ignored because it cannot be read", "block", id, "mark", kind, "err", p.err)
		case p.err != nil:
			errs = append(errs, p.err)
		default:
			marks[kind] = p.mark
		}
	}
	return marks, errors.Join(errs...)
}
