package compact

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockio"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/panics"
	"github.com/varve-io/varve/pkg/series"
)

// buildOrBlame makes a block. If that ends with an error that may be the fault of a
// source and names none, it finds out which.
func (e *Executor) buildOrBlame(ctx context.Context, o output) error {
	err := e.buildBlock(ctx, o)
	if err == nil || !suspicious(err) {
		return err
	}
	if found, ok := errors.AsType[*corruptError](e.examine(ctx, o.sources)); ok {
		return &corruptError{found.id, found.reason, fmt.Errorf("%w; the job ended with: %w", found.err, err)}
	}
	return err
}

// suspicious reports whether an error that blames no block may be one's fault:
// everything that does not come from the bucket, the machine or the lease.
func suspicious(err error) bool {
	for _, other := range []error{
		bucket.ErrTransient, bucket.ErrAccessDenied, bucket.ErrNotFound, bucket.ErrExists, bucket.ErrChanged,
		blockio.ErrConflict, blockio.ErrRaced, errEmpty, errTooLong, context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, other) {
			return false
		}
	}
	return classify(err) == transient
}

// examine reads each source of a job alone, to its last sample, and gives the error
// of the first that is damaged in a way that merging cannot say whose it is: the
// usual way of reading does not look into every chunk, nor at the order of series
// of each source. It is nil if all are sound.
func (e *Executor) examine(ctx context.Context, sources []*block.Meta) error {
	for _, m := range sources {
		if err := e.examineOne(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

func (e *Executor) examineOne(ctx context.Context, m *block.Meta) error {
	s, err := openSource(ctx, e.bkt, m, newReaders(1, e.opts.FetchConcurrency), newSymbolTable())
	if err != nil {
		return err
	}
	defer s.Close()
	set := s.set(ctx, nil)
	if err := panics.Caught(func() error { return examineSeries(m, set) }); err != nil {
		return inBlock(m.ULID, inPart(chunkUnreadable, err))
	}
	return set.Err()
}

func examineSeries(m *block.Meta, set series.Set) error {
	var last *series.Series
	for set.Next() {
		cur := set.At()
		if last != nil && series.Compare(last, cur) > 0 {
			return damagedf(seriesOrder, "series %s comes after %s", cur.Labels, last.Labels)
		}
		for _, c := range cur.Chunks {
			if err := examineChunk(m, c); err != nil {
				return fmt.Errorf("chunk at %d of %s: %w", c.MinTime, cur.Labels, err)
			}
		}
		last = cur
	}
	return nil
}

func examineChunk(m *block.Meta, c series.Chunk) error {
	if c.MinTime > c.MaxTime || c.MinTime < m.MinTime || c.MaxTime >= m.MaxTime {
		return damagedf(wrongTimes, "its samples [%d, %d] are outside of the block's [%d, %d)", c.MinTime, c.MaxTime, m.MinTime, m.MaxTime)
	}
	if c.Encoding != aggrchunk.Encoding {
		return examineSamples(c, c.MinTime, c.MaxTime)
	}
	aggregates, err := aggrchunk.Decode(c.Data)
	if err != nil {
		return damagedf(chunkUnreadable, "%w", err)
	}
	for _, a := range aggregates {
		if !a.Present() {
			continue
		}
		if err := examineSamples(series.Chunk{Encoding: a.Encoding, Data: a.Data}, m.MinTime, m.MaxTime); err != nil {
			return err
		}
	}
	return nil
}

// examineSamples decodes a chunk whose samples are to rise between the times, inclusive.
func examineSamples(c series.Chunk, from, to int64) error {
	opened, err := c.Open()
	if err != nil {
		return damagedf(chunkUnreadable, "%w", err)
	}
	it := opened.Iterator(nil)
	last := int64(math.MinInt64)
	for it.Next() != chunkenc.ValNone {
		t := it.AtT()
		if t < from || t > to {
			return damagedf(wrongTimes, "it has a sample at %d", t)
		}
		if t <= last {
			return damagedf(wrongTimes, "it has a sample at %d after one at %d", t, last)
		}
		last = t
	}
	if err := it.Err(); err != nil {
		return damagedf(chunkUnreadable, "%w", err)
	}
	return nil
}
