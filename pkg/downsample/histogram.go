package downsample

import (
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/chunkcodec"
)

// rawHistograms downsamples chunks of histograms. Stale markers, and samples
// that go back in time, are left out.
func (d *downsampler) rawHistograms(r run) error {
	b := &d.histograms
	b.begin(d.to)
	b.limit = sizeOf(r, assumedStep, d.to).samplesPerChunk()
	for _, c := range r.chunks {
		b.keepLast()
		d.in.Reset()
		d.decoder.Reset()
		if err := d.decoder.Decode(c.Encoding, c.Data, &d.in); err != nil {
			return fmt.Errorf("read chunk at %d: %w", c.MinTime, err)
		}
		b.cut = true
		for i, t := range d.in.T {
			h := histogramAt(&d.in, i)
			if value.IsStaleNaN(h.total()) {
				continue
			}
			if err := d.takeHistogram(histogramSample{t: t, count: 1, sum: h, firstT: t, first: h, last: h}); err != nil {
				return fmt.Errorf("chunk at %d: %w", c.MinTime, err)
			}
		}
	}
	return d.flushHistograms()
}

// coarseHistograms aggregates chunks of aggregates further.
func (d *downsampler) coarseHistograms(r run) error {
	b := &d.histograms
	b.begin(d.to)
	b.limit = sizeOf(r, r.chunks[0].Resolution, d.to).samplesPerChunk()
	for _, c := range r.chunks {
		b.keepLast()
		subs, err := d.decodeColumns(c)
		if err != nil {
			return fmt.Errorf("chunk at %d: %w", c.MinTime, err)
		}
		count, sum, counter := &d.columns[aggrchunk.Count], &d.columns[aggrchunk.Sum], &d.columns[aggrchunk.Counter]
		first := min(1, max(0, counter.Len()-count.Len())) // behind it the windows begin
		if !slices.Equal(count.T, sum.T) || !slices.Equal(count.T, counter.T[first:]) {
			return fmt.Errorf("chunk at %d: aggregates of different windows: %w", c.MinTime, aggrchunk.ErrInvalid)
		}
		for _, k := range []aggrchunk.Kind{aggrchunk.Sum, aggrchunk.Counter} {
			if !isHistogram(subs[k].Encoding) {
				return fmt.Errorf("chunk at %d: %s instead of histograms: %w", c.MinTime, subs[k].Encoding, aggrchunk.ErrInvalid)
			}
		}
		b.cut = true
		reset := chunkcodec.ResetHeader(subs[aggrchunk.Counter].Encoding, subs[aggrchunk.Counter].Data) == chunkenc.CounterReset
		for i, t := range count.T {
			s := histogramSample{t: t, count: count.V[i], sum: histogramAt(sum, i), last: histogramAt(counter, first+i), firstT: t, reset: reset && i == 0}
			if s.first = s.last; i == 0 && counter.T[0] > b.lastT {
				s.firstT, s.first = counter.T[0], histogramAt(counter, 0)
			}
			if err := d.takeHistogram(s); err != nil {
				return fmt.Errorf("chunk at %d: %w", c.MinTime, err)
			}
		}
	}
	return d.flushHistograms()
}

// histogramSample is count histograms that add up to sum. Of those the last one is known, and
// at the begin of a chunk the first one; elsewhere the last one stands for it.
type histogramSample struct {
	t, firstT        int64
	count            float64
	sum, first, last anyHistogram
	reset            bool // the source says that the counter was reset before
}

// takeHistogram adds a sample. Chunks tell apart only what their writer kept
// apart: inside one there is no reset, and no change of buckets, so all that is
// looked for where one begins.
func (d *downsampler) takeHistogram(s histogramSample) error {
	b := &d.histograms
	if s.t <= b.lastT {
		return nil
	}
	ends, apart := b.full(s.t), false
	if b.cut {
		if err := s.check(); err != nil {
			return err
		}
		s.reset = b.resets(s)
		apart = s.reset || !b.compatible(s.last)
		ends = ends || apart
		b.cut = false
	}
	if ends {
		if err := d.flushHistograms(); err != nil {
			return err
		}
		b.reset, b.apart = s.reset, apart
	}
	return b.add(s)
}

// flushHistograms emits the batch as chunks, unless it is empty.
func (d *downsampler) flushHistograms() error {
	b := &d.histograms
	b.close(b.lastT)
	if len(b.windows) > 0 {
		reset := chunkenc.UnknownCounterReset
		switch {
		case b.last.gauge():
			reset = chunkenc.GaugeType
		case b.reset:
			reset = chunkenc.CounterReset
		}
		if err := b.unify(); err != nil {
			return err
		}
		rows := histogramRows{windows: b.windows, reset: reset}
		if b.apart && b.first.t < b.windows[0].t {
			rows.first = &b.first
		}
		var err error
		if d.out, err = d.encoder.histograms(d.out, rows, b.res); err != nil {
			return err
		}
	}
	b.next()
	return nil
}

// histogramBatch gathers the histograms that become one aggregate chunk. A batch
// ends before a counter reset, so that the counter of a chunk is what was scraped,
// and the chunk after says that a reset precedes it.
type histogramBatch struct {
	res   block.Resolution
	limit int // samples after which the chunk ends with its hour

	seen    int
	end     int64             // of the current window
	open    bool              // the last window still grows
	windows []histogramWindow // their memory serves again
	first   scrapedHistogram  // the first one of all
	reset   bool              // the counter was reset before it
	apart   bool              // so it was, or has other buckets than before

	cut     bool // the next sample is the first one of its chunk
	lastT   int64
	last    anyHistogram // at lastT, in the batches before, too
	kept    histogram.FloatHistogram
	scratch [2]histogram.FloatHistogram
}

