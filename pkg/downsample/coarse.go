package downsample

import (
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
)

// coarseFloats aggregates chunks of aggregates further. They are combined
// whole: the true first and last values of a counter stand at their edges.
func (d *downsampler) coarseFloats(r run) (err error) {
	chunks := r.chunks
	b := &d.floats
	b.begin(d.to)
	perBatch := max(1, len(chunks)/sizeOf(r, chunks[0].Resolution, d.to).chunks)
	for i, c := range chunks {
		var rows floatRows
		if r.known.rows != nil {
			rows = r.known.rows[i]
		} else if rows, err = d.decodeRows(c); err != nil {
			return fmt.Errorf("chunk at %d: %w", c.MinTime, err)
		}
		// A batch of less than perBatch would be a chunk smaller than the others.
		ends := i%perBatch == 0 && len(chunks)-i >= perBatch
		if ends || len(b.rows.count)+len(rows.count) > maxWindows {
			if err := d.flushFloats(); err != nil {
				return err
			}
		}
		if err := b.addRows(rows); err != nil {
			return fmt.Errorf("chunk at %d: %w", c.MinTime, err)
		}
	}
	return d.flushFloats()
}

// decodeRows reads an aggregate chunk of floats. Its counter keeps the last raw value as an extra row.
func (d *downsampler) decodeRows(c series.Chunk) (floatRows, error) {
	subs, err := d.decodeColumns(c)
	if err != nil {
		return floatRows{}, err
	}
	count, sum := &d.columns[aggrchunk.Count], &d.columns[aggrchunk.Sum]
	lowest, highest := &d.columns[aggrchunk.Min], &d.columns[aggrchunk.Max]
	if !slices.Equal(count.T, sum.T) || !slices.Equal(count.T, lowest.T) || !slices.Equal(count.T, highest.T) {
		return floatRows{}, fmt.Errorf("aggregates of different windows: %w", aggrchunk.ErrInvalid)
	}
	for _, s := range subs {
		if s.Encoding != chunkenc.EncXOR {
			return floatRows{}, fmt.Errorf("%s among aggregates of floats: %w", s.Encoding, aggrchunk.ErrInvalid)
		}
	}
	if count.Len() == 0 {
		return floatRows{}, nil
	}
	counter := &d.columns[aggrchunk.Counter]
	if n := count.Len(); counter.Len() != n+2 || !slices.Equal(counter.T[1:n+1], count.T) {
		if err := realign(counter, subs[aggrchunk.Counter], count.T); err != nil {
			return floatRows{}, err
		}
	}
	return floatRows{counter.T, count.V, sum.V, lowest.V, highest.V, counter.V}, nil
}

// decodeColumns reads all aggregates of a chunk into d.columns, which are valid until the next one is read.
func (d *downsampler) decodeColumns(c series.Chunk) (aggrchunk.Subs, error) {
	subs, err := aggrchunk.Decode(c.Data)
	if err != nil {
		return subs, err
	}
	d.decoder.Reset()
	for k, s := range subs {
		d.columns[k].Reset()
		if !s.Present() {
			continue
		}
		if err := d.decoder.Decode(s.Encoding, s.Data, &d.columns[k]); err != nil {
			return subs, fmt.Errorf("%s: %w", aggrchunk.Kind(k), err)
		}
	}
	return subs, nil
}

// realign brings a counter that does not stand at the windows' ends, as merging
// of downsampled replicas may leave it, into the form that it has otherwise: the
// first sample, the running value at each end, and the last raw value.
func realign(counter *chunkcodec.Samples, sub aggrchunk.Sub, ends []int64) error {
	if counter.Len() == 0 {
		return fmt.Errorf("no counter: %w", aggrchunk.ErrInvalid)
	}
	r := aggrchunk.NewCounterReader([]aggrchunk.Sub{sub})
	if r.Next() != chunkenc.ValFloat {
		return fmt.Errorf("a counter of no numbers: %w", aggrchunk.ErrInvalid)
	}
	t, v := r.At()
	more := true
	counter.Reset()
	counter.AppendFloat(0, t, v)
	for i, end := range ends {
		if i == len(ends)-1 {
			end = math.MaxInt64
		}
		for more && t <= end {
			_, v = r.At()
			if more = r.Next() != chunkenc.ValNone; more {
				t = r.AtT()
			}
		}
		counter.AppendFloat(0, ends[i], v)
	}
	if r.Err() != nil {
		return r.Err()
	}
	counter.AppendFloat(0, ends[len(ends)-1], r.LastRaw())
	return nil
}

// addRows takes the windows of a chunk. Its counter starts at its first raw
// value; what the series had gained before goes on top, and a raw value below
// the last one is a reset. Guarded by BenchmarkDownsample.
func (b *floatBatch) addRows(in floatRows) error {
	n := len(in.count)
	if n == 0 {
		return nil
	}
	ends, counter := in.t[1:n+1], in.counter[1:n+1]
	switch first := in.counter[0]; {
	case len(b.rows.t) == 0:
		b.rows.first(in.t[0], first)
	case first < b.lastV:
		b.base = b.cur.counter
	default:
		b.base = b.cur.counter - b.lastV
	}
	for i, t := range ends {
		if t <= b.seenT {
			return fmt.Errorf("goes back from %d to %d: %w", b.seenT, t, aggrchunk.ErrInvalid)
		}
		if t > b.end {
			b.open(t)
		}
		w := &b.cur
		w.count += in.count[i]
		w.sum += in.sum[i]
		w.min = min(w.min, in.min[i])
		w.max = max(w.max, in.max[i])
		w.counter = b.base + counter[i]
		b.seenT = t
	}
	b.lastT, b.lastV = ends[n-1], in.counter[n+1]
	return nil
}
