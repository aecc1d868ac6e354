package bucketops

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockio"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/planner"
)

// plan gives what the compactor would do to the selected blocks under the policy.
// It looks at all blocks, for some are kept on behalf of others.
func (o *Operator) plan(ctx context.Context, s Selection, p planner.Policy) ([]planner.Job, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	set, err := o.blocks(ctx)
	if err != nil {
		return nil, err
	}
	part, err := s.within(set)
	if err != nil {
		return nil, err
	}
	chosen := map[ulid.ULID]bool{}
	for _, e := range part.Blocks {
		chosen[e.Meta.ULID] = true
	}
	for _, u := range part.Partial {
		chosen[u.ID] = true
	}
	return slices.DeleteFunc(planner.Plan(set, p, o.now()), func(j planner.Job) bool { return !chosen[subject(j)] }), nil
}

// subject is the block that a job of one block is about.
func subject(j planner.Job) ulid.ULID {
	switch j := j.(type) {
	case planner.Downsample:
		return j.Source.ULID
	case planner.Expire:
		return j.Block.ULID
	case planner.Retire:
		return j.ID
	case planner.Delete:
		return j.ID
	case planner.Clean:
		return j.ID
	}
	return ulid.ULID{} // a merge
}

// Cleanup removes the blocks whose deletion mark is old enough, and what is left
// of uploads that never came to their end, those included of which only the store
// has parts.
func (o *Operator) Cleanup(ctx context.Context, s Selection, p planner.Policy) ([]Action, error) {
	jobs, err := o.plan(ctx, s, p)
	if err != nil {
		return nil, err
	}
	var actions []Action
	for _, j := range jobs {
		var why string
		remove := blockio.Delete
		switch j.(type) {
		case planner.Delete:
			why = fmt.Sprintf("marked for deletion at least %s ago", p.DeleteDelay)
		case planner.Clean:
			remove = blockio.Clean
			why = fmt.Sprintf("an upload that has not gone on for %s", p.PartialAge)
		default:
			continue
		}
		id := subject(j)
		actions = append(actions, Action{Do: "delete", Block: id, What: "all objects", Why: why, run: func(ctx context.Context) error {
			return remove(ctx, o.bkt, id)
		}})
	}
	aborts, err := o.abandoned(ctx, s, p)
	if err != nil {
		return nil, err
	}
	return o.act(ctx, "delete", append(actions, aborts...))
}

// abandoned gives the uploads of blocks' objects that were begun long ago and never
// completed. What is selected by its name or its labels has none: they belong to no block yet.
func (o *Operator) abandoned(ctx context.Context, s Selection, p planner.Policy) ([]Action, error) {
	if !s.byName() {
		return nil, nil
	}
	var actions []Action
	err := bucket.PendingUploads(ctx, o.bkt, "", func(u bucket.PendingUpload) error {
		id, rel, ok := block.ParseName(u.Name)
		if ok && !o.now().Before(u.Begun.Add(p.PartialAge)) {
			actions = append(actions, Action{
				Do: "abort", Block: id, What: "the upload of " + rel, Why: "begun " + u.Begun.UTC().Format(time.RFC3339) + " and never completed",
				run: func(ctx context.Context) error { return bucket.AbortUpload(ctx, o.bkt, u) },
			})
		}
		return nil
	})
	if errors.Is(err, errors.ErrUnsupported) {
		o.log.Info("this object storage shows no unfinished uploads; its lifecycle rules have to remove them", "provider", o.bkt.Provider())
		return nil, nil
	}
	return actions, err
}

// Retention marks the blocks that are past their retention, unless a coarser
// resolution that is kept for longer has still to be made of them.
func (o *Operator) Retention(ctx context.Context, s Selection, p planner.Policy) ([]Action, error) {
	jobs, err := o.plan(ctx, s, p)
	if err != nil {
		return nil, err
	}
	var actions []Action
	for _, j := range jobs {
		if e, ok := j.(planner.Expire); ok {
			actions = append(actions, o.markAction(block.Mark{Kind: block.DeletionMark, ID: e.Block.ULID, Details: e.Reason}))
		}
	}
	return o.act(ctx, "mark", actions)
}

// Downsample makes the coarser blocks that the compactor would make, under the
// same names. With --dry-run those that come of blocks yet to be made are not shown.
func (o *Operator) Downsample(ctx context.Context, s Selection, p planner.Policy) ([]Action, error) {
	var all []Action
	var errs []error
	tried := map[string]bool{}
	for {
		jobs, err := o.plan(ctx, s, p)
		if err != nil {
			return all, errors.Join(append(errs, err)...)
		}
		var actions []Action
		for _, j := range jobs {
			d, ok := j.(planner.Downsample)
			if !ok || tried[d.String()] {
				continue
			}
			tried[d.String()] = true
			actions = append(actions, o.downsampleAction(d))
		}
		if len(actions) == 0 {
			return all, errors.Join(errs...)
		}
		done, err := o.act(ctx, "downsample", actions)
		all, errs = append(all, done...), append(errs, err)
		if o.opts.DryRun || ctx.Err() != nil {
			return all, errors.Join(errs...)
		}
	}
}
