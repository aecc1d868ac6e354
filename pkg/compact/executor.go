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
	"github.com/varve-io/varve/pkg/bucket"
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
	bounds map[block.GroupKey]bound
	board  *board
	holder string
	began  time.Time // of the process, by the clock of now
	// uploadsSeen is when pending uploads were looked at last.
	uploadsSeen time.Time
}

// New returns an executor that works on bkt as blocks describes it.
func New(bkt objstore.Bucket, blocks blockSource, o Options, log *slog.Logger, reg prometheus.Registerer) (*Executor, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make --data-dir: %w", err)
	}
	e := &Executor{
		bkt: watch(bkt), blocks: blocks, opts: o, log: log, metrics: newMetrics(reg), now: time.Now,
		failed: map[string]failure{}, bounds: map[block.GroupKey]bound{}, board: newBoard(), holder: newHolder(), began: time.Now(),
	}
	e.build = e.buildOrBlame
	if reg != nil {
		if err := reg.Register(scraped{e}); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
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
	l := newLeases(e.bkt, e.holder, e.opts.LeaseDuration, e.log)
	ok, err := conditional(ctx, e.bkt, l.holder)
	if err != nil {
		return err
	}
	of := leasesOfStreams
	if !ok {
		of = leaseOfBucket
		l.store, l.whole = advisory{e.bkt}, true
		e.log.Warn("this object storage has no conditional writes, so one process works on the bucket at a time and others stand by", "provider", e.bkt.Provider())
	}
	e.board.leased(of)
	e.leases = l
	return nil
}

// look gives what is in the bucket now and what there is to do there.
func (e *Executor) look(ctx context.Context) (sight, error) {
	now := e.now() // what is seen may be as old as this
	set, err := e.fetch(ctx)
	if err != nil {
		return sight{}, fmt.Errorf("look at the bucket: %w", err)
	}
	set = credible(set, now)
	for _, u := range set.Unreadable {
		e.log.Warn("block is left alone, its meta.json cannot be used", "block", u.ID, "err", u.Err)
	}
	s := sight{at: now, set: set, leaving: e.leaving(set, now), sizes: sizes(set)}
	s.jobs, s.held = planner.Explain(set, e.opts.Policy, now)
	for i, j := range s.jobs {
		s.jobs[i] = e.fit(j, s.sizes)
	}
	for _, n := range e.board.planned(s, neighbours(set, e.began, e.opts.Policy.ReplicaLabels)) {
		e.log.Warn("a Thanos compactor works on a stream of this one; "+remedyNeighbour, "stream", n.Stream, "block", n.Block, "what", n.What, "at", n.At)
	}
	e.metrics.plan(s.jobs)
	return s, nil
}

// fetch looks again where a block could not be read by chance, for a plan without it merges its neighbours: then
// it is merged a second time with what became of them, and replicas that never met are not deduplicated as well
// as together. What still cannot be read is left out, so that one block does not stop all.
func (e *Executor) fetch(ctx context.Context) (*block.Set, error) {
	const tries = 3
	for try := 1; ; try++ {
		set, err := e.blocks.Fetch(ctx)
		if err != nil || try == tries || !slices.ContainsFunc(set.Unreadable, func(u block.Unreadable) bool {
			return errors.Is(u.Err, bucket.ErrTransient)
		}) {
			return set, err
		}
	}
}

// sizes are those of all blocks in bytes, complete or not.
func sizes(set *block.Set) map[ulid.ULID]int64 {
	out := make(map[ulid.ULID]int64, len(set.Blocks)+len(set.Partial))
	for _, b := range set.Blocks {
		out[b.Meta.ULID] = block.Size(b.Objects)
	}
	for _, p := range set.Partial {
		out[p.ID] = block.Size(p.Objects)
	}
	return out
}

// farFuture is how far ahead of the clock a block may reach: further than any range that blocks are cut in.
const farFuture = 30 * 24 * time.Hour

// credible moves blocks whose times cannot be to those whose meta.json cannot be
// used: one such block would overlap with everything that its stream ever gets.
func credible(set *block.Set, now time.Time) *block.Set {
	absurd := func(m *block.Meta) bool {
		return m.MinTime < -farFuture.Milliseconds() || m.MaxTime > now.Add(farFuture).UnixMilli()
	}
	if !slices.ContainsFunc(set.Blocks, func(b *block.Entry) bool { return absurd(b.Meta) }) {
		return set
	}
	out := *set
	out.Unreadable = slices.Clone(set.Unreadable)
	out.Blocks = block.Select(set.Blocks, func(b *block.Entry) bool {
		if !absurd(b.Meta) {
			return true
		}
		err := fmt.Errorf("its time range [%d, %d) lies before 1970 or after %s: %w", b.Meta.MinTime, b.Meta.MaxTime, now.Add(farFuture).UTC().Format(time.RFC3339), block.ErrCorrupt)
		out.Unreadable = append(out.Unreadable, block.Unreadable{ID: b.Meta.ULID, Err: err})
		return false
	})
	return &out
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
