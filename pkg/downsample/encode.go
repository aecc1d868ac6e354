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

	payloads []byte // of the last chunks, one behind the other
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
		Data:       e.payload(),
	}
}

// payload puts what was encoded behind the payloads before, or, where there is no room, into new memory:
// of up to payloadsSize, and first of little, because there may be few of them.
func (e *encoder) payload() []byte {
	if size := aggrchunk.MaxSize(e.subs); size > cap(e.payloads)-len(e.payloads) {
		e.payloads = make([]byte, 0, max(size, min(2*cap(e.payloads), payloadsSize)))
	}
	from := len(e.payloads)
	e.payloads = aggrchunk.Append(e.payloads, e.subs)
	return e.payloads[from:len(e.payloads):len(e.payloads)]
}

// payloadsSize is how many bytes of payloads share memory, and live as long as one of them is in use.
const payloadsSize = 64 << 10

// histogramRows are the windows of a chunk, and the first histogram as it was
// scraped, nil where the first window says the same; reset is what the counter says of itself.
type histogramRows struct {
	first   *scrapedHistogram
	windows []histogramWindow
	reset   chunkenc.CounterResetHeader
}

// histograms appends chunks of the rows to dst: one, unless a chunk of
// histograms cannot go on. Then each half is tried.
func (e *encoder) histograms(dst []series.Chunk, r histogramRows, res block.Resolution) ([]series.Chunk, error) {
	err := e.histogramColumns(r)
	half := len(r.windows) / 2
	switch {
	case errors.Is(err, chunkcodec.ErrUnfit) && half > 0:
		if dst, err = e.histograms(dst, histogramRows{r.first, r.windows[:half], r.reset}, res); err != nil {
			return dst, err
		}
		if r.reset == chunkenc.CounterReset {
			r.reset = chunkenc.UnknownCounterReset
		}
		return e.histograms(dst, histogramRows{nil, r.windows[half:], r.reset}, res)
	case errors.Is(err, chunkcodec.ErrUnfit) && r.first != nil:
		r.first = nil
		return e.histograms(dst, r, res)
	case err != nil:
		return dst, err
	}
	return append(dst, e.chunk(r.windows[0].t, r.windows[len(r.windows)-1].t, res)), nil
}

// histogramColumns encodes the aggregates of histograms.
func (e *encoder) histogramColumns(r histogramRows) error {
	windows := r.windows
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
	if r.first != nil {
		e.column.AppendFloatHistogram(0, r.first.t, &r.first.FloatHistogram)
	}
	for i := range windows {
		e.column.AppendFloatHistogram(0, windows[i].t, &windows[i].counter)
	}
	return e.encode(aggrchunk.Counter, &e.column, chunkenc.EncFloatHistogram, r.reset)
}
