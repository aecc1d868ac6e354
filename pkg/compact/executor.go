package compact

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/planner"
)

// blockSource says what is in the bucket now.
type blockSource interface {
	Fetch(ctx context.Context) (*block.Set, error)
}

// Executor carries out what the planner wants until nothing is left.
type Executor struct {
	bkt     objstore.Bucket
	blocks  blockSource
	opts    Options
	log     *slog.Logger
	metrics *metrics
	now     func() time.Time
}

// New returns an executor that works on bkt as blocks describes it.
func New(bkt objstore.Bucket, blocks blockSource, o Options, log *slog.Logger, reg prometheus.Registerer) (*Executor, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make --data-dir: %w", err)
	}
	if _, ok := bkt.(bucket.Versioned); !ok {
		log.Warn("this object storage has no conditional writes: run one compactor per bucket", "provider", bkt.Provider())
	}
	return &Executor{bkt: bkt, blocks: blocks, opts: o, log: log, metrics: newMetrics(reg), now: time.Now}, nil
}

// Run plans and works until no job is left but those that ended in an error in
// this run. The error joins theirs; the next run tries them again. It is not to
// be called by two goroutines at once.
func (e *Executor) Run(ctx context.Context) error {
	gaveUp := map[string]error{}
	for {
		jobs, err := e.plan(ctx)
		if err != nil {
			return err
		}
		e.metrics.plan(jobs)
		jobs = slices.DeleteFunc(jobs, func(j planner.Job) bool { return gaveUp[j.String()] != nil })
		if len(jobs) == 0 {
			return join(gaveUp)
		}
		maps.Copy(gaveUp, e.runAll(ctx, jobs))
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

func (e *Executor) plan(ctx context.Context) ([]planner.Job, error) {
	set, err := e.blocks.Fetch(ctx)
	if err != nil {
		return nil, fmt.Errorf("look at the bucket: %w", err)
	}
	for _, u := range set.Unreadable {
		e.log.Warn("block is left alone, its meta.json cannot be used", "block", u.ID, "err", u.Err)
	}
	return planner.Plan(set, e.opts.Policy, e.now()), nil
}

// join sums the errors up in the order of their jobs.
func join(byJob map[string]error) error {
	var errs []error
	for _, job := range slices.Sorted(maps.Keys(byJob)) {
		errs = append(errs, byJob[job])
	}
	return errors.Join(errs...)
}

// runAll runs independent jobs, some at a time, and returns the errors by job.
func (e *Executor) runAll(ctx context.Context, jobs []planner.Job) map[string]error {
	var (
		mu   sync.Mutex
		errs = map[string]error{}
		wg   sync.WaitGroup
		gate = make(chan struct{}, e.opts.Concurrency)
	)
	for _, j := range jobs {
		gate <- struct{}{}
		wg.Go(func() {
			defer func() { <-gate }()
			if err := e.run(ctx, j); err != nil {
				mu.Lock()
				errs[j.String()] = err
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return errs
}