// histogramWindow is one row of the aggregates.
type histogramWindow struct {
	t            int64
	count        float64
	sum, counter histogram.FloatHistogram
}

// scrapedHistogram is a histogram as it was scraped.
type scrapedHistogram struct {
	t int64
	histogram.FloatHistogram
}

// begin prepares for the samples of another run.
func (b *histogramBatch) begin(res block.Resolution) {
	b.res, b.lastT, b.last = res, math.MinInt64, anyHistogram{}
	b.next()
}

// next empties the batch.
func (b *histogramBatch) next() {
	b.seen, b.end, b.reset, b.apart = 0, math.MinInt64, false, false
	b.windows = b.windows[:0]
}

// keepLast keeps the last histogram beyond the memory that it was decoded into.
func (b *histogramBatch) keepLast() {
	if b.last.none() || b.last.floats == &b.kept {
		return
	}
	b.last.copyTo(&b.kept)
	b.last = anyHistogram{floats: &b.kept}
}

// full reports whether a sample at t belongs to the next chunk.
func (b *histogramBatch) full(t int64) bool {
	return (b.seen >= b.limit || len(b.windows) >= maxWindows) && t > chunkEnd(b.end)
}

// compatible reports whether h can share a chunk with the histograms before:
// gauges and counters, custom and exponential buckets, and different custom bounds do not mix.
func (b *histogramBatch) compatible(h anyHistogram) bool {
	if b.last.none() {
		return true
	}
	l, before := h.layout(), b.last.layout()
	return h.gauge() == b.last.gauge() && l.custom() == before.custom() &&
		histogram.CustomBucketBoundsMatch(l.bounds, before.bounds)
}

// resets reports whether the counter was reset before the first sample of a
// chunk. What an aggregate says of itself holds: its predecessor may be in
// another block.
func (b *histogramBatch) resets(s histogramSample) bool {
	switch {
	case s.last.gauge():
		return false
	case s.reset || b.last.none():
		return s.reset
	}
	before, h := b.last.float(&b.scratch[0]), s.first.float(&b.scratch[1])
	unknown := *h // its hint may be about a sample that was left out
	unknown.CounterResetHint = histogram.UnknownCounterReset
	return unknown.DetectReset(before)
}

// add takes a sample into its window.
func (b *histogramBatch) add(s histogramSample) error {
	if s.t > b.end {
		b.close(b.end)
		b.end = windowEnd(s.t, b.res)
	}
	if len(b.windows) == 0 {
		b.first.t = s.firstT
		s.first.copyTo(&b.first.FloatHistogram)
		b.first.Compact(0)
		b.first.CounterResetHint = histogram.UnknownCounterReset
	}
	b.seen++
	b.lastT, b.last = s.t, s.last
	if b.open {
		w := &b.windows[len(b.windows)-1]
		w.count += s.count
		return s.sum.addTo(&w.sum, &b.scratch[0])
	}
	if n := len(b.windows); n < cap(b.windows) {
		b.windows = b.windows[:n+1]
	} else {
		b.windows = append(b.windows, histogramWindow{})
	}
	w := &b.windows[len(b.windows)-1]
	w.count = s.count
	s.sum.copyTo(&w.sum)
	w.sum.CounterResetHint = histogram.GaugeType
	b.open = true
	return nil
}

// close ends the current window at end, if there is one. Its empty buckets go:
// which of them there are depends on the other histograms of a source's chunk.
func (b *histogramBatch) close(end int64) {
	if !b.open {
		return
	}
	w := &b.windows[len(b.windows)-1]
	w.t = end
	b.last.copyTo(&w.counter)
	w.counter.Compact(0)
	w.sum.Compact(0)
	if !b.last.gauge() {
		w.counter.CounterResetHint = histogram.UnknownCounterReset
	}
	b.open = false
}

// unify brings all histograms to the coarsest schema and the widest zero bucket
// among them, so that one chunk can hold them.
func (b *histogramBatch) unify() error {
	common := &histogram.FloatHistogram{Schema: b.first.Schema, ZeroThreshold: b.first.ZeroThreshold}
	differs := false
	for h := range b.all {
		differs = differs || h.Schema != common.Schema || h.ZeroThreshold != common.ZeroThreshold
	}
	if !differs || b.first.UsesCustomBuckets() { // compatible lets only equal bounds into a batch
		return nil
	}
	for h := range b.all {
		if _, _, _, err := common.Add(h); err != nil {
			return fmt.Errorf("bring histograms of schemas %d and %d together: %w", common.Schema, h.Schema, err)
		}
	}
	for h := range b.all {
		out := histogram.FloatHistogram{Schema: common.Schema, ZeroThreshold: common.ZeroThreshold}
		if _, _, _, err := out.Add(h); err != nil {
			return fmt.Errorf("bring a histogram of schema %d to %d: %w", h.Schema, common.Schema, err)
		}
		out.CounterResetHint = h.CounterResetHint
		*h = out
	}
	return nil
}

// all are the histograms that the chunk will hold.
func (b *histogramBatch) all(yield func(*histogram.FloatHistogram) bool) {
	if !yield(&b.first.FloatHistogram) {
		return
	}
	for i := range b.windows {
		if !yield(&b.windows[i].sum) || !yield(&b.windows[i].counter) {
			return
		}
	}
}
