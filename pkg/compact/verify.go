package compact

import (
	"context"
	"errors"
	"fmt"

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
	few := readers{index: blockio.NewReadAhead(indexMemory, 1, 2), segments: blockio.Sparse(2)}
	s, err := openSource(ctx, bkt, &meta, few, newSymbolTable())
	if err != nil {
		return blameless(err)
	}
	defer s.Close()

	var last *series.Series
	var count struct{ series, chunks uint64 }
	set := s.set(ctx, nil)
	set.wanted = d.wanted
	for set.Next() {
		cur := set.At()
		if last != nil && series.Compare(last, cur) >= 0 {
			return fmt.Errorf("series %s comes after %s", cur.Labels, last.Labels)
		}
		last = cur
		err := verifyChunks(cur, &meta)
		if n := set.read - 1; err == nil && d.wanted(n) {
			err = d.check(n, cur)
		}
		if err != nil {
			return fmt.Errorf("series %s: %w", cur.Labels, err)
		}
		count.series++
		count.chunks += uint64(len(cur.Chunks))
	}
	if err := set.Err(); err != nil {
		return blameless(err)
	}
	want := meta.Stats
	if count.series != want.NumSeries || count.chunks != want.NumChunks {
		return fmt.Errorf("it has %d series and %d chunks instead of %d and %d", count.series, count.chunks, want.NumSeries, want.NumChunks)
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

// verifyChunks checks order and times, and what was read of the bytes.
func verifyChunks(s *series.Series, meta *block.Meta) error {
	for i, c := range s.Chunks {
		if c.MinTime < meta.MinTime || c.MaxTime >= meta.MaxTime || c.MaxTime < c.MinTime {
			return fmt.Errorf("chunk [%d, %d] reaches outside [%d, %d)", c.MinTime, c.MaxTime, meta.MinTime, meta.MaxTime)
		}
		if i > 0 && c.MinTime <= s.Chunks[i-1].MaxTime {
			return fmt.Errorf("chunk at %d overlaps the one before", c.MinTime)
		}
		if c.Data == nil {
			continue
		}
		if _, err := c.Open(); err != nil {
			return fmt.Errorf("chunk at %d: %w", c.MinTime, err)
		}
	}
	return nil
}
