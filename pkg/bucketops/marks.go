package bucketops

import (
	"context"
	"errors"
	"fmt"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockio"
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
		present, err := blockio.Objects(ctx, o.bkt, m.ID)
		if err != nil {
			return err
		}
		if len(present) == 0 {
			return errors.New("the bucket has no object of this block")
		}
		if _, ok := present[string(m.Kind)]; ok {
			return errUnchanged
		}
		return blockio.Mark(ctx, o.bkt, m)
	}}
}

func (o *Operator) unmark(ctx context.Context, id ulid.ULID, kind block.MarkKind) error {
	present, err := blockio.Objects(ctx, o.bkt, id)
	if err != nil {
		return err
	}
	_, complete := present[block.MetaFile]
	_, marked := present[string(kind)]
	switch {
	case len(present) == 0:
		return errors.New("the bucket has no object of this block")
	case !marked:
		return errUnchanged
	case kind == block.DeletionMark && !complete:
		return fmt.Errorf("it has no %s any more: its deletion has begun and cannot be taken back", block.MetaFile)
	}
	return blockio.Unmark(ctx, o.bkt, id, kind)
}
