package main

import (
	"context"
	"time"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/bucketops"
	"github.com/varve-io/varve/pkg/daemon"
	"github.com/varve-io/varve/pkg/planner"
)

// ruled are the flags of the commands that do by hand, once, what the compactor
// does by its policy.
type ruled struct {
	sel    selection
	policy planner.Policy
	// do is the operation; it is set before the command runs.
	do func(op *bucketops.Operator, ctx context.Context, s bucketops.Selection, p planner.Policy) ([]bucketops.Action, error)
}

// rule declares such a command.
func (a *app) rule(name, help string, r *ruled) *daemon.Command {
	r.policy = planner.Defaults()
	c := a.command(name, help, func(ctx context.Context, e env) (table, error) {
		chosen, err := r.sel.read()
		if err != nil {
			return table{}, err
		}
		return result(r.do(e.op, ctx, chosen, r.policy))
	})
	a.bindDryRun(c)
	a.bindOutput(c, string(asTable), string(asJSON), string(asTSV))
	r.sel.bindLabels(c)
	c.Duration("consistency-delay", "Age that a block must have to be touched, unless a compactor wrote it.", &r.policy.ConsistencyDelay)
	return c
}

// cleanup removes blocks that were marked, and unfinished uploads.
func (a *app) cleanup() {
	r := &ruled{do: (*bucketops.Operator).Cleanup}
	c := a.rule("cleanup", "Remove blocks whose deletion mark is old enough, and unfinished uploads older than two days, parts included that no listing shows.", r)
	c.Duration("delete-delay", "Time between the mark on a block and its deletion.", &r.policy.DeleteDelay)
}

// retention marks blocks that are past their retention.
func (a *app) retention() {
	resolutions := []block.Resolution{block.Raw, block.FiveMin, block.OneHour}
	keep := make([]time.Duration, len(resolutions))
	r := &ruled{do: func(op *bucketops.Operator, ctx context.Context, s bucketops.Selection, p planner.Policy) ([]bucketops.Action, error) {
		for i, resolution := range resolutions {
			p.Retention[resolution] = keep[i]
		}
		return op.Retention(ctx, s, p)
	}}
	c := a.rule("retention", "Mark the blocks that are past their retention for deletion. cleanup, or a compactor, removes them.", r)
	for i, resolution := range resolutions {
		c.Duration("retention.resolution-"+resolution.String(), "How long "+resolution.String()+" samples are kept; 0s for ever. They stay in any case until what outlives them is made of them.", &keep[i])
	}
	c.Flag("downsampling.disable", "Wait for no blocks of coarser resolutions.").BoolVar(&r.policy.NoDownsampling)
	c.List("deduplication.replica-label", "External label on which replicas differ, as the compactor has it.", &r.policy.ReplicaLabels)
	c.Ignore(daemon.Ignored{Name: "delete-delay", Reason: "cleanup obeys it; this command marks"})
}

// downsample makes coarser blocks.
func (a *app) downsample() {
	r := &ruled{do: (*bucketops.Operator).Downsample}
	c := a.rule("downsample", "Make the 5m and 1h blocks that the compactor would make.", r)
	c.List("deduplication.replica-label", "External label on which replicas differ, as the compactor has it.", &r.policy.ReplicaLabels)
	c.Ignore(
		daemon.Ignored{Name: "wait-interval", Reason: "the bucket is looked at until nothing is left to do"},
		daemon.Ignored{Name: "downsample.concurrency"},
	)
}
