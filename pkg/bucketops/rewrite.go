package bucketops

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"
	"go.yaml.in/yaml/v2"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockscan"
	"github.com/varve-io/varve/pkg/blockwriter"
	"github.com/varve-io/varve/pkg/merge"
	"github.com/varve-io/varve/pkg/series"
)

// nothing is the name of the block that takes a source's place when no sample is left.
const nothing = "nothing"

// Deletion names samples that are to go: those of the series that all matchers
// match, in the ranges, or all of them if there is none.
type Deletion struct {
	Matchers []*labels.Matcher
	Ranges   []block.TimeRange // sorted
}

// Rewriting says what a rewrite does to the series of a block: deletions first,
// then relabelling. A series that loses all its labels is dropped.
type Rewriting struct {
	Deletions []Deletion
	Rules     []*relabel.Config
	// Text is what Deletions and Rules were parsed from.
	Text string
	// DeleteSource marks the source for deletion once the new block is complete.
	DeleteSource bool
}

// afterwards are the marks that the source gets beside that against compaction.
func (r Rewriting) afterwards() []block.MarkKind {
	if r.DeleteSource {
		return []block.MarkKind{block.DeletionMark}
	}
	return nil
}

// ParseDeletions reads the content of --rewrite.to-delete-config: a list of matchers
// (a metric selector) and intervals (mint and maxt, both inclusive, in milliseconds).
func ParseDeletions(content []byte) ([]Deletion, error) {
	var list []struct {
		Matchers  string `yaml:"matchers"`
		Intervals []struct {
			Mint int64 `yaml:"mint"`
			Maxt int64 `yaml:"maxt"`
		} `yaml:"intervals"`
		RequestID string `yaml:"request_id"`
	}
	if err := yaml.UnmarshalStrict(content, &list); err != nil {
		return nil, fmt.Errorf("parse deletions: %w", err)
	}
	var out []Deletion
	for i, d := range list {
		matchers, err := parser.NewParser(parser.Options{}).ParseMetricSelector(d.Matchers)
		if err != nil {
			return nil, fmt.Errorf("deletion %d: matchers: %w", i+1, err)
		}
		next := Deletion{Matchers: matchers}
		for _, r := range d.Intervals {
			if r.Mint > r.Maxt {
				return nil, fmt.Errorf("deletion %d: the interval from %d to %d is empty", i+1, r.Mint, r.Maxt)
			}
			next.Ranges = append(next.Ranges, block.TimeRange{MinTime: r.Mint, MaxTime: r.Maxt + 1})
		}
		slices.SortFunc(next.Ranges, func(a, b block.TimeRange) int { return int(min(max(a.MinTime-b.MinTime, -1), 1)) })
		out = append(out, next)
	}
	return out, nil
}

// Rewrite makes of each block a new one without the samples that are to go and with
// the labels that the rules give. The new block takes the place of its source for
// every reader; the source stays and is marked no-compact.
func (o *Operator) Rewrite(ctx context.Context, ids []ulid.ULID, r Rewriting) ([]Action, error) {
	if len(r.Deletions) == 0 && len(r.Rules) == 0 {
		return nil, errors.New("nothing is to be rewritten; give --rewrite.to-delete-config or --rewrite.to-relabel-config")
	}
	set, err := o.blocks(ctx)
	if err != nil {
		return nil, err
	}
	places, err := find(set, ids, "rewrite")
	if err != nil {
		return nil, err
	}
	var all []Action
	var errs []error
	for _, p := range places {
		actions, err := o.rewriteOne(ctx, p, r)
		all, errs = append(all, actions...), append(errs, err)
	}
	return all, errors.Join(errs...)
}

func (o *Operator) rewriteOne(ctx context.Context, p place, r Rewriting) ([]Action, error) {
	source := p.entry.Meta
	job := &rewrite{op: o, source: source, by: p.by, opts: r}
	job.made = replacement(source, "rewrite", r.Text, 0).ULID
	actions, err := o.act(ctx, "rewrite", []Action{{Do: "write", Block: source.ULID, What: job.made.String(), run: job.run, look: job.look}})
	if job.made != (ulid.ULID{}) {
		actions[0].What = job.made.String()
	} else {
		actions[0].What = nothing
	}
	actions[0].Why = job.changes.String()
	if err != nil || job.idle {
		return actions, err
	}
	marks, err := o.markReplaced(ctx, source.ULID, "rewritten", actions[0].What, r.afterwards()...)
	return append(actions, marks...), err
}

// changes count what a rewrite does.
type changes struct{ series, dropped, shortened, relabelled int }

func (c changes) String() string {
	return fmt.Sprintf("of %d series %d dropped, %d shortened, %d relabelled", c.series, c.dropped, c.shortened, c.relabelled)
}

func (c changes) none() bool { return c.dropped+c.shortened+c.relabelled == 0 }

// rewrite is the rewrite of one block.
type rewrite struct {
	op     *Operator
	source *block.Meta
	by     *block.Meta // an earlier run's new block
	opts   Rewriting

	made    ulid.ULID
	changes changes
	idle    bool // nothing of the block is meant
}

// look counts what would change.
func (r *rewrite) look(ctx context.Context) error {
	return r.op.fromSound(ctx, r.source, func(b *blockscan.Block, _ string) error {
		_, err := r.symbols(ctx, b)
		return err
	})
}

