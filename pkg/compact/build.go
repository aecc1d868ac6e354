package compact

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockio"
	"github.com/varve-io/varve/pkg/blockwriter"
	"github.com/varve-io/varve/pkg/dedup"
	"github.com/varve-io/varve/pkg/downsample"
	"github.com/varve-io/varve/pkg/merge"
	"github.com/varve-io/varve/pkg/panics"
	"github.com/varve-io/varve/pkg/planner"
	"github.com/varve-io/varve/pkg/series"
)

// errEmpty says that the sources of a job hold no sample to write.
var errEmpty = errors.New("the sources hold no sample")

// output is a block to be made from others.
type output struct {
	// meta is complete but for what only the written files can tell.
	meta    *block.Meta
	sources []*block.Meta
	// into is the bucket that the block is put into. It takes a meta.json only as
	// long as the job's lease is held.
	into objstore.Bucket
	// write puts the series of the opened sources into w.
	write func(ctx context.Context, sources []*source, w tee) error
	// beside are coarser forms of the block, each made from the one before.
	beside []*block.Meta
}

// merged describes the block that replaces the sources of j, or a shard of it.
func (e *Executor) merged(j planner.Compact, shard block.Shard, attempt int) output {
	meta := &block.Meta{
		MinTime: j.Range.MinTime,
		MaxTime: j.Range.MaxTime,
		Version: 1,
		Thanos: block.Thanos{
			Version:    1,
			Labels:     j.Labels(shard, e.opts.Policy.ReplicaLabels).Map(),
			Downsample: j.Sources[0].Thanos.Downsample,
			Source:     block.SourceCompactor,
			Extensions: commonExtensions(j.Sources),
		},
	}
	id := block.Output{Kind: "compact", Params: e.opts.params(), Resolution: meta.Resolution(), Shard: shard.String(), Attempt: attempt}
	c := &meta.Compaction
	for _, m := range j.Sources {
		id.Sources = append(id.Sources, m.ULID)
		c.Level = max(c.Level, m.Compaction.Level)
		c.Sources = append(c.Sources, m.Origin()...)
		c.Parents = append(c.Parents, block.Parent{ULID: m.ULID, MinTime: m.MinTime, MaxTime: m.MaxTime})
	}
	c.Level++
	c.Sources = block.SortedIDs(c.Sources)
	meta.ULID = id.ID()
	o := output{meta: meta, sources: j.Sources, write: e.writeMerged}
	if j.Splits() {
		o.write = func(ctx context.Context, sources []*source, w tee) error {
			return e.writeShard(ctx, sources, w, shard)
		}
	}
	for _, r := range j.Beside {
		meta = downsampled(planner.Downsample{Source: meta, Resolution: r}, 0).meta
		o.beside = append(o.beside, meta)
	}
	return o
}

// downsampled describes the coarser form of a block; its origin is that of its source.
func downsampled(j planner.Downsample, attempt int) output {
	meta := *j.Source
	meta.ULID = block.Output{
		Kind: "downsample", Sources: []ulid.ULID{j.Source.ULID}, Resolution: j.Resolution, Attempt: attempt,
	}.ID()
	meta.Stats = block.Stats{}
	meta.Thanos.Downsample.Resolution = j.Resolution
	meta.Thanos.Source = block.SourceCompactor
	return output{
		meta:    &meta,
		sources: []*block.Meta{j.Source},
		write: func(ctx context.Context, in []*source, w tee) error {
			return downsample.Run(ctx, in[0].set(ctx, nil), w, j.Resolution)
		},
	}
}

// commonExtensions keeps the extensions that all sources share.
func commonExtensions(sources []*block.Meta) any {
	for _, m := range sources[1:] {
		if !reflect.DeepEqual(m.Thanos.Extensions, sources[0].Thanos.Extensions) {
			return nil
		}
	}
	return sources[0].Thanos.Extensions
}

// writeMerged merges the sources by label order and makes one series of each set of replicas.
func (e *Executor) writeMerged(ctx context.Context, sources []*source, w tee) error {
	return e.writeShard(ctx, sources, w, block.Shard{})
}

// writeShard does that with the series of a shard, and leaves out the others.
func (e *Executor) writeShard(ctx context.Context, sources []*source, w tee, shard block.Shard) error {
	sets := make([]series.Set, len(sources))
	metas := make([]*block.Meta, len(sources))
	for i, s := range sources {
		sets[i], metas[i] = s.set(ctx, e.opts.Policy.ReplicaLabels), s.meta
	}
	in := &inputs{Set: shardSet{merge.Sets(sets...), shard}, stride: stride(metas)}
	set := dedup.NewSet(in, e.opts.Dedup)
	for set.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		cur := set.At()
		if !e.opts.NativeEncodings {
			var err error
			if cur, err = readableByAll(cur); err != nil {
				return err
			}
		}
		if err := in.check(cur, e.opts.Dedup.Func); err != nil {
			return err
		}
		if err := w.AddDecoded(cur, downsample.Floats(set.Floats())); err != nil {
			return err
		}
	}
	if err := set.Err(); err != nil {
		return err
	}
	return in.done()
}

// shardSet has the series of a shard alone.
type shardSet struct {
	series.Set
	shard block.Shard
}

