package bucketops

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockscan"
	"github.com/varve-io/varve/pkg/blockwriter"
	"github.com/varve-io/varve/pkg/series"
)

// What became of samples that could not be read. These are the ends of an Action
// that says lost.
const (
	Lost   = "lost"
	Filled = "filled"
)

// Repairing says how blocks are repaired.
type Repairing struct {
	// ReplicaLabels are the external labels on which replicas differ. What cannot be
	// read is filled from blocks that differ in nothing else; without them nothing is.
	ReplicaLabels []string
	// DeleteSource marks the source for deletion once the new block is complete.
	DeleteSource bool
}

// afterwards are the marks that the source gets beside that against compaction.
func (r Repairing) afterwards() []block.MarkKind {
	if r.DeleteSource {
		return []block.MarkKind{block.DeletionMark}
	}
	return nil
}

// Repair makes of each broken block a new one of all that can be read, filled from
// the other replica where that has what is lost. The new block takes the place of
// its source for every reader; the source stays and is marked no-compact. Beside
// what is done, the actions list what is lost.
func (o *Operator) Repair(ctx context.Context, ids []ulid.ULID, r Repairing) ([]Action, error) {
	set, err := o.blocks(ctx)
	if err != nil {
		return nil, err
	}
	places, err := find(set, ids, "repair")
	if err != nil {
		return nil, err
	}
	var all []Action
	var errs []error
	for _, p := range places {
		actions, err := o.repairOne(ctx, set, p, r)
		all, errs = append(all, actions...), append(errs, err)
	}
	return all, errors.Join(errs...)
}

func (o *Operator) repairOne(ctx context.Context, set *block.Set, p place, r Repairing) ([]Action, error) {
	source := p.entry.Meta
	job := &repair{op: o, ctx: ctx, source: p.entry, by: p.by, opts: r}
	if source.Resolution() == block.Raw && len(r.ReplicaLabels) > 0 {
		job.fills = others(set, source, r.ReplicaLabels)
	}
	actions, err := o.act(ctx, "repair", []Action{{Do: "write", Block: source.ULID, run: job.run, look: job.look}})
	actions[0].Why = job.summary
	if job.made != (ulid.ULID{}) {
		actions[0].What = job.made.String()
	}
	if err != nil || job.sound {
		return actions, err
	}
	actions = append(actions, job.lost...)
	marks, err := o.markReplaced(ctx, source.ULID, "repaired", job.made.String(), r.afterwards()...)
	return append(actions, marks...), err
}

// others are the blocks that may hold what a block lost.
func others(set *block.Set, source *block.Meta, replicaLabels []string) []*block.Entry {
	live := block.Select(set.Blocks, func(e *block.Entry) bool { return e.Deletion == nil })
	hidden := block.Superseded(live)
	return block.Select(live, func(e *block.Entry) bool {
		_, superseded := hidden[e.Meta.ULID]
		return !superseded && e.Meta.Group(replicaLabels) == source.Group(replicaLabels) &&
			!labels.Equal(e.Meta.Labels(), source.Labels()) && e.Meta.TimeRange().Overlaps(source.TimeRange())
	})
}

// repair is the repair of one block.
type repair struct {
	op     *Operator
	ctx    context.Context //nolint:containedctx // one repair is one call
	source *block.Entry
	by     *block.Meta // an earlier run's new block
	fills  []*block.Entry
	opts   Repairing

	// What came of it.
	made    ulid.ULID
	sound   bool // nothing had to be repaired
	summary string
	lost    []Action
	foreign int // series that only the other replica has
}

// nowhere takes what a dry run would write.
func nowhere(*series.Series) error { return nil }

// look finds out what the repair would lose.
func (r *repair) look(ctx context.Context) error {
	if r.by != nil {
		return r.run(ctx)
	}
	return r.read(ctx, func(src *sources) error {
		r.made = r.meta(0).ULID
		return r.write(src, nowhere)
	})
}

