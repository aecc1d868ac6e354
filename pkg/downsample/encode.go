package downsample

import (
	"fmt"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/series"
)

// encodeFloats writes the windows of a batch as one aggregate chunk. The counter
// gets the first raw sample in front and the last raw value, at the time of the
// last window again, behind; a reader needs them where two chunks meet.
func encodeFloats(b *floatBatch) (series.Chunk, error) {
	var columns [aggrchunk.NumKinds]floatColumn
	for i := range columns {
		if err := columns[i].open(); err != nil {
			return series.Chunk{}, err
		}
	}
	columns[aggrchunk.Counter].append(b.firstT, b.firstV)
	for _, w := range b.windows {
		columns[aggrchunk.Count].append(w.t, w.count)
		columns[aggrchunk.Sum].append(w.t, w.sum)
		columns[aggrchunk.Min].append(w.t, w.min)
		columns[aggrchunk.Max].append(w.t, w.max)
		columns[aggrchunk.Counter].append(w.t, w.counter)
	}
	last := b.windows[len(b.windows)-1].t
	columns[aggrchunk.Counter].append(last, b.lastV)

	var subs aggrchunk.Subs
	for k := range columns {
		subs[k] = columns[k].sub()
	}
	return newChunk(b.windows[0].t, last, b.res, subs), nil
}

// floatColumn is one aggregate while it is written.
type floatColumn struct {
	chunk *chunkenc.XORChunk
	app   chunkenc.Appender
}

func (c *floatColumn) open() (err error) {
	c.chunk = chunkenc.NewXORChunk()
	c.app, err = c.chunk.Appender()
	return err
}

func (c *floatColumn) append(t int64, v float64) { c.app.Append(0, t, v) }

func (c *floatColumn) sub() aggrchunk.Sub {
	return aggrchunk.Sub{Encoding: chunkenc.EncXOR, Data: c.chunk.Bytes()}
}

func newChunk(first, last int64, res block.Resolution, subs aggrchunk.Subs) series.Chunk {
	return series.Chunk{
		MinTime:    first,
		MaxTime:    last,
		Resolution: int64(res),
		Encoding:   aggrchunk.Encoding,
		Data:       aggrchunk.Encode(subs),
	}
}

// encodeHistograms writes the windows as aggregate chunks: one, unless a
// histogram chunk cannot go on (its layout changed in a way that needs a new one).
func encodeHistograms(dst []series.Chunk, windows []histogramWindow, res block.Resolution) ([]series.Chunk, error) {
	for len(windows) > 0 {
		n, c, err := encodeHistogramsOnce(windows, res)
		if err != nil {
			return nil, err
		}
		dst = append(dst, c)
		windows = windows[n:]
	}
	return dst, nil
}

// encodeHistogramsOnce writes as many windows as fit one chunk and returns how many.
func encodeHistogramsOnce(windows []histogramWindow, res block.Resolution) (int, series.Chunk, error) {
	for {
		var count floatColumn
		if err := count.open(); err != nil {
			return 0, series.Chunk{}, err
		}
		sum, fitSum, err := encodeHistogramColumn(windows, func(w histogramWindow) *histogram.FloatHistogram { return w.sum })
		if err != nil {
			return 0, series.Chunk{}, err
		}
		counter, fitCounter, err := encodeHistogramColumn(windows, func(w histogramWindow) *histogram.FloatHistogram { return w.counter })
		if err != nil {
			return 0, series.Chunk{}, err
		}
		if fit := min(fitSum, fitCounter); fit < len(windows) {
			windows = windows[:fit]
			continue
		}
		for _, w := range windows {
			count.append(w.t, w.count)
		}
		subs := aggrchunk.Subs{aggrchunk.Count: count.sub(), aggrchunk.Sum: sum, aggrchunk.Counter: counter}
		return len(windows), newChunk(windows[0].t, windows[len(windows)-1].t, res, subs), nil
	}
}

// encodeHistogramColumn writes one histogram per window until the chunk is full
// and returns how many it took, at least one.
func encodeHistogramColumn(windows []histogramWindow, pick func(histogramWindow) *histogram.FloatHistogram) (aggrchunk.Sub, int, error) {
	var chk chunkenc.Chunk = chunkenc.NewFloatHistogramChunk()
	app, err := chk.Appender()
	if err != nil {
		return aggrchunk.Sub{}, 0, err
	}
	n := 0
	for ; n < len(windows); n++ {
		// The appender may widen the histogram's spans in place.
		next, recoded, nextApp, err := app.AppendFloatHistogram(nil, 0, windows[n].t, pick(windows[n]).Copy(), false)
		if err != nil {
			return aggrchunk.Sub{}, 0, fmt.Errorf("append histogram at %d: %w", windows[n].t, err)
		}
		if next != nil && !recoded {
			break
		}
		if next != nil {
			chk = next
		}
		app = nextApp
	}
	return aggrchunk.Sub{Encoding: chunkenc.EncFloatHistogram, Data: chk.Bytes()}, n, nil
}
