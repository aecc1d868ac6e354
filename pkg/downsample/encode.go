package downsample

import (
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
)

// encoder writes aggregate chunks. It keeps its memory from one to the next.
type encoder struct {
	codec   chunkcodec.Encoder
	buffers [aggrchunk.NumKinds][]byte
	column  chunkcodec.Samples
	subs    aggrchunk.Subs
}

// floats writes the rows of a batch. The counter gets the first raw sample in
// front and the last raw value, at the time of the last window again, behind; a
// reader needs them where two chunks meet.
func (e *encoder) floats(b *floatBatch) (series.Chunk, error) {
	r := &b.rows
	n := len(r.count)
	ends, last := r.t[1:], r.t[n]
	e.subs = aggrchunk.Subs{}
	for k, column := range [...][]float64{r.count, r.sum, r.min, r.max} {
		if err := e.xor(aggrchunk.Kind(k), ends, column); err != nil {
			return series.Chunk{}, err
		}
	}
	r.t, r.counter = append(r.t, last), append(r.counter, b.lastV)
	if err := e.xor(aggrchunk.Counter, r.t, r.counter); err != nil {
		return series.Chunk{}, err
	}
	return e.chunk(ends[0], last, b.res), nil
}

// xor encodes a column of floats.
func (e *encoder) xor(k aggrchunk.Kind, t []int64, v []float64) error {
	return e.encode(k, &chunkcodec.Samples{T: t, V: v}, chunkenc.EncXOR, chunkenc.UnknownCounterReset)
}

func (e *encoder) encode(k aggrchunk.Kind, s *chunkcodec.Samples, enc chunkenc.Encoding, reset chunkenc.CounterResetHeader) (err error) {
	if e.buffers[k], err = e.codec.EncodeTo(e.buffers[k][:0], enc, s, reset); err != nil {
		return fmt.Errorf("encode %s of %d windows: %w", k, s.Len(), err)
	}
	e.subs[k] = aggrchunk.Sub{Encoding: enc, Data: e.buffers[k]}
	return nil
}

// chunk is made of what was encoded.
func (e *encoder) chunk(first, last int64, res block.Resolution) series.Chunk {
	return series.Chunk{
		MinTime:    first,
		MaxTime:    last,
		Resolution: int64(res),
		Encoding:   aggrchunk.Encoding,
		Data:       aggrchunk.Encode(e.subs),
	}
}

// histograms appends chunks of the windows to dst: one, unless a chunk of
// histograms cannot go on. Then each half is tried.
func (e *encoder) histograms(dst []series.Chunk, windows []histogramWindow, reset chunkenc.CounterResetHeader, res block.Resolution) ([]series.Chunk, error) {
	err := e.histogramColumns(windows, reset)
	if half := len(windows) / 2; errors.Is(err, chunkcodec.ErrUnfit) && half > 0 {
		if dst, err = e.histograms(dst, windows[:half], reset, res); err != nil {
			return dst, err
		}
		if reset == chunkenc.CounterReset {
			reset = chunkenc.UnknownCounterReset
		}
		return e.histograms(dst, windows[half:], reset, res)
	}
	if err != nil {
		return dst, err
	}
	return append(dst, e.chunk(windows[0].t, windows[len(windows)-1].t, res)), nil
}

// histogramColumns encodes the aggregates of histograms; reset is what the counter says of itself.
func (e *encoder) histogramColumns(windows []histogramWindow, reset chunkenc.CounterResetHeader) error {
	e.subs = aggrchunk.Subs{}
	e.column.Reset()
	for i := range windows {
		e.column.AppendFloat(0, windows[i].t, windows[i].count)
	}
	if err := e.encode(aggrchunk.Count, &e.column, chunkenc.EncXOR, chunkenc.UnknownCounterReset); err != nil {
		return err
	}
	e.column.Reset()
	for i := range windows {
		e.column.AppendFloatHistogram(0, windows[i].t, &windows[i].sum)
	}
	if err := e.encode(aggrchunk.Sum, &e.column, chunkenc.EncFloatHistogram, chunkenc.GaugeType); err != nil {
		return err
	}
	e.column.Reset()
	for i := range windows {
		e.column.AppendFloatHistogram(0, windows[i].t, &windows[i].counter)
	}
	return e.encode(aggrchunk.Counter, &e.column, chunkenc.EncFloatHistogram, reset)
}
