package compact

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/tsdb/chunks"
	"golang.org/x/sync/errgroup"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockio"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/panics"
	"github.com/varve-io/varve/pkg/series"
)

// verify reads a block back from the bucket, before its meta.json vouches for it: all
// of its index, and the chunks of some of its series. It looks at checksums, at the order
// of series and chunks, at their times and places, at the counts that its metadata states,
// at whether postings and series say the same, and at whether the bytes of these chunks
// are those that were written.
func (e *Executor) verify(ctx context.Context, d *draft) error {
	if err := panics.Caught(func() error { return verify(ctx, e.bkt, d) }); err != nil {
		return fmt.Errorf("verify block %s before it counts: %w", d.meta.ULID, err)
	}
	return nil
}

func verify(ctx context.Context, bkt bucket.Reader, d *draft) error {
	meta := *d.meta
	meta.Thanos.Files = d.into.Files()
	few := readers{index: blockio.NewReadAhead(indexMemory, 1, 2), segments: blockio.Sparse(sampled)}
	s, err := openSource(ctx, bkt, &meta, few, newSymbolTable())
	if err != nil {
		return blameless(err)
	}
	defer s.Close()

	var p passed
	g, reading := errgroup.WithContext(ctx)
	g.SetLimit(sampled)
	g.Go(func() error { return verifyHeaders(reading, s.again()) })
	set := s.entries(ctx)
	for err == nil && set.Next() {
		if n := int(p.series); d.wanted(n) {
			one := pick(n, set)
			g.Go(func() error { return d.compare(reading, s.again(), one) })
		}
		err = p.pass(set, &meta)
	}
	if err := errors.Join(err, g.Wait(), blameless(set.Err())); err != nil {
		return err
	}
	return p.end(ctx, s)
}

// passed is what is known of the series that were passed.
type passed struct {
	last           *series.Series
	place          chunks.BlockChunkRef // of the last chunk
	says           incidence
	series, chunks uint64
}

// pass counts the series that a set is at, and compares it with those before.
func (p *passed) pass(set *sourceSet, meta *block.Meta) error {
	cur := set.At()
	if p.last != nil && series.Compare(p.last, cur) >= 0 {
		return fmt.Errorf("series %s comes after %s", cur.Labels, p.last.Labels)
	}
	if err := verifyTimes(cur, meta); err != nil {
		return fmt.Errorf("series %s: %w", cur.Labels, err)
	}
	for _, m := range set.metas {
		segments := set.source.files.Segments
		segment, off := m.ref.Unpack()
		if m.ref <= p.place || segment >= len(segments) || int64(off) >= segments[segment].Size() {
			return fmt.Errorf("series %s: chunk at %d is said to be at %d of segment %d, which is not behind the one before, or in no segment", cur.Labels, m.minTime, off, segment+1)
		}
		p.place = m.ref
	}
	p.says.addSeries(set.at, set.places)
	p.last = cur
	p.series++
	p.chunks += uint64(len(cur.Chunks))
	return nil
}

// end compares all series with what else of the block says how many and which they are.
func (p *passed) end(ctx context.Context, s *source) error {
	if want := s.meta.Stats; p.series != want.NumSeries || p.chunks != want.NumChunks {
		return fmt.Errorf("it has %d series and %d chunks instead of %d and %d", p.series, p.chunks, want.NumSeries, want.NumChunks)
	}
	listed, err := s.postings(ctx)
	if err == nil && listed != p.says {
		err = damagedf(indexUnreadable, "the postings do not name the series that have their labels")
	}
	return err
}

// verifyHeaders looks at the header of each segment of the block s, which it closes.
func verifyHeaders(ctx context.Context, s *source) error {
	defer s.Close()
	for _, segment := range s.files.Segments {
		if err := checkSegment(ctx, segment); err != nil {
			return err
		}
	}
	return nil
}

// picked is a series whose chunks are compared with what was written.
type picked struct {
	n     int // its number
	it    *series.Series
	metas []chunkMeta // as the index tells of its chunks
}

// pick copies what a set is at, for its chunks get their data while others look at their times.
func pick(n int, set *sourceSet) picked {
	it := *set.At()
	it.Chunks = slices.Clone(it.Chunks)
	return picked{n, &it, slices.Clone(set.metas)}
}

// compare reads the chunks of a series of the block s, which it closes.
func (d *draft) compare(ctx context.Context, s *source, p picked) (err error) {
	defer panics.Recovered(&err)
	defer s.Close()
	set := &sourceSet{ctx: ctx, source: s}
	set.segment, _ = p.metas[0].ref.Unpack() // whose header is looked at once for all
	if err := set.read(p.it, p.metas); err != nil {
		return err
	}
	for _, c := range p.it.Chunks {
		if _, err := c.Open(); err != nil {
			return fmt.Errorf("series %s: chunk at %d: %w", p.it.Labels, c.MinTime, err)
		}
	}
	if err := d.check(p.n, p.it); err != nil {
		return fmt.Errorf("series %s: %w", p.it.Labels, err)
	}
	return nil
}

// blameless keeps an error about what was written from being taken for one about a source.
func blameless(err error) error {
	if corrupt, ok := errors.AsType[*corruptError](err); ok {
		return corrupt.err
	}
	return err
}

// verifyTimes checks order and times of chunks.
func verifyTimes(s *series.Series, meta *block.Meta) error {
	for i, c := range s.Chunks {
		if c.MinTime < meta.MinTime || c.MaxTime >= meta.MaxTime || c.MaxTime < c.MinTime {
			return fmt.Errorf("chunk [%d, %d] reaches outside [%d, %d)", c.MinTime, c.MaxTime, meta.MinTime, meta.MaxTime)
		}
		if i > 0 && c.MinTime <= s.Chunks[i-1].MaxTime {
			return fmt.Errorf("chunk at %d overlaps the one before", c.MinTime)
		}
	}
	return nil
}
