package downsample

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/series"
)

// appendRaw downsamples a run of raw chunks onto dst.
func appendRaw(dst []series.Chunk, r run, to block.Resolution) ([]series.Chunk, error) {
	n := 0
	for _, c := range r.chunks {
		if len(c.Data) >= 2 {
			n += int(binary.BigEndian.Uint16(c.Data))
		}
	}
	first, last := r.chunks[0].MinTime, r.chunks[len(r.chunks)-1].MaxTime
	perChunk := n/targetChunks(n, first, last, assumedStep, to) + 1
	if r.histogram {
		return appendHistograms(dst, r.chunks, histogramBatch{res: to, limit: perChunk})
	}
	return appendFloats(dst, r.chunks, floatBatch{res: to, limit: perChunk})
}

// appendFloats feeds the samples of chunks through batches. Stale markers, and
// samples that go back in time, are left out.
func appendFloats(dst []series.Chunk, chunks []series.Chunk, b floatBatch) ([]series.Chunk, error) {
	lastT := int64(math.MinInt64)
	var it chunkenc.Iterator
	for _, c := range chunks {
		chk, err := chunkenc.FromData(c.Encoding, c.Data)
		if err != nil {
			return nil, fmt.Errorf("open chunk at %d: %w", c.MinTime, err)
		}
		it = chk.Iterator(it)
		for it.Next() == chunkenc.ValFloat {
			t, v := it.At()
			if t <= lastT || value.IsStaleNaN(v) {
				continue
			}
			lastT = t
			if b.full(t) {
				if dst, err = b.flush(dst); err != nil {
					return nil, err
				}
			}
			b.add(t, v)
		}
		if err := it.Err(); err != nil {
			return nil, fmt.Errorf("read chunk at %d: %w", c.MinTime, err)
		}
	}
	return b.flush(dst)
}

// floatBatch gathers the samples that become one aggregate chunk.
type floatBatch struct {
	res   block.Resolution
	limit int // samples after which the chunk ends with its window

	seen    int   // samples taken, NaN included
	end     int64 // end of the current window
	cur     floatWindow
	windows []floatWindow
	lastT   int64 // time of the last sample taken

	// The counter runs as base plus the raw value; base grows at each reset.
	firstT        int64
	firstV, lastV float64
	base          float64
	any           bool
}

// floatWindow is one row of the aggregates.
type floatWindow struct {
	t                             int64
	count, sum, min, max, counter float64
}

// full reports whether a sample at t belongs to the next chunk.
func (b *floatBatch) full(t int64) bool { return b.seen >= b.limit && t > chunkEnd(b.end) }

func (b *floatBatch) add(t int64, v float64) {
	b.seen++
	if b.cur.count > 0 && t > b.end {
		b.windows = append(b.windows, b.closed(b.end))
		b.cur = floatWindow{}
	}
	b.end = windowEnd(t, b.res)
	if math.IsNaN(v) {
		return
	}
	b.lastT = t
	switch {
	case !b.any:
		b.any, b.firstT, b.firstV = true, t, v
	case v < b.lastV:
		b.base += b.lastV
	}
	b.lastV = v
	if b.cur.count == 0 {
		b.cur.min, b.cur.max = v, v
	}
	b.cur.count++
	b.cur.sum += v
	b.cur.min = min(b.cur.min, v)
	b.cur.max = max(b.cur.max, v)
}

// closed is the current window with its time and its counter.
func (b *floatBatch) closed(end int64) floatWindow {
	w := b.cur
	w.t, w.counter = end, b.base+b.lastV
	return w
}

// flush appends the batch as a chunk and empties it. The last window ends with the last sample.
func (b *floatBatch) flush(dst []series.Chunk) ([]series.Chunk, error) {
	if b.cur.count > 0 {
		b.windows = append(b.windows, b.closed(b.lastT))
	}
	if len(b.windows) > 0 {
		c, err := encodeFloats(b)
		if err != nil {
			return nil, err
		}
		dst = append(dst, c)
	}
	*b = floatBatch{res: b.res, limit: b.limit, windows: b.windows[:0]}
	return dst, nil
}
