package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/varve-io/varve/pkg/blockscan"
	"github.com/varve-io/varve/pkg/bucketops"
	"github.com/varve-io/varve/pkg/daemon"
)

// verify reads blocks and lists what is wrong with them.
func (a *app) verify() {
	var sel selection
	c := a.command("verify", "Read blocks wholly and list what is wrong with them, by file and offset.", func(ctx context.Context, e env) (table, error) {
		chosen, err := sel.read()
		if err != nil {
			return table{}, err
		}
		verdicts, err := e.op.Verify(ctx, chosen)
		e.log.Info("blocks read", "blocks", len(verdicts))
		return findings(verdicts), err
	})
	a.bindOutput(c, string(asTable), string(asJSON), string(asTSV))
	sel.bindIDs(c)
	sel.bindTimes(c)
	sel.bindLabels(c)
	c.Ignore(
		daemon.Ignored{Name: "issues", Reason: "everything is checked"},
		daemon.Ignored{Name: "delete-delay", Reason: "nothing is deleted"},
		daemon.Ignored{Name: "objstore-backup.config", Reason: "nothing is deleted"},
		daemon.Ignored{Name: "objstore-backup.config-file", Reason: "nothing is deleted"},
		daemon.Ignored{Name: "repair", Switch: true, Refused: true, Reason: "use the command repair, which keeps the source"},
	)
	c.GetFlag("issues").Short('i')
	c.GetFlag("repair").Short('r')
}

// findings has a row for each finding; in JSON there is an object for each block, sound ones included.
func findings(verdicts []bucketops.Verdict) table {
	t := table{header: []string{"BLOCK", "FILE", "OFFSET", "KIND", "DETAIL"}}
	for _, v := range verdicts {
		t.objects = append(t.objects, v)
		for _, f := range v.Findings {
			offset := "-"
			if f.Offset != blockscan.Whole {
				offset = strconv.FormatInt(f.Offset, 10)
			}
			t.rows = append(t.rows, []string{v.Block.String(), f.File, offset, string(f.Kind), f.Detail})
		}
		if v.More > 0 {
			t.rows = append(t.rows, []string{v.Block.String(), "-", "-", "-", fmt.Sprintf("and %d more", v.More)})
		}
	}
	return t
}
