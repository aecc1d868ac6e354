// Package downsample turns series into series of a coarser resolution: raw
// samples into aggregates of five minutes, those into aggregates of an hour.
//
// It stands on floor 3: a function of its arguments, without I/O and clock.
// Every aggregate is exact (docs/format/aggregate-chunk.md): counts and sums
// are conserved, minima and maxima are those of the samples, and the counter
// keeps its first and last true values, so that a reset between two chunks is
// still seen. Windows and chunk sizes follow Thanos' downsampling, so that
// either side reads the other's blocks.
package downsample

import (
	"context"
	"fmt"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/series"
)

// Writer takes the downsampled series in order. A series stays valid only during the call.
type Writer interface {
	AddSeries(s *series.Series) error
}

// Run downsamples every series of set to the resolution to and hands those that
// keep a sample to w. The chunks of each series must not overlap.
func Run(ctx context.Context, set series.Set, w Writer, to block.Resolution) error {
	for set.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		s := set.At()
		chunks, err := Chunks(s.Chunks, to)
		if err != nil {
			return fmt.Errorf("downsample series %s: %w", s.Labels, err)
		}
		if len(chunks) == 0 {
			continue
		}
		if err := w.AddSeries(&series.Series{Labels: s.Labels, Chunks: chunks}); err != nil {
			return fmt.Errorf("write downsampled series %s: %w", s.Labels, err)
		}
	}
	return set.Err()
}

// Chunks downsamples the chunks of one series, which are sorted and do not
// overlap, to the resolution to. Raw samples become aggregates of any coarser
// resolution; aggregates become coarser aggregates. A raw chunk among
// aggregates is brought to their resolution first.
func Chunks(in []series.Chunk, to block.Resolution) ([]series.Chunk, error) {
	from := block.Raw
	for _, c := range in {
		from = max(from, block.Resolution(c.Resolution))
	}
	if to <= from {
		return nil, fmt.Errorf("cannot downsample from %s to %s", from, to)
	}
	var out []series.Chunk
	for _, r := range split(in) {
		var err error
		switch {
		case r.coarse:
			out, err = appendCoarse(out, r, to)
		case from == block.Raw:
			out, err = appendRaw(out, r, to)
		default:
			var mid []series.Chunk
			if mid, err = appendRaw(nil, r, from); err == nil {
				out, err = appendCoarse(out, run{chunks: mid, coarse: true, histogram: r.histogram}, to)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// run is a sequence of chunks that hold the same kind of samples.
type run struct {
	chunks    []series.Chunk
	coarse    bool
	histogram bool
}

// split cuts a chunk list where floats give way to histograms or raw samples to aggregates.
func split(in []series.Chunk) []run {
	var runs []run
	for i, c := range in {
		r := run{coarse: c.Encoding == aggrchunk.Encoding, histogram: isHistogram(c)}
		if n := len(runs); n > 0 && runs[n-1].coarse == r.coarse && runs[n-1].histogram == r.histogram {
			runs[n-1].chunks = append(runs[n-1].chunks, in[i])
			continue
		}
		r.chunks = in[i : i+1 : i+1]
		runs = append(runs, r)
	}
	return runs
}

func isHistogram(c series.Chunk) bool {
	switch c.Encoding {
	case chunkenc.EncHistogram, chunkenc.EncFloatHistogram, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST:
		return true
	case aggrchunk.Encoding:
		subs, err := aggrchunk.Decode(c.Data)
		return err == nil && subs[aggrchunk.Sum].Encoding == chunkenc.EncFloatHistogram
	}
	return false
}

// windowEnd is the last millisecond of the window of t.
func windowEnd(t int64, res block.Resolution) int64 {
	r := int64(res)
	start := t - t%r
	if t%r < 0 {
		start -= r
	}
	return start + r - 1
}

// chunkEnd is where a chunk with a window that ends at end may end: with the
// hour, so that neither a window of five minutes nor one of an hour is cut.
func chunkEnd(end int64) int64 { return windowEnd(end, block.OneHour) }

const (
	// assumedStep is the scrape interval that sizing raw input assumes, in milliseconds.
	assumedStep = 60_000
	// samplesPerChunk is how many windows a chunk should hold at most on average.
	samplesPerChunk = 140
)

// targetChunks is how many chunks of resolution to the samples between first
// and last should fill: n samples at a distance of step.
func targetChunks(n int, first, last, step int64, to block.Resolution) int {
	possible := float64((last - first) / int64(to))
	fullness := 1.0
	if last > first {
		fullness = min(1, float64(n)/(float64(last-first)/float64(step)))
	}
	expected := int(possible*fullness) + 1
	chunks := 1
	for expected/chunks > samplesPerChunk {
		chunks++
	}
	return chunks
}
