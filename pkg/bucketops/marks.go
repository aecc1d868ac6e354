package bucketops

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockio"
	"github.com/varve-io/varve/pkg/bucket"
)

// manual is the machine-readable reason of marks that a person sets; planner
// treats them as the person's will.
const manual = "manual"

// Mark puts a mark on blocks, complete or not. A mark that is there stays as it is.
func (o *Operator) Mark(ctx context.Context, ids []ulid.ULID, kind block.MarkKind, details string) ([]Action, error) {
	var actions []Action
	for _, id := range ids {
		actions = append(actions, o.markAction(block.Mark{Kind: kind, ID: id, Details: details, Reason: manual}))
	}
	return o.act(ctx, "mark", actions)
}

// Unmark takes a mark away from blocks.
func (o *Operator) Unmark(ctx context.Context, ids []ulid.ULID, kind block.MarkKind) ([]Action, error) {
	var actions []Action
	for _, id := range ids {
		actions = append(actions, Action{Do: "unmark", Block: id, What: string(kind), run: func(ctx context.Context) error {
			return o.unmark(ctx, id, kind)
		}})
	}
	return o.act(ctx, "unmark", actions)
}

// markAction puts a mark on a block of the bucket.
func (o *Operator) markAction(m block.Mark) Action {
	m.Time = o.now().Unix()
	if m.Kind == block.DeletionMark {
		m.Reason = ""
	}
	return Action{Do: "mark", Block: m.ID, What: string(m.Kind), Why: m.Details, run: func(ctx context.Context) error {
		names, err := objectsOf(ctx, o.bkt, m.ID)
		switch {
		case err != nil:
			return err
		case len(names) == 0:
			return errors.New("the bucket has no object of this block")
		case slices.Contains(names, string(m.Kind)):
			return errUnchanged
		}
		return blockio.Mark(ctx, o.bkt, m)
	}}
}

func (o *Operator) unmark(ctx context.Context, id ulid.ULID, kind block.MarkKind) error {
	names, err := objectsOf(ctx, o.bkt, id)
	switch {
	case err != nil:
		return err
	case len(names) == 0:
		return errors.New("the bucket has no object of this block")
	case !slices.Contains(names, string(kind)):
		return errUnchanged
	case kind == block.DeletionMark && !slices.Contains(names, block.MetaFile):
		return fmt.Errorf("it has no %s any more: its deletion has begun and cannot be taken back", block.MetaFile)
	}
	return blockio.Unmark(ctx, o.bkt, id, kind)
}

// objectsOf gives the names of a block's objects relative to its directory.
func objectsOf(ctx context.Context, bkt objstore.Bucket, id ulid.ULID) (names []string, err error) {
	err = bucket.List(ctx, bkt, block.ObjectName(id, ""), "", func(o bucket.Object) error {
		if _, rel, ok := block.ParseName(o.Name); ok {
			names = append(names, rel)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list objects of block %s: %w", id, err)
	}
	return names, nil
}
