package downsample

import (
	"fmt"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/series"
)

// appendCoarse aggregates aggregate chunks further onto dst. Chunks of floats are
// combined whole: the true first and last values of a counter stand at their edges.
func appendCoarse(dst []series.Chunk, r run, to block.Resolution) ([]series.Chunk, error) {
	n := 0
	for _, c := range r.chunks {
		n += aggrchunk.NumSamples(c.Data)
	}
	first, last := r.chunks[0].MinTime, r.chunks[len(r.chunks)-1].MaxTime
	step := r.chunks[0].Resolution
	target := targetChunks(n, first, last, step, to)
	if r.histogram {
		return combineHistograms(dst, r.chunks, histogramBatch{res: to, limit: n/target + 1})
	}
	perBatch := max(1, len(r.chunks)/target)
	var err error
	for from := 0; from < len(r.chunks); {
		end := from + perBatch
		if len(r.chunks)-end < perBatch {
			end = len(r.chunks) // the rest would be a chunk of its own, smaller than the others
		}
		batch := r.chunks[from:min(end, len(r.chunks))]
		if dst, err = combineFloats(dst, batch, to); err != nil {
			return nil, err
		}
		from += len(batch)
	}
	return dst, nil
}

// combineFloats makes one chunk of the batch.
func combineFloats(dst []series.Chunk, batch []series.Chunk, to block.Resolution) ([]series.Chunk, error) {
	rows, err := readFloatRows(batch)
	if err != nil {
		return nil, err
	}
	if len(rows.windows) == 0 {
		return dst, nil
	}
	lastT := rows.windows[len(rows.windows)-1].t
	out := floatBatch{res: to, firstT: rows.firstT, firstV: rows.firstV, lastV: rows.lastV}
	for _, w := range rows.windows {
		end := min(windowEnd(w.t, to), lastT)
		if n := len(out.windows); n > 0 && out.windows[n-1].t == end {
			fold(&out.windows[n-1], w)
			continue
		}
		w.t = end
		out.windows = append(out.windows, w)
	}
	c, err := encodeFloats(&out)
	return append(dst, c), err
}

// fold adds the later window w to acc.
func fold(acc *floatWindow, w floatWindow) {
	acc.count += w.count
	acc.sum += w.sum
	acc.min = min(acc.min, w.min)
	acc.max = max(acc.max, w.max)
	acc.counter = w.counter
}

// floatRows are the windows of several chunks with one counter that runs through all of them.
type floatRows struct {
	windows       []floatWindow
	firstT        int64
	firstV, lastV float64
}

func readFloatRows(batch []series.Chunk) (rows floatRows, err error) {
	base := 0.0
	for i, c := range batch {
		var columns [aggrchunk.NumKinds][]point
		subs, err := aggrchunk.Decode(c.Data)
		if err != nil {
			return rows, fmt.Errorf("chunk at %d: %w", c.MinTime, err)
		}
		for k, sub := range subs {
			if columns[k], err = readPoints(sub); err != nil {
				return rows, fmt.Errorf("%s of chunk at %d: %w", aggrchunk.Kind(k), c.MinTime, err)
			}
		}
		n := len(columns[aggrchunk.Count])
		if n == 0 {
			continue
		}
		counter := columns[aggrchunk.Counter]
		if len(columns[aggrchunk.Sum]) != n || len(columns[aggrchunk.Min]) != n || len(columns[aggrchunk.Max]) != n || len(counter) != n+2 {
			return rows, fmt.Errorf("chunk at %d: aggregates of different lengths: %w", c.MinTime, aggrchunk.ErrInvalid)
		}
		// The chunk's counter starts at its first raw value. What the series had
		// gained before goes on top; a raw value below the last one is a reset.
		first, last := counter[0], counter[n+1]
		switch {
		case len(rows.windows) == 0:
			rows.firstT, rows.firstV = first.t, first.v
		case first.v < rows.lastV:
			base = rows.windows[len(rows.windows)-1].counter
		default:
			base = rows.windows[len(rows.windows)-1].counter - rows.lastV
		}
		for w := range n {
			if k := len(rows.windows); k > 0 && columns[aggrchunk.Count][w].t <= rows.windows[k-1].t {
				return rows, fmt.Errorf("chunk %d of %d at %d goes back in time: %w", i, len(batch), c.MinTime, aggrchunk.ErrInvalid)
			}
			rows.windows = append(rows.windows, floatWindow{
				t:       columns[aggrchunk.Count][w].t,
				count:   columns[aggrchunk.Count][w].v,
				sum:     columns[aggrchunk.Sum][w].v,
				min:     columns[aggrchunk.Min][w].v,
				max:     columns[aggrchunk.Max][w].v,
				counter: base + counter[w+1].v,
			})
		}
		rows.lastV = last.v
	}
	return rows, nil
}

