package downsample

import (
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/series"
)

// appendHistograms feeds the samples of chunks through batches. Stale markers,
// and samples that go back in time, are left out.
func appendHistograms(dst []series.Chunk, chunks []series.Chunk, b histogramBatch) ([]series.Chunk, error) {
	lastT := int64(math.MinInt64)
	for _, c := range chunks {
		chk, err := chunkenc.FromData(c.Encoding, c.Data)
		if err != nil {
			return nil, fmt.Errorf("open chunk at %d: %w", c.MinTime, err)
		}
		it := chk.Iterator(nil)
		for it.Next() != chunkenc.ValNone {
			t, h := it.AtFloatHistogram(nil)
			if t <= lastT || value.IsStaleNaN(h.Sum) {
				continue
			}
			lastT = t
			if dst, err = b.take(dst, histogramSample{t: t, count: 1, sum: h, last: h}); err != nil {
				return nil, err
			}
		}
		if err := it.Err(); err != nil {
			return nil, fmt.Errorf("read chunk at %d: %w", c.MinTime, err)
		}
	}
	return b.flush(dst)
}

// histogramSample is count histograms that add up to sum and of which the last one is last.
type histogramSample struct {
	t         int64
	count     float64
	sum, last *histogram.FloatHistogram
}

// histogramBatch gathers the histograms that become one aggregate chunk. A batch
// ends before a counter reset, so that the counter of a chunk is what was scraped,
// and the chunk after says that a reset precedes it.
type histogramBatch struct {
	res   block.Resolution
	limit int // samples after which the chunk ends with its window

	seen    int
	end     int64 // end of the current window
	cur     histogramWindow
	windows []histogramWindow
	lastT   int64
	last    *histogram.FloatHistogram // the sample before, of an earlier batch, too
	reset   bool                      // the counter was reset before the first sample of the batch
}

// histogramWindow is one row of the aggregates.
type histogramWindow struct {
	t            int64
	count        float64
	sum, counter *histogram.FloatHistogram
}

// full reports whether a sample at t belongs to the next chunk.
func (b *histogramBatch) full(t int64) bool { return b.seen >= b.limit && t > chunkEnd(b.end) }

// compatible reports whether h can share a chunk with the histograms before:
// gauges and counters, custom and exponential buckets, and different custom bounds do not mix.
func (b *histogramBatch) compatible(h *histogram.FloatHistogram) bool {
	return b.last == nil ||
		isGauge(h) == isGauge(b.last) &&
			h.UsesCustomBuckets() == b.last.UsesCustomBuckets() &&
			(!h.UsesCustomBuckets() || histogram.CustomBucketBoundsMatch(h.CustomValues, b.last.CustomValues))
}

func isGauge(h *histogram.FloatHistogram) bool { return h.CounterResetHint == histogram.GaugeType }

// resets reports whether the counter was reset before h. What an aggregate says of
// itself holds: its predecessor may be in another block.
func (b *histogramBatch) resets(h *histogram.FloatHistogram) bool {
	if isGauge(h) {
		return false
	}
	return h.CounterResetHint == histogram.CounterReset || b.last != nil && h.DetectReset(b.last)
}

// take adds a sample. One whose sum is no number is left out; a reset before it
// is one before the next.
func (b *histogramBatch) take(dst []series.Chunk, s histogramSample) (_ []series.Chunk, err error) {
	if reset := b.resets(s.last); reset || b.full(s.t) || !b.compatible(s.last) {
		if dst, err = b.flush(dst); err != nil {
			return nil, err
		}
		b.reset = b.reset || reset
	}
	b.seen++
	if b.cur.count > 0 && s.t > b.end {
		b.closeWindow(b.end)
	}
	b.end = windowEnd(s.t, b.res)
	if math.IsNaN(s.sum.Sum) {
		return dst, nil
	}
	b.lastT, b.last = s.t, s.last
	b.cur.count += s.count
	b.cur.sum, err = plus(b.cur.sum, s.sum)
	return dst, err
}

func (b *histogramBatch) closeWindow(end int64) {
	w := b.cur
	w.t, w.counter = end, b.last.Copy()
	switch {
	case isGauge(b.last):
	case b.reset && len(b.windows) == 0:
		w.counter.CounterResetHint = histogram.CounterReset
	default:
		w.counter.CounterResetHint = histogram.UnknownCounterReset
	}
	w.sum.CounterResetHint = histogram.GaugeType
	b.windows = append(b.windows, w)
	b.cur = histogramWindow{}
}

// flush appends the batch as one chunk, or as several where a histogram chunk
// cannot hold all of it, and empties it. The last window ends with the last sample.
func (b *histogramBatch) flush(dst []series.Chunk) ([]series.Chunk, error) {
	if b.cur.count > 0 {
		b.closeWindow(b.lastT)
	}
	windows := b.windows
	pending := b.reset && len(windows) == 0 // nothing that could say so
	*b = histogramBatch{res: b.res, limit: b.limit, last: b.last, reset: pending}
	if len(windows) == 0 {
		return dst, nil
	}
	if err := unify(windows); err != nil {
		return nil, err
	}
	return encodeHistograms(dst, windows, b.res)
}

// plus returns a new histogram with the buckets of both; a may be nil.
func plus(a, b *histogram.FloatHistogram) (*histogram.FloatHistogram, error) {
	if a == nil {
		return b.Copy(), nil
	}
	out, _, _, err := a.Copy().Add(b)
	if err != nil {
		return nil, fmt.Errorf("add histograms of schema %d and %d: %w", a.Schema, b.Schema, err)
	}
	return out, nil
}

// unify brings all histograms to the coarsest schema and the widest zero bucket
// among them, so that one chunk can hold them.
func unify(windows []histogramWindow) error {
	first := windows[0].sum
	if first.UsesCustomBuckets() {
		return nil // compatible lets only equal bounds into a batch
	}
	common := &histogram.FloatHistogram{Schema: first.Schema, ZeroThreshold: first.ZeroThreshold}
	fold := func(h *histogram.FloatHistogram) error {
		_, _, _, err := common.Add(h)
		return err
	}
	for _, w := range windows {
		if err := fold(w.sum); err != nil {
			return err
		}
		if err := fold(w.counter); err != nil {
			return err
		}
	}
	empty := &histogram.FloatHistogram{Schema: common.Schema, ZeroThreshold: common.ZeroThreshold}
	for i := range windows {
		for _, h := range []**histogram.FloatHistogram{&windows[i].sum, &windows[i].counter} {
			if (*h).Schema == empty.Schema && (*h).ZeroThreshold == empty.ZeroThreshold {
				continue
			}
			out, err := plus(empty, *h)
			if err != nil {
				return err
			}
			out.CounterResetHint = (*h).CounterResetHint
			*h = out
		}
	}
	return nil
}
