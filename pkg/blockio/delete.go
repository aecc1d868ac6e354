package blockio

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/bucket"
)

// Mark puts a mark beside its block. A mark of that kind that is there already
// stays as it is, time and details included.
func Mark(ctx context.Context, bkt objstore.Bucket, mark block.Mark) error {
	data, err := block.EncodeMark(mark)
	if err != nil {
		return err
	}
	err = bucket.UploadIfAbsent(ctx, bkt, block.MarkName(mark.ID, mark.Kind), bytes.NewReader(data))
	if err != nil && !errors.Is(err, bucket.ErrExists) {
		return fmt.Errorf("put %s of block %s: %w", mark.Kind, mark.ID, err)
	}
	return nil
}

// Unmark removes a mark, if it is there.
func Unmark(ctx context.Context, bkt objstore.Bucket, id ulid.ULID, kind block.MarkKind) error {
	if err := bkt.Delete(ctx, block.MarkName(id, kind)); err != nil && !errors.Is(err, bucket.ErrNotFound) {
		return fmt.Errorf("remove %s of block %s: %w", kind, id, err)
	}
	return nil
}

// Delete removes all objects of a block, complete or not: meta.json first, then
// the data, the deletion mark after them, directory markers at the very end.
// After a crash at any point it is simply called again; a block that is not
// there is no error.
func Delete(ctx context.Context, bkt objstore.Bucket, id ulid.ULID) error {
	return DeleteAll(ctx, bkt, []ulid.ULID{id})
}

// DeleteAll is Delete for several blocks. They go through its steps together, so that a
// store which deletes in batches gets few requests.
func DeleteAll(ctx context.Context, bkt objstore.Bucket, ids []ulid.ULID) error {
	present := make([]map[string]int64, len(ids))
	g, looking := errgroup.WithContext(ctx)
	g.SetLimit(looksAtOnce)
	for i, id := range ids {
		g.Go(func() (err error) {
			if present[i], err = Objects(looking, bkt, id); err != nil {
				return fmt.Errorf("delete block %s: %w", id, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	var steps deletion
	for i, id := range ids {
		steps.add(id, present[i])
	}
	return steps.do(ctx, bkt)
}

// looksAtOnce is of how many blocks is asked at a time what there is.
const looksAtOnce = 16

// Clean removes what an upload left that was never completed. A block that has its
// meta.json by now is left alone.
func Clean(ctx context.Context, bkt objstore.Bucket, id ulid.ULID) error {
	present, err := Objects(ctx, bkt, id)
	if err != nil {
		return fmt.Errorf("clean up block %s: %w", id, err)
	}
	if _, complete := present[block.MetaFile]; complete {
		return nil
	}
	var steps deletion
	steps.add(id, present)
	return steps.do(ctx, bkt)
}

// deletion are the names to delete; each step begins when the one before is done, its
// own names go in any order.
type deletion [4][]string

// add sorts the objects of a block that are present into their steps.
func (d *deletion) add(id ulid.ULID, present map[string]int64) {
	const meta, data, mark, dirs = 0, 1, 2, 3
	for rel := range present {
		step := data
		switch {
		case rel == block.MetaFile:
			step = meta
		case rel == string(block.DeletionMark):
			step = mark
		case rel == "" || strings.HasSuffix(rel, "/"):
			step = dirs
		}
		d[step] = append(d[step], block.ObjectName(id, rel))
	}
}

// namesAtOnce is how many objects go with one call. Where the store deletes one by one it lasts for
// seconds, well below what a lease does.
const namesAtOnce = 250

// do deletes.
func (d *deletion) do(ctx context.Context, bkt objstore.Bucket) error {
	for _, names := range d {
		if len(names) == 0 {
			continue
		}
		// From the last name to the first: a directory's marker goes after what is below it.
		slices.SortFunc(names, func(a, b string) int { return strings.Compare(b, a) })
		for some := range slices.Chunk(names, namesAtOnce) {
			if err := bucket.DeleteAll(ctx, bkt, some); err != nil {
				return fmt.Errorf("delete blocks: %w", err)
			}
		}
	}
	return nil
}
