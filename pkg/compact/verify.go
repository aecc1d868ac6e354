package compact

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockio"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/series"
)

// verify reads a block back from the bucket, before its meta.json vouches for it: all
// of its index, and some of its series. It looks at checksums, at the order of series
// and chunks, at their times, at the counts that its metadata states, and at whether
// the bytes of these series are those that were written.
func (e *Executor) verify(ctx context.Context, d *draft) error {
	if err := verify(ctx, e.bkt, d); err != nil {
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

	var last *series.Series
	var count struct{ series, chunks uint64 }
	g, reading := errgroup.WithContext(ctx)
	g.SetLimit(sampled)
	set := s.entries(ctx)
	for set.Next() {
		cur := set.At()
		if last != nil && series.Compare(last, cur) >= 0 {
			err = fmt.Errorf("series %s comes after %s", cur.Labels, last.Labels)
		} else if err = verifyTimes(cur, &meta); err != nil {
			err = fmt.Errorf("series %s: %w", cur.Labels, err)
		}
		if err != nil {
			break
		}
		if n := int(count.series); d.wanted(n) {
			p := picked{n, cur, slices.Clone(set.metas)}
			g.Go(func() error { return d.compare(reading, s.again(), p) })
		}
		last = cur
		count.series++
		count.chunks += uint64(len(cur.Chunks))
	}
	if err := errors.Join(err, g.Wait(), blameless(set.Err())); err != nil {
		return err
	}
	want := meta.Stats
	if count.series != want.NumSeries || count.chunks != want.NumChunks {
		return fmt.Errorf("it has %d series and %d chunks instead of %d and %d", count.series, count.chunks, want.NumSeries, want.NumChunks)
	}
	return nil
}

// picked is a series whose chunks are compared with what was written.
type picked struct {
	n     int // its number
	it    *series.Series
	metas []chunkMeta // as the index tells of its chunks
}

// compare reads the chunks of a series of the block s, which it closes.
func (d *draft) compare(ctx context.Context, s *source, p picked) error {
	defer s.Close()
	set := &sourceSet{ctx: ctx, source: s, segment: noSegment}
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