func (s shardSet) Next() bool {
	for s.Set.Next() {
		if s.shard.Holds(s.At().Labels) {
			return true
		}
	}
	return false
}

// readableByAll turns the chunks that Thanos cannot read into ones that it can;
// start timestamps are lost. A series without such chunks is handed back as it is.
func readableByAll(s *series.Series) (*series.Series, error) {
	out := s
	for i, c := range s.Chunks {
		classic, err := c.Classic()
		if err != nil {
			return nil, fmt.Errorf("series %s: %w", s.Labels, err)
		}
		if classic.Encoding == c.Encoding {
			continue
		}
		if out == s {
			out = &series.Series{Labels: s.Labels, Replica: s.Replica, Chunks: slices.Clone(s.Chunks)}
		}
		out.Chunks[i] = classic
	}
	return out, nil
}

// buildBlock makes the block while its sources are read, and puts it into the bucket
// while it is made. A block that an earlier, interrupted run left in part is
// completed: its name and its bytes follow from the sources.
func (e *Executor) buildBlock(ctx context.Context, o output) error {
	const tries = 3
	var err error
	for range tries {
		// Who comes second compares: what somebody else wrote meanwhile is there when we come again.
		if err = e.buildOnce(ctx, o); !errors.Is(err, blockio.ErrRaced) {
			break
		}
	}
	return err
}

func (e *Executor) buildOnce(ctx context.Context, o output) error {
	made, beside, err := e.write(ctx, o)
	if err != nil {
		return err
	}
	wrong := make([]error, len(beside))
	var g errgroup.Group
	for i, f := range beside {
		g.Go(func() error {
			wrong[i] = e.verify(ctx, f.draft)
			return nil
		})
	}
	g.Go(func() error { return e.verify(ctx, made) })
	if err := g.Wait(); err != nil {
		return err
	}
	// The coarser forms come first: a plan that sees the block sees them, too.
	for i, f := range beside {
		err := wrong[i]
		if err == nil {
			err = e.commit(ctx, f.draft)
		}
		if err != nil {
			e.later(f.meta, err)
			break
		}
	}
	return e.commit(ctx, made)
}

// write writes index and segments of a block, and of its coarser forms as far as that works.
func (e *Executor) write(ctx context.Context, o output) (*draft, forms, error) {
	symbols := newSymbolTable()
	sources, err := openSources(ctx, e.bkt, o.sources, newReaders(len(o.sources), e.opts.FetchConcurrency), symbols)
	if err != nil {
		return nil, nil, err
	}
	defer closeAll(sources)

	d, err := e.draft(ctx, o, o.meta, symbols)
	if err != nil {
		return nil, nil, err
	}
	begun := e.begin(ctx, o, symbols)
	err = panics.Caught(func() error { return o.write(ctx, sources, tee{d.recorder, begun}) })
	if err == nil && d.lacksAll() {
		err = errEmpty
	}
	closed := make(chan error, 1)
	go func() { closed <- d.end(err) }()
	beside := e.end(begun, err)
	if err = <-closed; err != nil {
		return nil, nil, fmt.Errorf("write block %s: %w", o.meta.ULID, err)
	}
	return d, beside, nil
}

// draft is a block that is being written, and then complete but for its meta.json.
type draft struct {
	*recorder

	// meta gets what only the written files tell.
	meta *block.Meta
	into *blockio.Writing
}

// draft starts the block of an output, or one of its coarser forms.
func (e *Executor) draft(ctx context.Context, o output, meta *block.Meta, symbols *symbolTable) (*draft, error) {
	into, err := blockio.Begin(ctx, o.into, meta.ULID)
	if err != nil {
		return nil, err
	}
	opts := blockwriter.Defaults()
	opts.Memory /= int64(1 + len(o.beside))
	opts.TempDir = e.opts.Dir
	w, err := blockwriter.New(files{ctx, into}, opts, symbols.Symbols)
	if err != nil {
		return nil, err
	}
	return &draft{recorder: newRecorder(w, stride(o.sources)), meta: meta, into: into}, nil
}

// end completes all files, or gives them up for the error that it is given.
func (d *draft) end(err error) error {
	if err != nil {
		d.Abort()
		return err
	}
	return d.close()
}

// lacksAll reports whether there is nothing that the block could stand for. A shard
// stands for the series of its hashes, though there are none: they are nowhere else.
func (d *draft) lacksAll() bool { return d.Stats().NumSamples == 0 && d.meta.Shard().Whole() }

// close completes all files.
func (d *draft) close() error {
	result, err := d.Close()
	if err != nil {
		return err
	}
	d.meta.Stats = result.Stats
	d.meta.Thanos.IndexStats = result.IndexStats
	return nil
}

// commit makes the block count.
func (e *Executor) commit(ctx context.Context, d *draft) error {
	m := *d.meta
	m.Thanos.UploadTime = e.now().UTC()
	if err := d.into.Commit(ctx, &m); err != nil {
		return err
	}
	*d.meta = m
	return nil
}

// files are those of a block on its way into the bucket.
type files struct {
	ctx  context.Context //nolint:containedctx // lives no longer than the job that made it
	into *blockio.Writing
}

func (f files) Create(name string) (blockwriter.File, error) { return f.into.Create(f.ctx, name), nil }
