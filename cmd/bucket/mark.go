package main

import (
	"context"
	"errors"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/bucketops"
	"github.com/varve-io/varve/pkg/daemon"
)

// marking are the flags of mark and unmark.
type marking struct {
	sel     selection
	kind    string
	details string
	remove  bool
}

func (m *marking) bind(a *app, c *daemon.Command) {
	m.sel.bindIDs(c).Required()
	kinds := make([]string, 0, 3)
	for _, k := range block.MarkKinds() {
		kinds = append(kinds, string(k))
	}
	c.Flag("marker", "The mark: deletion-mark.json, no-compact-mark.json or no-downsample-mark.json.").Required().EnumVar(&m.kind, kinds...)
	a.bindDryRun(c)
	a.bindOutput(c, string(asTable), string(asJSON), string(asTSV))
}

// mark puts marks on blocks.
func (a *app) mark() {
	var m marking
	c := a.command("mark", "Put a mark on blocks: go soon, or leave out of compaction or downsampling.", func(ctx context.Context, e env) (table, error) {
		ids, err := bucketops.ParseIDs(m.sel.ids)
		switch {
		case err != nil:
			return table{}, err
		case m.remove:
			return result(e.op.Unmark(ctx, ids, block.MarkKind(m.kind)))
		case m.details == "":
			return table{}, errors.New("--details is empty; say why, for whoever finds the mark")
		}
		return result(e.op.Mark(ctx, ids, block.MarkKind(m.kind), m.details))
	})
	m.bind(a, c)
	c.Flag("details", "Why, for whoever finds the mark.").StringVar(&m.details)
	c.Flag("remove", "Remove the mark, as unmark does.").BoolVar(&m.remove)
}

// unmark takes marks away.
func (a *app) unmark() {
	var m marking
	c := a.command("unmark", "Take a mark away from blocks.", func(ctx context.Context, e env) (table, error) {
		ids, err := bucketops.ParseIDs(m.sel.ids)
		if err != nil {
			return table{}, err
		}
		return result(e.op.Unmark(ctx, ids, block.MarkKind(m.kind)))
	})
	m.bind(a, c)
}

// result is what was done to a bucket, or would be.
func result(actions []bucketops.Action, err error) (table, error) {
	t := table{header: []string{"ACTION", "BLOCK", "WHAT", "STATUS", "WHY"}}
	for _, a := range actions {
		t.add(a, a.Do, a.Block.String(), a.What, a.Status, a.Why)
	}
	return t, err
}
