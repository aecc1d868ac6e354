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
	present, err := Objects(ctx, bkt, id)
	if err != nil {
		return fmt.Errorf("delete block %s: %w", id, err)
	}
	return remove(ctx, bkt, id, present)
}

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
	return remove(ctx, bkt, id, present)
}

// remove deletes the objects of a block that are present.
func remove(ctx context.Context, bkt objstore.Bucket, id ulid.ULID, present map[string]int64) error {
	for _, names := range deletionSteps(id, present) {
		if err := bucket.DeleteAll(ctx, bkt, names); err != nil {
			return fmt.Errorf("delete block %s: %w", id, err)
		}
	}
	return nil
}

// deletionSteps gives the names to delete; each step begins when the one before
// is done, its own names go in any order.
func deletionSteps(id ulid.ULID, present map[string]int64) [][]string {
	const meta, data, mark, dirs = 0, 1, 2, 3
	steps := make([][]string, 4)
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
		steps[step] = append(steps[step], block.ObjectName(id, rel))
	}
	kept := steps[:0]
	for _, names := range steps {
		if len(names) > 0 {
			// From the last name to the first: a directory's marker goes after what is below it.
			slices.SortFunc(names, func(a, b string) int { return strings.Compare(b, a) })
			kept = append(kept, names)
		}
	}
	return kept
}