func (r *repair) run(ctx context.Context) error {
	if r.by != nil { // and only the marks were missing
		r.made, r.summary = r.by.ULID, "an earlier run made it"
		return errUnchanged
	}
	return r.read(ctx, func(src *sources) error {
		return r.op.buildAny(ctx, src.dir, func(attempt int) product {
			meta := r.meta(attempt)
			r.made = meta.ULID
			return product{meta: meta, symbols: src.symbols(ctx), write: func(w *blockwriter.Writer) error { return r.write(src, w.AddSeries) }}
		})
	})
}

func (r *repair) meta(attempt int) *block.Meta {
	var also []ulid.ULID
	for _, e := range r.fills {
		also = append(also, e.Meta.ULID)
	}
	return replacement(r.source.Meta, "repair", "replica="+strings.Join(r.opts.ReplicaLabels, ","), attempt, also...)
}

// sources are the blocks of a repair on local disk.
type sources struct {
	dir     string
	broken  *blockscan.Block
	verdict Verdict
	wanted  uint64 // series that the broken block had
	fills   []*blockscan.Block
	metas   []*block.Meta // of fills
}

// lacksSeries reports whether there are series of which not even the labels can be read.
func (s *sources) lacksSeries() bool {
	return s.verdict.stats.Gaps > 0 && s.verdict.stats.NumSeries != s.wanted
}

// quiet takes findings that were reported before.
func quiet(blockscan.Finding) {}

func (s *sources) symbols(ctx context.Context) []string {
	lists := [][]string{s.broken.Scan(ctx, quiet).Symbols()}
	for _, b := range s.fills {
		lists = append(lists, b.Scan(ctx, quiet).Symbols())
	}
	return joinSymbols(lists...)
}

// read brings the blocks to local disk and calls fn if there is something to repair.
func (r *repair) read(ctx context.Context, fn func(*sources) error) error {
	id := r.source.Meta.ULID
	return r.op.withBlock(ctx, r.source, func(dir string) (err error) {
		src := &sources{dir: filepath.Dir(dir), wanted: r.source.Meta.Stats.NumSeries}
		if src.verdict, err = verifyDir(ctx, dir, r.source.Meta); err != nil {
			return err
		}
		if len(src.verdict.Findings) == 0 {
			r.sound, r.summary = true, "nothing is wrong with it"
			return errUnchanged
		}
		if src.verdict.stats.NumSamples == 0 {
			return fmt.Errorf("no sample can be read (%s): if the data are in another block, mark this one with `mark --id=%s --marker=%s`",
				src.verdict.Findings[0], id, block.DeletionMark)
		}
		if src.broken, err = blockscan.Open(dir, r.source.Meta); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, src.broken.Close()) }()
		defer func() {
			for _, b := range src.fills {
				err = errors.Join(err, b.Close())
			}
		}()
		if err := r.openFills(ctx, src); err != nil {
			return err
		}
		return fn(src)
	})
}

// openFills brings the other replicas' blocks to local disk, if something is lost.
func (r *repair) openFills(ctx context.Context, src *sources) error {
	if !src.lacksSeries() && src.verdict.stats.LostChunks == 0 {
		r.fills = nil
		return nil
	}
	var used []*block.Entry
	for _, e := range r.fills {
		dir := filepath.Join(src.dir, e.Meta.ULID.String())
		if err := r.op.download(ctx, e, dir); err != nil {
			return fmt.Errorf("download block %s: %w", e.Meta.ULID, err)
		}
		v, err := verifyDir(ctx, dir, e.Meta)
		if err != nil {
			return err
		}
		if !v.stats.Sorted || v.stats.NumSamples == 0 {
			r.op.log.Warn("nothing is filled from this block, it is broken itself", "block", e.Meta.ULID, "finding", v.Findings[0])
			continue
		}
		b, err := blockscan.Open(dir, e.Meta)
		if err != nil {
			return err
		}
		used = append(used, e)
		src.fills, src.metas = append(src.fills, b), append(src.metas, e.Meta)
	}
	r.fills = used
	return nil
}

