package bucketops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockio"
	"github.com/varve-io/varve/pkg/bucket"
)

// Replicate copies the selected blocks into another bucket, the oldest first, each
// with its meta.json last. What an earlier run copied is not copied again. Marks
// against compaction and downsampling come along, deletion marks do not.
func (o *Operator) Replicate(ctx context.Context, s Selection, to objstore.Bucket) ([]Action, error) {
	set, err := o.blocks(ctx)
	if err != nil {
		return nil, err
	}
	blocks, err := s.of(set)
	if err != nil {
		return nil, err
	}
	var actions []Action
	for _, e := range blocks {
		actions = append(actions, Action{
			Do: "copy", Block: e.Meta.ULID, What: fmt.Sprintf("%d bytes", size(e)), Why: "to bucket " + to.Name(),
			run: func(ctx context.Context) error { return o.copyBlock(ctx, e, to) },
		})
	}
	return o.act(ctx, "copy", actions)
}

// copyBlock copies data, then marks, then meta.json.
func (o *Operator) copyBlock(ctx context.Context, e *block.Entry, to objstore.Bucket) error {
	id := e.Meta.ULID
	there, err := blockio.Objects(ctx, to, id)
	if err != nil {
		return fmt.Errorf("look at the other bucket: %w", err)
	}
	if _, ok := there[block.MetaFile]; ok {
		return agree(ctx, e.Meta, to)
	}
	here, err := blockio.Objects(ctx, o.bkt, id) // what was listed for all blocks is old by now
	if err != nil {
		return err
	}
	if _, ok := here[block.MetaFile]; !ok {
		return fmt.Errorf("it has no %s any more", block.MetaFile)
	}
	if err := o.copyData(ctx, e, here, there, to); err != nil {
		return err
	}
	for _, kind := range []block.MarkKind{block.NoCompactMark, block.NoDownsampleMark} {
		if _, ok := here[string(kind)]; ok {
			if err := copyObject(ctx, o.bkt, to, block.MarkName(id, kind), io.Discard); err != nil && !errors.Is(err, bucket.ErrExists) {
				return err
			}
		}
	}
	return copyObject(ctx, o.bkt, to, block.MetaName(id), io.Discard)
}

// copyData copies index and chunks, and asks the other bucket what it has then.
func (o *Operator) copyData(ctx context.Context, e *block.Entry, here, there map[string]int64, to objstore.Bucket) error {
	id := e.Meta.ULID
	meter := newMeter(o.progress, "copy "+id.String(), size(e))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelFiles)
	for _, rel := range slices.Sorted(maps.Keys(here)) {
		if _, ok := there[rel]; ok || !isData(rel) {
			continue
		}
		g.Go(func() error {
			if err := copyObject(gctx, o.bkt, to, block.ObjectName(id, rel), meter); !errors.Is(err, bucket.ErrExists) {
				return err
			}
			return nil // of which size is looked at below
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	there, err := blockio.Objects(ctx, to, id)
	if err != nil {
		return fmt.Errorf("look at the other bucket: %w", err)
	}
	for rel, n := range there {
		if want, ok := here[rel]; isData(rel) && (!ok || want != n) {
			return fmt.Errorf("the other bucket has %s with %d bytes, which is not this block's; remove %s there (cleanup does, once it is two days old) and repeat", rel, n, id)
		}
	}
	for rel, want := range here {
		if _, ok := there[rel]; isData(rel) && !ok {
			return fmt.Errorf("the other bucket lacks %s with %d bytes after the copy; repeat", rel, want)
		}
	}
	return nil
}

// agree reports whether the block in the other bucket is the same one.
func agree(ctx context.Context, meta *block.Meta, to objstore.Bucket) error {
	there, err := blockio.ReadMeta(ctx, to, meta.ULID)
	if err != nil {
		return fmt.Errorf("look at the other bucket: %w", err)
	}
	a, errA := meta.Encode()
	b, errB := there.Encode()
	if err := errors.Join(errA, errB); err != nil {
		return err
	}
	if !bytes.Equal(a, b) {
		return fmt.Errorf("the other bucket has another block of this name: its %s differs", block.MetaFile)
	}
	return errUnchanged
}

// copyObject copies one object to a name that must be free.
func copyObject(ctx context.Context, from bucket.Reader, to objstore.Bucket, name string, meter io.Writer) (err error) {
	r, err := from.Get(ctx, name)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := bucket.UploadIfAbsent(ctx, to, name, io.TeeReader(r, meter)); err != nil {
		return fmt.Errorf("copy %s: %w", name, err)
	}
	return nil
}
