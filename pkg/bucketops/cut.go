package bucketops

import (
	"fmt"
	"slices"
	"sort"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/dedup"
	"github.com/varve-io/varve/pkg/series"
)

// cut gives the samples of chunks that lie in r. A chunk of which all do keeps its
// bytes. Chunks of aggregates are not cut: one that reaches outside is left out.
func cut(chunks []series.Chunk, r block.TimeRange) ([]series.Chunk, error) {
	inside := func(c series.Chunk) bool { return c.MinTime >= r.MinTime && c.MaxTime < r.MaxTime }
	if !slices.ContainsFunc(chunks, func(c series.Chunk) bool { return !inside(c) }) {
		return chunks, nil
	}
	var out []series.Chunk
	for _, c := range chunks {
		switch {
		case inside(c):
			out = append(out, c)
		case c.MaxTime < r.MinTime || c.MinTime >= r.MaxTime || c.Encoding == aggrchunk.Encoding:
		default:
			part, err := cutOne(c, r)
			if err != nil {
				return nil, err
			}
			out = append(out, part...)
		}
	}
	return out, nil
}

func cutOne(c series.Chunk, r block.TimeRange) ([]series.Chunk, error) {
	var all, part chunkcodec.Samples
	if err := chunkcodec.Decode(c.Encoding, c.Data, &all); err != nil {
		return nil, fmt.Errorf("cut chunk at %d: %w", c.MinTime, err)
	}
	from := sort.Search(len(all.T), func(i int) bool { return all.T[i] >= r.MinTime })
	to := sort.Search(len(all.T), func(i int) bool { return all.T[i] >= r.MaxTime })
	if from >= to {
		return nil, nil
	}
	part.Append(&all, from, to)
	encoded, err := chunkcodec.Append(nil, &part)
	if err != nil {
		return nil, fmt.Errorf("cut chunk at %d: %w", c.MinTime, err)
	}
	out := make([]series.Chunk, len(encoded))
	for i, e := range encoded {
		out[i] = series.Chunk{MinTime: e.MinTime, MaxTime: e.MaxTime, Resolution: c.Resolution, Encoding: e.Encoding, Data: e.Data}
	}
	return out, nil
}

// union makes one list of chunks that follow each other. Where two hold a sample of
// the same time, that of the first list counts. What overlaps nothing keeps its bytes.
func union(lists ...[]series.Chunk) ([]series.Chunk, error) {
	all := slices.Concat(lists...)
	slices.SortStableFunc(all, series.CompareChunks)
	for i := 1; i < len(all); i++ {
		if all[i].MinTime <= all[i-1].MaxTime {
			return dedup.Chunks(lists, dedup.Options{Func: dedup.Chain})
		}
	}
	return all, nil
}

// without gives the samples inside within and outside the ranges, which are sorted.
func without(chunks []series.Chunk, ranges []block.TimeRange, within block.TimeRange) ([]series.Chunk, error) {
	var out []series.Chunk
	from := within.MinTime
	for _, r := range append(slices.Clone(ranges), block.TimeRange{MinTime: within.MaxTime, MaxTime: within.MaxTime}) {
		if to := min(r.MinTime, within.MaxTime); to > from {
			part, err := cut(chunks, block.TimeRange{MinTime: from, MaxTime: to})
			if err != nil {
				return nil, err
			}
			out = append(out, part...)
		}
		from = max(from, r.MaxTime)
	}
	return out, nil
}