// write hands the new block's series to add, in order, and lists what is lost.
func (r *repair) write(src *sources, add func(*series.Series) error) error {
	r.lost, r.foreign = nil, 0
	var kept uint64
	fill := newFiller(r.ctx, src, r.opts.ReplicaLabels)
	addForeign := func(s *series.Series) error {
		if !src.lacksSeries() {
			return nil // the other replica had one more
		}
		chunks, err := cut(s.Chunks, r.source.Meta.TimeRange())
		if err != nil || len(chunks) == 0 {
			return err
		}
		r.foreign++
		return add(&series.Series{Labels: s.Labels, Chunks: chunks})
	}
	err := salvage(src.broken.Scan(r.ctx, quiet), r.source.Meta, func() bool { return src.verdict.stats.Sorted }, func(s *salvaged) error {
		other, err := fill.upTo(s.labels, addForeign)
		if err != nil {
			return err
		}
		chunks, err := r.fillIn(s, other)
		if err != nil || len(chunks) == 0 {
			return err
		}
		kept++
		return add(&series.Series{Labels: s.labels, Chunks: chunks})
	})
	if err == nil {
		err = fill.rest(addForeign)
	}
	if src.lacksSeries() {
		r.listGaps(src.verdict)
	}
	r.summary = fmt.Sprintf("%d series salvaged, %d more from the other replica; %d spans lost, %d of them filled", kept, r.foreign, len(r.lost), r.filled())
	return err
}

// fillIn gives the chunks of a series with the holes filled from another, and
// lists the holes.
func (r *repair) fillIn(s *salvaged, other *series.Series) ([]series.Chunk, error) {
	chunks := s.chunks
	for _, l := range s.lost {
		a := Action{
			Do: "lost", Block: r.source.Meta.ULID, What: fmt.Sprintf("%s from %s to %s", s.labels, instant(l.MinTime), instant(l.MaxTime)), Status: Lost,
			Why: fmt.Sprintf("%s at %d", l.File, l.Offset),
		}
		if l.Offset == blockscan.Whole {
			a.Why = l.File
		}
		if other != nil && l.Offset != blockscan.Whole {
			part, err := r.holes(s, l, other)
			if err != nil {
				return nil, err
			}
			if len(part) > 0 {
				a.Status = Filled
				if chunks, err = union(chunks, part); err != nil {
					return nil, err
				}
			}
		}
		r.lost = append(r.lost, a)
	}
	return chunks, nil
}

// holes gives what another replica has in a span that was lost, and where no sample
// of the series is left.
func (r *repair) holes(s *salvaged, l blockscan.Loss, other *series.Series) ([]series.Chunk, error) {
	left := make([]block.TimeRange, len(s.chunks))
	for i, c := range s.chunks {
		left[i] = block.TimeRange{MinTime: c.MinTime, MaxTime: c.MaxTime + 1}
	}
	within := r.source.Meta.TimeRange()
	return without(other.Chunks, left, block.TimeRange{MinTime: max(l.MinTime, within.MinTime), MaxTime: min(l.MaxTime, within.MaxTime)})
}

// listGaps lists the places of the index where series are missing whose labels nobody knows.
func (r *repair) listGaps(v Verdict) {
	for _, f := range v.Findings {
		if f.File == block.IndexFile && (strings.HasPrefix(f.Detail, "series entry") || f.Kind == blockscan.Truncated) {
			a := Action{Do: "lost", Block: v.Block, What: "series, nobody knows which", Why: f.String(), Status: Lost}
			if r.foreign > 0 {
				a.Status = Filled
			}
			r.lost = append(r.lost, a)
		}
	}
}

func (r *repair) filled() (n int) {
	for _, a := range r.lost {
		if a.Status == Filled {
			n++
		}
	}
	return n
}

func instant(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z") }
