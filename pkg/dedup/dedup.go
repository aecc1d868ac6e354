package dedup

import (
	"errors"
	"fmt"
	"slices"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
)

// Chunks makes one chunk list out of those of the replicas of a series, given
// in the order of preference, none of them already deduplicated; see Groups for those that may be.
// Chunks of one replica may overlap and need no order.
//
// The result is sorted by series.CompareChunks. Each resolution is
// deduplicated on its own, and where nothing had to be changed chunks keep
// their bytes. For a range of time the input has to reach as far as Widen
// says. Downsampled chunks should hold the count aggregate, whatever else was
// asked for; windows without it are taken from the first replica that has them.
//
// Chunks of a replica whose samples are not needed are not decoded, so damage in them is not noticed.
func Chunks(replicas [][]series.Chunk, o Options) ([]series.Chunk, error) {
	return new(deduplicator).chunks(&Group{replicas: replicas}, o)
}

// deduplicator keeps memory from one series to the next.
type deduplicator struct {
	reps  []*replica // as many as a series had so far
	cells cells
	rows  []run
	line  line
	write writer
	runs  []run // that were chosen last of the replicas in reps, nil where these are not all of the result
}

func (d *deduplicator) chunks(g *Group, o Options) ([]series.Chunk, error) {
	var out []series.Chunk
	all := kinds(g.replicas)
	for _, k := range all {
		of := g.of(k, all)
		merged, err := d.merge(&of, k, o)
		if err != nil {
			return nil, fmt.Errorf("deduplicate %d replicas: %w", len(of.replicas), err)
		}
		if out == nil {
			out = merged
			continue
		}
		out = append(slices.Clip(out), merged...)
		d.runs = nil
	}
	if !slices.IsSortedFunc(out, series.CompareChunks) {
		out = slices.Clone(out)
		slices.SortStableFunc(out, series.CompareChunks)
	}
	return out, nil
}

// kind is a sort of chunks that is deduplicated apart from others.
type kind struct {
	resolution int64
	aggregate  bool
}

func kindOf(c *series.Chunk) kind {
	return kind{resolution: c.Resolution, aggregate: c.Encoding == aggrchunk.Encoding}
}

func kinds(replicas [][]series.Chunk) (out []kind) {
	for _, chunks := range replicas {
		for i := range chunks {
			if k := kindOf(&chunks[i]); len(out) == 0 || k != out[0] && !slices.Contains(out, k) {
				out = append(out, k)
			}
		}
	}
	return out
}

// of is the group without what is not of the kind, which is one of all that there are.
func (g *Group) of(k kind, all []kind) Group {
	out := Group{replicas: make([][]series.Chunk, 0, len(g.replicas))}
	for i, chunks := range g.replicas {
		if len(all) > 1 {
			chunks = k.of(chunks)
		}
		if len(chunks) > 0 {
			out.merged = out.merged || i == 0 && g.merged
			out.replicas = append(out.replicas, chunks)
		}
	}
	return out
}

// of are the chunks of the kind.
func (k kind) of(chunks []series.Chunk) []series.Chunk {
	other := func(c series.Chunk) bool { return kindOf(&c) != k }
	return slices.DeleteFunc(slices.Clone(chunks), other)
}

func (d *deduplicator) merge(of *Group, k kind, o Options) ([]series.Chunk, error) {
	if k.aggregate {
		d.runs = nil
		return mergeAggregates(of.replicas, k.resolution)
	}
	first := of.replicas[0]
	err := d.raw(of, o, func(reps []*replica, runs []run) error {
		d.runs = runs
		d.write.begin(reps, k.resolution, len(first)+len(first)/8)
		return d.write.write(runs)
	})
	return d.write.out, err
}

// raw deduplicates raw chunks and hands on what was chosen. It does so once more where chunks turn out to hold misplaced samples.
func (d *deduplicator) raw(of *Group, o Options, use func([]*replica, []run) error) error {
	for len(d.reps) < len(of.replicas) {
		d.reps = append(d.reps, &replica{})
	}
	reps := d.reps[:len(of.replicas)]
	runs, err := d.choose(reps, of, o, (*replica).reset)
	if err == nil {
		err = use(reps, runs)
	}
	if !errors.Is(err, errMisplaced) {
		return err
	}
	if runs, err = d.choose(reps, of, o, (*replica).resetWhole); err != nil {
		return err
	}
	return use(reps, runs)
}

// floats appends the samples of the rows that were chosen last, if all of them are floats that were decoded.
func (d *deduplicator) floats(dst []chunkcodec.Samples) []chunkcodec.Samples {
	none := dst[:0]
	for _, r := range d.runs {
		if !d.reps[r.rep].hasFloats(r) {
			return none
		}
		dst = append(dst, chunkcodec.Samples{T: r.times(d.reps), V: r.values(d.reps)})
	}
	return dst
}

// choose applies an algorithm to raw chunks, which reset makes known to the replicas.
func (d *deduplicator) choose(reps []*replica, of *Group, o Options, reset func(*replica, []series.Chunk) error) ([]run, error) {
	for i, chunks := range of.replicas {
		reps[i].merged = i == 0 && of.merged
		if err := reset(reps[i], chunks); err != nil {
			return nil, err
		}
	}
	switch o.Func {
	case Default:
		return d.pick(reps)
	case Chain:
		return chosenBy(chain, reps)
	case Penalty:
		return chosenBy(penalty, reps)
	}
	return nil, fmt.Errorf("%s is unknown", o.Func)
}

// pick is the default algorithm, cell by cell. Its result stays valid until it is called again.
func (d *deduplicator) pick(reps []*replica) ([]run, error) {
	d.line = line{reps: reps, runs: d.line.runs[:0]}
	d.cells.begin(reps)
	for {
		c, err := d.cells.advance()
		if err != nil || c == nil {
			return d.line.runs, err
		}
		rows, err := c.choose(d.rows[:0])
		if err != nil {
			return nil, err
		}
		d.rows = rows
		if err := d.line.add(c.start, rows); err != nil {
			return nil, err
		}
	}
}

// chosenBy runs an algorithm that looks at all samples.
func chosenBy(f func([]*replica) []ref, reps []*replica) ([]run, error) {
	for _, r := range reps {
		if err := r.readAll(); err != nil {
			return nil, err
		}
	}
	return compress(reps, f(reps)), nil
}