func (r *rewrite) run(ctx context.Context) error {
	if r.by != nil {
		if r.by.ULID != r.made {
			return fmt.Errorf("it is replaced by %s, which another rewrite made and readers use instead; work on that one", r.by.ULID)
		}
		return errUnchanged // and only the marks were missing
	}
	err := r.op.fromSound(ctx, r.source, func(b *blockscan.Block, dir string) error {
		symbols, err := r.symbols(ctx, b)
		if err != nil {
			return err
		}
		return r.op.buildAny(ctx, dir, func(attempt int) product {
			meta := replacement(r.source, "rewrite", r.opts.Text, attempt)
			r.made = meta.ULID
			return product{meta: meta, symbols: symbols, write: func(w *blockwriter.Writer) error { return r.write(ctx, b, w) }}
		})
	})
	if errors.Is(err, errEmpty) && r.opts.DeleteSource {
		r.made = ulid.ULID{}
		return nil
	}
	if errors.Is(err, errEmpty) {
		return fmt.Errorf("%w, so no block takes its place; --delete-blocks marks the source for deletion", err)
	}
	return err
}

// symbols gives the strings of the new labels, and counts what changes.
func (r *rewrite) symbols(ctx context.Context, b *blockscan.Block) ([]string, error) {
	distinct := map[string]bool{}
	set := &rewritten{in: b.Scan(ctx, quiet), opts: r.opts, meta: r.source}
	for set.Next() {
		set.At().Labels.Range(func(l labels.Label) { distinct[l.Name], distinct[l.Value] = true, true })
	}
	if err := set.Err(); err != nil {
		return nil, err
	}
	r.changes = set.changes
	if r.changes.none() {
		r.idle = true
		return nil, errUnchanged
	}
	list := make([]string, 0, len(distinct))
	for s := range distinct {
		list = append(list, s)
	}
	return joinSymbols(list), nil
}

// write puts the new series in order, joins those that have the same labels now, and writes them.
func (r *rewrite) write(ctx context.Context, b *blockscan.Block, w *blockwriter.Writer) error {
	var set series.Set = &rewritten{in: b.Scan(ctx, quiet), opts: r.opts, meta: r.source}
	if len(r.opts.Rules) > 0 {
		set = series.Sort(set)
	}
	set = merge.Sets(set)
	for set.Next() {
		cur := *set.At()
		var err error
		if cur.Chunks, err = union(cur.Chunks); err != nil {
			return fmt.Errorf("series %s: %w", cur.Labels, err)
		}
		if err := w.AddSeries(&cur); err != nil {
			return err
		}
	}
	return set.Err()
}

// rewritten gives the series of a set as they are to be, in the old order.
type rewritten struct {
	in      series.Set
	opts    Rewriting
	meta    *block.Meta
	cur     *series.Series
	changes changes
	err     error
}

// Next moves to the next series of which something is left.
func (s *rewritten) Next() bool {
	for s.err == nil && s.in.Next() {
		s.changes.series++
		old := s.in.At()
		cur := &series.Series{Labels: old.Labels}
		if cur.Chunks, s.err = s.without(old); s.err != nil {
			return false
		}
		keep := len(cur.Chunks) > 0
		if keep && len(s.opts.Rules) > 0 {
			lb := labels.NewBuilder(old.Labels)
			keep = relabel.ProcessBuilder(lb, s.opts.Rules...)
			cur.Labels = lb.Labels()
			keep = keep && !cur.Labels.IsEmpty()
		}
		if !keep {
			s.changes.dropped++
			continue
		}
		if !labels.Equal(cur.Labels, old.Labels) {
			s.changes.relabelled++
		}
		s.cur = cur
		return true
	}
	return false
}

// without gives the chunks of a series without what is to be deleted.
func (s *rewritten) without(old *series.Series) ([]series.Chunk, error) {
	left := old.Chunks
	shortened := false
	for _, d := range s.opts.Deletions {
		if slices.ContainsFunc(d.Matchers, func(m *labels.Matcher) bool { return !m.Matches(old.Labels.Get(m.Name)) }) {
			continue
		}
		if len(d.Ranges) == 0 {
			return nil, nil
		}
		if s.meta.Resolution() != block.Raw {
			return nil, fmt.Errorf("intervals cannot be taken out of a block of %s; rewrite the raw block and downsample it", s.meta.Resolution())
		}
		before := span(left)
		var err error
		if left, err = without(left, d.Ranges, s.meta.TimeRange()); err != nil {
			return nil, fmt.Errorf("series %s: %w", old.Labels, err)
		}
		shortened = shortened || span(left) != before
	}
	if shortened && len(left) > 0 {
		s.changes.shortened++
	}
	return left, nil
}

// span tells lists of chunks apart of which one is a part of the other.
func span(chunks []series.Chunk) (s struct{ chunks, bytes int }) {
	s.chunks = len(chunks)
	for _, c := range chunks {
		s.bytes += len(c.Data)
	}
	return s
}

func (s *rewritten) At() *series.Series                { return s.cur }
func (s *rewritten) Err() error                        { return errors.Join(s.err, s.in.Err()) }
func (s *rewritten) Warnings() annotations.Annotations { return nil }
