package compact

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb/index"
	"golang.org/x/sync/errgroup"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockio"
	"github.com/varve-io/varve/pkg/blockwriter"
	"github.com/varve-io/varve/pkg/dedup"
	"github.com/varve-io/varve/pkg/downsample"
	"github.com/varve-io/varve/pkg/merge"
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
	// write puts the series of the opened sources into w.
	write func(ctx context.Context, sources []*source, w *blockwriter.Writer) error
}

// merged describes the block that replaces the sources of j.
func (e *Executor) merged(j planner.Compact, attempt int) output {
	first := j.Sources[0]
	meta := &block.Meta{
		MinTime: j.Range.MinTime,
		MaxTime: j.Range.MaxTime,
		Version: 1,
		Thanos: block.Thanos{
			Version:    1,
			Labels:     first.StreamLabels(e.opts.Policy.ReplicaLabels).Map(),
			Downsample: first.Thanos.Downsample,
			Source:     block.SourceCompactor,
			Extensions: commonExtensions(j.Sources),
		},
	}
	id := block.Output{Kind: "compact", Params: e.opts.params(), Resolution: meta.Resolution(), Attempt: attempt}
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
	return output{meta: meta, sources: j.Sources, write: e.writeMerged}
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
		write: func(ctx context.Context, in []*source, w *blockwriter.Writer) error {
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
func (e *Executor) writeMerged(ctx context.Context, sources []*source, w *blockwriter.Writer) error {
	sets := make([]series.Set, len(sources))
	for i, s := range sources {
		sets[i] = s.set(ctx, e.opts.Policy.ReplicaLabels)
	}
	set := dedup.NewSet(merge.Sets(sets...), e.opts.Dedup)
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
		if err := w.AddSeries(cur); err != nil {
			return err
		}
	}
	return set.Err()
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

// build makes the block and uploads it. A block that an earlier, interrupted run
// left in part is completed: its name and its bytes follow from the sources.
func (e *Executor) build(ctx context.Context, o output) (err error) {
	dir := filepath.Join(e.opts.Dir, o.meta.ULID.String())
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("clear work directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	if err := e.download(ctx, dir, o.sources); err != nil {
		return err
	}
	out := filepath.Join(dir, "out")
	if err := e.write(ctx, dir, out, o); err != nil {
		return err
	}
	if err := verify(ctx, out, o.meta); err != nil {
		return fmt.Errorf("verify block %s before its upload: %w", o.meta.ULID, err)
	}
	o.meta.Thanos.UploadTime = e.now().UTC()
	return blockio.UploadOnce(ctx, e.bkt, out, o.meta)
}

// download fetches the sources, each into a directory of its own below dir.
func (e *Executor) download(ctx context.Context, dir string, sources []*block.Meta) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(e.opts.FetchConcurrency)
	for _, m := range sources {
		g.Go(func() error {
			_, err := blockio.Download(ctx, e.bkt, m.ULID, filepath.Join(dir, m.ULID.String()))
			if errors.Is(err, block.ErrCorrupt) {
				return &corruptError{m.ULID, err}
			}
			return err
		})
	}
	return g.Wait()
}

// write reads the sources below dir and leaves the new block in out.
func (e *Executor) write(ctx context.Context, dir, out string, o output) (err error) {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return fmt.Errorf("make work directory: %w", err)
	}
	sources, err := openSources(dir, o.sources)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll(sources)) }()

	symbols := make([]index.StringIter, len(sources))
	for i, s := range sources {
		symbols[i] = s.index.Symbols()
	}
	w, err := blockwriter.New(blockwriter.Dir(out), blockwriter.Defaults(), symbols...)
	if err != nil {
		return err
	}
	if err := o.write(ctx, sources, w); err != nil {
		w.Abort()
		return fmt.Errorf("write block %s: %w", o.meta.ULID, err)
	}
	result, err := w.Close()
	if err != nil {
		return err
	}
	o.meta.Stats = result.Stats
	o.meta.Thanos.IndexStats = result.IndexStats
	if result.Stats.NumSamples == 0 {
		return errEmpty
	}
	return nil
}
