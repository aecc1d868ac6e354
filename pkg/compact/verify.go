package compact

import (
	"context"
	"errors"
	"fmt"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/series"
)

// verify reads a written block back: every chunk's checksum, the order of its
// series and chunks, their times, and the counts that its metadata states.
func verify(ctx context.Context, dir string, meta *block.Meta) (err error) {
	s, err := openSource(dir, meta)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()

	var last *series.Series
	var count struct{ series, chunks, samples uint64 }
	set := s.set(ctx, nil)
	for set.Next() {
		cur := set.At()
		if last != nil && series.Compare(last, cur) >= 0 {
			return fmt.Errorf("series %s comes after %s", cur.Labels, last.Labels)
		}
		last = cur
		count.series++
		n, err := verifyChunks(cur, meta)
		if err != nil {
			return fmt.Errorf("series %s: %w", cur.Labels, err)
		}
		count.chunks += uint64(len(cur.Chunks))
		count.samples += n
	}
	if err := set.Err(); err != nil {
		return err
	}
	want := meta.Stats
	if count.series != want.NumSeries || count.chunks != want.NumChunks || count.samples != want.NumSamples {
		return fmt.Errorf("it has %d series, %d chunks and %d samples instead of %d, %d and %d",
			count.series, count.chunks, count.samples, want.NumSeries, want.NumChunks, want.NumSamples)
	}
	return nil
}

// verifyChunks checks order and times and returns the number of samples.
func verifyChunks(s *series.Series, meta *block.Meta) (samples uint64, err error) {
	for i, c := range s.Chunks {
		if c.MinTime < meta.MinTime || c.MaxTime >= meta.MaxTime || c.MaxTime < c.MinTime {
			return 0, fmt.Errorf("chunk [%d, %d] reaches outside [%d, %d)", c.MinTime, c.MaxTime, meta.MinTime, meta.MaxTime)
		}
		if i > 0 && c.MinTime <= s.Chunks[i-1].MaxTime {
			return 0, fmt.Errorf("chunk at %d overlaps the one before", c.MinTime)
		}
		chk, err := c.Open()
		if err != nil {
			return 0, fmt.Errorf("chunk at %d: %w", c.MinTime, err)
		}
		samples += uint64(chk.NumSamples())
	}
	return samples, nil
}
