package compact

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/planner"
)

// blockSource says what is in the bucket now.
type blockSource interface {
	Fetch(ctx context.Context) (*block.Set, error)
}

// Executor carries out what the planner wants until nothing is left. Any number of
// them, in any number of processes, may work on one bucket.
type Executor struct {
	bkt     objstore.Bucket
	blocks  blockSource
	opts    Options
	log     *slog.Logger
	metrics *metrics
	now     func() time.Time
	// build makes a block and puts it into its bucket, meta.json last.
	build func(ctx context.Context, o output) error

	leases *leases            // nil before the first run
	failed map[string]failure // by the job's text
}

// New returns an executor that works on bkt as blocks describes it.
func New(bkt objstore.Bucket, blocks blockSource, o Options, log *slog.Logger, reg prometheus.Registerer) (*Executor, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make --data-dir: %w", err)
	}
	e := &Executor{bkt: bkt, blocks: blocks, opts: o, log: log, metrics: newMetrics(reg), now: time.Now, failed: map[string]failure{}}
	e.build = e.buildBlock
	return e, nil
}

// Run plans and works until nothing is left that this process could do: what
// other compactors have leased is theirs. A job that ends in an error does not
// keep others from being done and is tried again a few times; the error joins
// those that stayed. Run is not to be called by two goroutines at once.
func (e *Executor) Run(ctx context.Context) error {
	if e.leases == nil {
		if err := e.openLeases(ctx); err != nil {
			return err
		}
	}
	return e.newSchedule().run(ctx)
}

// openLeases finds out whether the store can tell compactors apart.
func (e *Executor) openLeases(ctx context.Context) error {
	l := newLeases(e.bkt, e.opts.LeaseDuration, e.log)
	ok, err := conditional(ctx, e.bkt, l.holder)
	if err != nil {
		return err
	}
	if !ok {
		l.store, l.whole = advisory{e.bkt}, true
		e.log.Warn("this object storage has no conditional writes, so one process works on the bucket at a time: run one compactor", "provider", e.bkt.Provider())
	}
	e.leases = l
	return nil
}

// look gives what there is to do in the bucket now, and the names that no job may write to.
func (e *Executor) look(ctx context.Context) ([]planner.Job, map[ulid.ULID]bool, error) {
	now := e.now() // what is seen may be as old as this
	set, err := e.blocks.Fetch(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("look at the bucket: %w", err)
	}
	for _, u := range set.Unreadable {
		e.log.Warn("block is left alone, its meta.json cannot be used", "block", u.ID, "err", u.Err)
	}
	jobs := planner.Plan(set, e.opts.Policy, now)
	e.metrics.plan(jobs)
	return jobs, e.leaving(set, now), nil
}

// leaving are the blocks that are on their way out, complete or not: a job that
// wrote to one of them would meet its deletion, perhaps by another process. What
// was begun long ago counts before its time to be removed has come.
func (e *Executor) leaving(set *block.Set, now time.Time) map[ulid.ULID]bool {
	out := map[ulid.ULID]bool{}
	for _, b := range set.Blocks {
		if b.Deletion != nil {
			out[b.Meta.ULID] = true
		}
	}
	for _, p := range set.Partial {
		if p.Deletion != nil || now.Sub(p.LastModified) > e.opts.Policy.PartialAge/2 {
			out[p.ID] = true
		}
	}
	return out
}

// join sums the errors up in the order of their jobs.
func join(byJob map[string]error) error {
	var errs []error
	for _, job := range slices.Sorted(maps.Keys(byJob)) {
		errs = append(errs, byJob[job])
	}
	return errors.Join(errs...)
}
