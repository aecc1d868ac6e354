package compact

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockio"
	"github.com/varve-io/varve/pkg/blockwriter"
	"github.com/varve-io/varve/pkg/panics"
	"github.com/varve-io/varve/pkg/planner"
)

// The kinds of jobs, for metrics, logs and places.
const (
	kindCompact    = "compact"
	kindDownsample = "downsample"
	kindExpire     = "expire"
	kindRetire     = "retire"
	kindDelete     = "delete"
	kindClean      = "clean"
)

func kinds() []string {
	return []string{kindCompact, kindDownsample, kindExpire, kindRetire, kindDelete, kindClean}
}

func kindOf(j planner.Job) string {
	switch j.(type) {
	case planner.Compact:
		return kindCompact
	case planner.Downsample:
		return kindDownsample
	case planner.Expire:
		return kindExpire
	case planner.Retire:
		return kindRetire
	case planner.Delete:
		return kindDelete
	case planner.Clean:
		return kindClean
	}
	return "unknown"
}

// do does a job, or small ones of the same kind together, and logs how that ended. The
// context is that of their lease.
func (e task) do(ctx context.Context, jobs []planner.Job) error {
	kind := kindOf(jobs[0])
	began := time.Now()
	err := panics.Caught(func() error { return e.run(withProgress(ctx, e.moved), jobs) })
	err = leaseEnd(ctx, err)
	for _, j := range jobs {
		switch {
		case err == nil:
			e.metrics.jobs.WithLabelValues(kind).Inc()
			e.log.Info("job done", "kind", kind, "job", j, "took", time.Since(began).Round(time.Millisecond))
		case ctx.Err() == nil:
			e.metrics.failures.WithLabelValues(kind).Inc()
			e.log.Warn("job ended with an error", "kind", kind, "class", classify(err), "job", j, "err", err)
		}
	}
	return err
}

// task is a job at work, or several small ones, with the bucket as its lease lets it see it.
type task struct {
	*Executor
	bkt     objstore.Bucket
	leaving map[ulid.ULID]bool // names that its output may not have
	looked  time.Time          // when that was known
	moved   *progress
}

func (e task) run(ctx context.Context, jobs []planner.Job) error {
	switch j := jobs[0].(type) {
	case planner.Compact:
		return e.compact(ctx, j)
	case planner.Downsample:
		return e.downsample(ctx, j)
	case planner.Clean:
		return blockio.Clean(ctx, e.bkt, j.ID)
	case planner.Expire, planner.Retire, planner.Delete:
		return e.all(ctx, jobs)
	}
	return fmt.Errorf("a job of type %T is not known here", jobs[0])
}

// all does small jobs together.
func (e task) all(ctx context.Context, jobs []planner.Job) error {
	var marks []block.Mark
	var gone []ulid.ULID
	for _, j := range jobs {
		switch j := j.(type) {
		case planner.Expire:
			marks = append(marks, deletion(j.Block.ULID, j.Reason))
		case planner.Retire:
			marks = append(marks, deletion(j.ID, "replaced by "+j.By.String()))
		case planner.Delete:
			gone = append(gone, j.ID)
		}
	}
	return errors.Join(e.mark(ctx, marks...), blockio.DeleteAll(ctx, e.bkt, gone))
}

// compact writes the block that replaces the sources, or its shards one after the
// other, then marks the sources.
func (e task) compact(ctx context.Context, j planner.Compact) error {
	var made []string
	for _, shard := range j.Into {
		id, err := e.buildAny(ctx, func(attempt int) output { return e.free(e.merged(j, shard, attempt)) })
		if errors.Is(err, errEmpty) {
			break // it is the whole
		}
		if err != nil {
			return e.setAside(ctx, beyond(j, err), block.NoCompactMark)
		}
		made = append(made, id.String())
	}
	details := "it has no sample"
	if len(made) > 0 {
		details = "replaced by " + strings.Join(made, ", ")
	}
	marks := make([]block.Mark, len(j.Sources))
	for i, m := range j.Sources {
		marks[i] = deletion(m.ULID, details)
	}
	return e.mark(ctx, marks...)
}

// beyond blames the larger of two blocks if no job can be so small that its output has room in the format.
func beyond(j planner.Compact, err error) error {
	if len(j.Sources) > fewest || j.Splittable() || !errors.Is(err, blockwriter.ErrTooLarge) {
		return err
	}
	return &corruptError{largest(j.Sources), tooLarge, err}
}

// free leaves out coarser forms whose names are being removed; jobs of their own find other names.
func (e task) free(o output) output {
	if n := slices.IndexFunc(o.beside, func(m *block.Meta) bool { return e.leaving[m.ULID] }); n >= 0 {
		o.beside = o.beside[:n]
	}
	return o
}