type point struct {
	t int64
	v float64
}

func readPoints(sub aggrchunk.Sub) ([]point, error) {
	if !sub.Present() {
		return nil, nil
	}
	chk, err := chunkenc.FromData(sub.Encoding, sub.Data)
	if err != nil {
		return nil, err
	}
	points := make([]point, 0, chk.NumSamples())
	it := chk.Iterator(nil)
	for it.Next() == chunkenc.ValFloat {
		t, v := it.At()
		points = append(points, point{t, v})
	}
	return points, it.Err()
}

// combineHistograms feeds the counts, sums and counters of chunks through batches.
func combineHistograms(dst []series.Chunk, chunks []series.Chunk, b histogramBatch) ([]series.Chunk, error) {
	for _, c := range chunks {
		subs, err := aggrchunk.Decode(c.Data)
		if err != nil {
			return nil, fmt.Errorf("chunk at %d: %w", c.MinTime, err)
		}
		counts, err := readPoints(subs[aggrchunk.Count])
		if err != nil {
			return nil, fmt.Errorf("count of chunk at %d: %w", c.MinTime, err)
		}
		sums, err := readHistograms(subs[aggrchunk.Sum])
		if err != nil {
			return nil, fmt.Errorf("sum of chunk at %d: %w", c.MinTime, err)
		}
		counters, err := readHistograms(subs[aggrchunk.Counter])
		if err != nil {
			return nil, fmt.Errorf("counter of chunk at %d: %w", c.MinTime, err)
		}
		if len(sums) != len(counts) || len(counters) != len(counts) {
			return nil, fmt.Errorf("chunk at %d: aggregates of different lengths: %w", c.MinTime, aggrchunk.ErrInvalid)
		}
		for i, n := range counts {
			if dst, err = b.take(dst, histogramSample{t: n.t, count: n.v, sum: sums[i], last: counters[i]}); err != nil {
				return nil, err
			}
		}
	}
	return b.flush(dst)
}

func readHistograms(sub aggrchunk.Sub) ([]*histogram.FloatHistogram, error) {
	if !sub.Present() {
		return nil, nil
	}
	chk, err := chunkenc.FromData(sub.Encoding, sub.Data)
	if err != nil {
		return nil, err
	}
	fh, ok := chk.(*chunkenc.FloatHistogramChunk)
	if !ok {
		return nil, fmt.Errorf("encoding %s instead of a float histogram: %w", chk.Encoding(), aggrchunk.ErrInvalid)
	}
	out := make([]*histogram.FloatHistogram, 0, chk.NumSamples())
	it := chk.Iterator(nil)
	for it.Next() != chunkenc.ValNone {
		_, h := it.AtFloatHistogram(nil)
		out = append(out, h)
	}
	if len(out) > 0 && fh.GetCounterResetHeader() == chunkenc.CounterReset {
		out[0].CounterResetHint = histogram.CounterReset // iterators do not say so
	}
	return out, it.Err()
}
