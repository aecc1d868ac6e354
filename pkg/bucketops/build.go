package bucketops

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockio"
	"github.com/varve-io/varve/pkg/blockscan"
	"github.com/varve-io/varve/pkg/blockwriter"
	"github.com/varve-io/varve/pkg/downsample"
	"github.com/varve-io/varve/pkg/planner"
)

// errEmpty says that a block to be made would hold no sample.
var errEmpty = errors.New("no sample is left")

// product is a block to be made of others.
type product struct {
	// meta is complete but for what only the written files can tell.
	meta *block.Meta
	// symbols are all strings of the labels to come, sorted.
	symbols []string
	write   func(w *blockwriter.Writer) error
}

// downsampled describes the coarser form of a block as the compactor names it; its
// origin is that of its source.
func downsampled(source *block.Meta, to block.Resolution, attempt int) product {
	meta := *source
	meta.ULID = block.Output{Kind: "downsample", Sources: []ulid.ULID{source.ULID}, Resolution: to, Attempt: attempt}.ID()
	meta.Thanos.Downsample.Resolution = to
	meta.Thanos.Source = block.SourceCompactor
	return product{meta: &meta}
}

func (o *Operator) downsampleAction(j planner.Downsample) Action {
	return Action{
		Do: "write", Block: j.Source.ULID, What: downsampled(j.Source, j.Resolution, 0).meta.ULID.String(), Why: "downsampled to " + j.Resolution.String(),
		run: func(ctx context.Context) error {
			return o.fromSound(ctx, j.Source, func(b *blockscan.Block, dir string) error {
				return o.buildAny(ctx, dir, func(attempt int) product {
					p := downsampled(j.Source, j.Resolution, attempt)
					s := b.Scan(ctx, func(blockscan.Finding) {})
					p.symbols = s.Symbols()
					p.write = func(w *blockwriter.Writer) error { return downsample.Run(ctx, s, w, j.Resolution) }
					return p
				})
			})
		},
	}
}

// fromSound brings a block to local disk and calls fn with it, if nothing is found
// to be wrong with it. New files may be put into dir.
func (o *Operator) fromSound(ctx context.Context, meta *block.Meta, fn func(b *blockscan.Block, dir string) error) error {
	set, err := blockio.Objects(ctx, o.bkt, meta.ULID)
	if err != nil {
		return err
	}
	return o.withBlock(ctx, &block.Entry{Meta: meta, Objects: set}, func(dir string) (err error) {
		v, err := verifyDir(ctx, dir, meta)
		if err != nil {
			return err
		}
		if len(v.Findings) > 0 {
			return fmt.Errorf("block %s is not sound (%s); repair it first", meta.ULID, v.Findings[0])
		}
		b, err := blockscan.Open(dir, meta)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, b.Close()) }()
		return fn(b, filepath.Dir(dir))
	})
}

// maxAttempts bounds how often a block is given another name because the bucket
// holds something else under the one it should have.
const maxAttempts = 3

// buildAny builds the product of the first attempt that the bucket has room for.
func (o *Operator) buildAny(ctx context.Context, dir string, describe func(attempt int) product) (err error) {
	for attempt := range maxAttempts {
		if err = o.build(ctx, dir, describe(attempt)); !errors.Is(err, blockio.ErrConflict) {
			return err
		}
	}
	return err
}

// build writes a block below dir, reads it back, and uploads it. A block that an
// earlier, interrupted run left in part is completed: name and bytes follow from the sources.
func (o *Operator) build(ctx context.Context, dir string, p product) (err error) {
	out := filepath.Join(dir, p.meta.ULID.String())
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(out)) }()
	symbols := blockwriter.NewSymbols()
	if err := symbols.AddAll(index.NewStringListIter(p.symbols)); err != nil {
		return err
	}
	w, err := blockwriter.New(blockwriter.Dir(out), blockwriter.Defaults(), symbols)
	if err != nil {
		return err
	}
	if err := p.write(w); err != nil {
		w.Abort()
		return fmt.Errorf("write block %s: %w", p.meta.ULID, err)
	}
	result, err := w.Close()
	if err != nil {
		return err
	}
	if result.Stats.NumSamples == 0 {
		return errEmpty
	}
	p.meta.Stats, p.meta.Thanos.IndexStats = result.Stats, result.IndexStats
	p.meta.Thanos.Files, p.meta.Thanos.SegmentFiles = nil, nil
	v, err := verifyDir(ctx, out, p.meta)
	if err != nil {
		return err
	}
	if len(v.Findings) > 0 {
		return fmt.Errorf("verify block %s before its upload: %s", p.meta.ULID, v.Findings[0])
	}
	p.meta.Thanos.UploadTime = o.now().UTC()
	return blockio.UploadOnce(ctx, o.bkt, out, p.meta)
}