// downsample writes the coarser form of a block.
func (e task) downsample(ctx context.Context, j planner.Downsample) error {
	_, err := e.buildAny(ctx, func(attempt int) output { return downsampled(j, attempt) })
	if errors.Is(err, errEmpty) {
		return e.mark(ctx, block.Mark{
			Kind: block.NoDownsampleMark, ID: j.Source.ULID,
			Reason: "empty", Details: "it has no sample that could be downsampled",
		})
	}
	if err != nil {
		return e.setAside(ctx, err, block.NoDownsampleMark)
	}
	return nil
}

// errTooLong ends a job that took so long that its output may be cleaned up as unfinished.
var errTooLong = errors.New("job took too long")

// maxAttempts bounds how often a block is given another name because the bucket
// holds something else under the one it should have.
const maxAttempts = 3

// touches gives the blocks that a job reads, changes, or may write. What it may write can be there
// already, and be on its way out: coarser blocks are complete before what they are made beside.
func (e *Executor) touches(j planner.Job) []ulid.ULID {
	ids := j.Blocks()
	for attempt := range maxAttempts {
		var outputs []output
		switch j := j.(type) {
		case planner.Compact:
			for _, shard := range j.Into {
				outputs = append(outputs, e.merged(j, shard, attempt))
			}
		case planner.Downsample:
			outputs = append(outputs, downsampled(j, attempt))
		case planner.Clean, planner.Expire, planner.Retire, planner.Delete:
			return ids
		}
		for _, o := range outputs {
			ids = append(ids, o.meta.ULID)
			for _, m := range o.beside {
				ids = append(ids, m.ULID)
			}
		}
	}
	return ids
}

// buildAny builds the output of the first attempt that the bucket has room for and returns its name.
//
// What an earlier attempt left in the bucket is continued if it is younger than half
// the age at which it is cleaned up. A job that did not end in half of what is left
// until then is given up: another process could clean up what it completes.
func (e task) buildAny(ctx context.Context, describe func(attempt int) output) (id ulid.ULID, err error) {
	limit := e.opts.Policy.PartialAge / 4
	ctx, cancel := context.WithDeadlineCause(ctx, e.looked.Add(limit), errTooLong)
	defer cancel()
	defer func() {
		if err != nil && errors.Is(context.Cause(ctx), errTooLong) {
			err = fmt.Errorf("not done within %s: %w; lower --compact.concurrency, or give the process more CPU time and bandwidth", limit, errTooLong)
		}
	}()
	for attempt := range maxAttempts {
		o := describe(attempt)
		if e.leaving[o.meta.ULID] {
			err = fmt.Errorf("write block %s: one of that name is being removed: %w", o.meta.ULID, blockio.ErrConflict)
			continue
		}
		o.into = e.bkt
		if err = e.build(ctx, o); err == nil {
			for _, m := range append(o.beside, o.meta) {
				if !m.Thanos.UploadTime.IsZero() {
					e.metrics.samples.WithLabelValues(m.Resolution().String()).Add(float64(m.Stats.NumSamples))
				}
			}
			return o.meta.ULID, nil
		}
		if !errors.Is(err, blockio.ErrConflict) {
			break
		}
	}
	return id, err
}

// setAside marks the block that is to blame for the error of a job, so that the
// next plan goes on without it, and returns the error.
func (e task) setAside(ctx context.Context, err error, kind block.MarkKind) error {
	corrupt, ok := errors.AsType[*corruptError](err)
	if !ok {
		return err
	}
	mark := block.Mark{Kind: kind, ID: corrupt.id, Reason: string(corrupt.reason), Details: corrupt.err.Error()}
	if markErr := e.mark(ctx, mark); markErr != nil {
		return errors.Join(err, markErr)
	}
	e.metrics.quarantined.WithLabelValues(string(corrupt.reason)).Inc()
	return err
}

// largest is the block with the most series: what it is merged with is too large whatever it is.
func largest(sources []*block.Meta) ulid.ULID {
	return slices.MaxFunc(sources, func(a, b *block.Meta) int { return cmp.Compare(a.Stats.NumSeries, b.Stats.NumSeries) }).ULID
}

// deletion is the mark of a block that is to go.
func deletion(id ulid.ULID, details string) block.Mark {
	return block.Mark{Kind: block.DeletionMark, ID: id, Details: details}
}

// marksAtOnce is how many marks are put at a time.
const marksAtOnce = 16

// mark puts marks side by side. After an error the others come to their end: a write
// that is broken off may take effect later.
func (e task) mark(ctx context.Context, marks ...block.Mark) error {
	var g errgroup.Group
	g.SetLimit(marksAtOnce)
	for _, m := range marks {
		m.Time = e.now().Unix()
		g.Go(func() error { return blockio.Mark(ctx, e.bkt, m) })
	}
	return g.Wait()
}
