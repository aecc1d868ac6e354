package downsample

import (
	"encoding/binary"
	"math"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/series"
)

const (
	// assumedStep is the scrape interval that sizing raw input assumes, in milliseconds.
	assumedStep = 60_000
	// samplesPerChunk is how many windows a chunk should hold at most on average.
	samplesPerChunk = 140
	// maxWindows is how many windows a chunk holds at most, whatever its sizing
	// says: an hour more must not overflow a chunk's count.
	maxWindows = 1 << 15
)

// windowEnd is the last millisecond of the window of t.
func windowEnd(t int64, res block.Resolution) int64 {
	r := int64(res)
	if t >= math.MaxInt64-r {
		return math.MaxInt64
	}
	m := t % r
	if m < 0 {
		m += r
	}
	return t - m + r - 1
}

// chunkEnd is where a chunk with a window that ends at end may end: with the
// hour, so that neither a window of five minutes nor one of an hour is cut.
func chunkEnd(end int64) int64 { return windowEnd(end, block.OneHour) }

// sampleCount is what the header of a chunk says.
func sampleCount(c series.Chunk) int {
	switch {
	case c.Encoding == aggrchunk.Encoding:
		return aggrchunk.NumSamples(c.Data)
	case len(c.Data) < 2:
		return 0
	}
	n := int(binary.BigEndian.Uint16(c.Data))
	if c.Encoding == chunkenc.EncHistogramST || c.Encoding == chunkenc.EncFloatHistogramST {
		n &= 1<<14 - 1 // the bits above say something about resets
	}
	return n
}

// size is how many samples come in, and how many chunks they should fill.
type size struct{ samples, chunks int }

// sizeOf sizes the output for a run whose samples should be step apart.
func sizeOf(in run, step int64, to block.Resolution) size {
	over := in.chunks[len(in.chunks)-1].MaxTime - in.chunks[0].MinTime
	return size{in.samples, targetChunks(in.samples, over, step, to)}
}

// samplesPerChunk is after how many samples a chunk ends with its hour.
func (s size) samplesPerChunk() int { return s.samples/s.chunks + 1 }

// targetChunks is how many chunks of resolution to should hold n samples that
// lie in a range of time and ought to be step apart.
func targetChunks(n int, over, step int64, to block.Resolution) int {
	if over <= 0 {
		return 1
	}
	fullness := min(1, float64(n)/(float64(over)/float64(step)))
	windows := int(float64(over/int64(to))*fullness) + 1
	return windows/(samplesPerChunk+1) + 1
}
