package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/daemon"
)

// replication are the flags of replicate.
type replication struct {
	sel         selection
	to          bucket.Options
	resolutions []string
	min, max    int
	levels      []int
	matcher     string
}

// replicate copies blocks into another bucket.
func (a *app) replicate() {
	var r replication
	c := a.command("replicate", "Copy blocks into another bucket, the oldest first, each with its meta.json last; what is there is not copied again.", func(ctx context.Context, e env) (t table, err error) {
		chosen, err := r.sel.read()
		if err != nil {
			return t, err
		}
		if !r.to.Configured() {
			return t, errors.New("nowhere to copy to; give --objstore-to.config or --objstore-to.config-file")
		}
		if err := r.narrow(&chosen.Resolutions); err != nil {
			return t, err
		}
		if r.matcher != "" {
			if chosen.Matchers, err = parser.NewParser(parser.Options{}).ParseMetricSelector(r.matcher); err != nil {
				return t, fmt.Errorf("--matcher=%s: %w", r.matcher, err)
			}
		}
		if len(chosen.IDs) == 0 {
			chosen.Levels = r.wants
		} else { // blocks that are named are meant
			chosen.Resolutions, chosen.Matchers = nil, nil
		}
		to, err := bucket.Open(ctx, r.to, e.log, prometheus.NewRegistry())
		if err != nil {
			return t, fmt.Errorf("open --objstore-to.config: %w", err)
		}
		defer func() { err = errors.Join(err, to.Close()) }()
		return result(e.op.Replicate(ctx, chosen, to))
	})
	c.Flag("objstore-to.config", "Object storage to copy to, as objstore's YAML.").PlaceHolder("<content>").StringVar(&r.to.Config)
	c.Flag("objstore-to.config-file", "Path of a file with that YAML.").PlaceHolder("<path>").StringVar(&r.to.ConfigFile)
	a.bindDryRun(c)
	a.bindOutput(c, string(asTable), string(asJSON), string(asTSV))
	r.sel.bindIDs(c)
	r.sel.bindTimes(c)
	c.Flag("matcher", `External labels of the blocks to copy, as {cluster=~"a|b"}.`).StringVar(&r.matcher)
	c.Flag("resolution", "Resolution to copy: 0s, 5m or 1h; may be repeated.").Default("0s", "5m", "1h").StringsVar(&r.resolutions)
	c.Flag("compaction-min", "Lowest compaction level to copy.").Default("1").IntVar(&r.min)
	c.Flag("compaction-max", "Highest compaction level to copy; 0 for no limit.").Default("0").IntVar(&r.max)
	c.Flag("compaction", "Compaction level to copy, in place of a range; may be repeated.").IntsVar(&r.levels)
	c.Flag("ignore-marked-for-deletion", "Leave out blocks that are marked for deletion.").BoolVar(&r.sel.chosen.Unmarked)
	c.Ignore(daemon.Ignored{Name: "single-run", Switch: true, Reason: "every run is a single one"})
}

// wants reports whether blocks of a level are copied.
func (r *replication) wants(level int) bool {
	if len(r.levels) > 0 {
		return slices.Contains(r.levels, level)
	}
	return level >= r.min && (r.max == 0 || level <= r.max)
}

// narrow reads the resolutions.
func (r *replication) narrow(dst *[]block.Resolution) error {
	for _, text := range r.resolutions {
		d, err := time.ParseDuration(text)
		resolution := block.Resolution(d.Milliseconds())
		if err != nil || !resolution.Known() {
			return fmt.Errorf("--resolution=%s: give 0s, 5m or 1h", text)
		}
		*dst = append(*dst, resolution)
	}
	return nil
}
