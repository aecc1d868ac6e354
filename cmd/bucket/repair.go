package main

import (
	"context"
	"fmt"

	"github.com/varve-io/varve/pkg/bucketops"
	"github.com/varve-io/varve/pkg/daemon"
)

// repair makes sound blocks of broken ones.
func (a *app) repair() {
	var sel selection
	var how bucketops.Repairing
	c := a.command("repair", "Make a new block of all that can be read of a broken one, and list what is lost.", func(ctx context.Context, e env) (table, error) {
		ids, err := bucketops.ParseIDs(sel.ids)
		if err != nil {
			return table{}, err
		}
		return result(e.op.Repair(ctx, ids, how))
	})
	sel.bindIDs(c).Required()
	c.List("deduplication.replica-label", "External label on which replicas differ. What is lost is filled from the blocks of other replicas; without the flag it is not.", &how.ReplicaLabels)
	c.Flag("delete-source", "Mark the broken block for deletion, too. A compactor does so in any case when it finds the new one.").BoolVar(&how.DeleteSource)
	a.bindDryRun(c)
	a.bindOutput(c, string(asTable), string(asJSON), string(asTSV))
}

// rewrite drops and relabels series.
func (a *app) rewrite() {
	var sel selection
	var how bucketops.Rewriting
	var deletions, rules *daemon.Content
	c := a.command("rewrite", "Make a new block of one, without some series or samples, or with other labels. Without --no-dry-run it only says what would change.", func(ctx context.Context, e env) (table, error) {
		ids, err := bucketops.ParseIDs(sel.ids)
		if err != nil {
			return table{}, err
		}
		toDelete, err := deletions.Read()
		if err != nil {
			return table{}, err
		}
		if how.Deletions, err = bucketops.ParseDeletions(toDelete); err != nil {
			return table{}, fmt.Errorf("--rewrite.to-delete-config: %w", err)
		}
		toRelabel, err := rules.Read()
		if err != nil {
			return table{}, err
		}
		if how.Rules, err = bucketops.ParseRules(toRelabel); err != nil {
			return table{}, fmt.Errorf("--rewrite.to-relabel-config: %w", err)
		}
		how.Text = string(toDelete) + "\n" + string(toRelabel)
		return result(e.op.Rewrite(ctx, ids, how))
	})
	sel.bindIDs(c).Required()
	deletions = c.Content("rewrite.to-delete-config", "What is to be deleted: a list of matchers (a metric selector) and intervals (mint and maxt in milliseconds; none for all).")
	rules = c.Content("rewrite.to-relabel-config", "Relabel rules for what is left. A series that they drop, or that loses all labels, is dropped.")
	c.Flag("delete-blocks", "Mark the blocks that were rewritten for deletion, too. A compactor does so in any case when it finds the new ones.").BoolVar(&how.DeleteSource)
	c.Flag("dry-run", "Say what would change, and do nothing.").Default("true").BoolVar(&a.options.DryRun)
	c.Flag("tmp.dir", "As --data-dir.").StringVar(&a.options.Dir)
	a.bindOutput(c, string(asTable), string(asJSON), string(asTSV))
	c.Ignore(
		daemon.Ignored{Name: "prom-blocks", Switch: true, Reason: "blocks without external labels never reach a bucket"},
		daemon.Ignored{Name: "rewrite.add-change-log", Switch: true, Reason: "the result says what changed"},
	)
}
