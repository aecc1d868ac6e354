package downsample

import (
	"math"
	"reflect"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
)

// naiveFloats is what downsampling floats means. Windows are found by their
// ends; the counter is what was gained since the first sample.
func naiveFloats(samples []point, res block.Resolution) map[int64]window {
	out := map[int64]window{}
	gained, last, seen := 0.0, math.NaN(), int64(math.MinInt64)
	for _, s := range samples {
		if math.IsNaN(s.v) || s.t <= seen {
			continue
		}
		if s.v < last {
			gained += s.v
		} else if !math.IsNaN(last) {
			gained += s.v - last
		}
		last, seen = s.v, s.t
		end := windowEnd(s.t, res)
		w, found := out[end]
		if !found {
			w = window{min: s.v, max: s.v}
		}
		out[end] = window{end, w.count + 1, w.sum + s.v, min(w.min, s.v), max(w.max, s.v), gained}
	}
	return out
}

// byEnd joins the pieces of windows that chunks have cut, and starts the counter at 0.
func byEnd(r reading, res block.Resolution) map[int64]window {
	out := map[int64]window{}
	for _, piece := range r.windows {
		end := windowEnd(piece.t, res)
		w, found := out[end]
		if !found {
			w = window{min: piece.min, max: piece.max}
		}
		out[end] = window{end, w.count + piece.count, w.sum + piece.sum, min(w.min, piece.min), max(w.max, piece.max), piece.counter - r.firstV}
	}
	return out
}

// bytesOf hands out the bytes of a fuzzer's input one after another, then zeros.
type bytesOf struct{ rest []byte }

func (b *bytesOf) next() byte {
	if len(b.rest) == 0 {
		return 0
	}
	n := b.rest[0]
	b.rest = b.rest[1:]
	return n
}

// step is a distance between samples: mostly a scrape interval, sometimes hours.
func (b *bytesOf) step() int64 {
	n := int64(b.next())
	switch {
	case n < 200:
		return 15_000 + n
	case n < 250:
		return (n - 199) * 300_000
	}
	return (n - 249) * 40_000_000
}

// cuts says after which of n samples a chunk ends.
func (b *bytesOf) cuts(n int) (ends []int) {
	for at := 0; at < n; {
		at = min(at+1+int(b.next())%130, n)
		ends = append(ends, at)
	}
	return ends
}

// chunksCut encodes the samples in chunks that end where ends say, at least.
func chunksCut(t testing.TB, s *chunkcodec.Samples, ends []int) (out []series.Chunk) {
	t.Helper()
	from := 0
	for _, to := range ends {
		var part chunkcodec.Samples
		part.Append(s, from, to)
		out = encoded(t, out, &part)
		from = to
	}
	return out
}

// FuzzFloats compares with the naive version, at 5m, at 1h, and at 1h by way of
// 5m, and asserts that the cuts of chunks leave no trace.
func FuzzFloats(f *testing.F) {
	f.Add([]byte{1, 10, 1, 20, 1, 5, 210, 7, 255, 9}, []byte{1}, false)
	f.Add([]byte{1, 251, 1, 20, 1, 252, 1, 3, 253, 8}, []byte{0, 2}, true)
	f.Add([]byte("a counter that is reset now and then, with holes\xff\xff and a stale marker\x01\xfb"), []byte("cut"), false)
	f.Fuzz(func(t *testing.T, data, cutting []byte, started bool) {
		if len(data) > 1<<13 {
			return
		}
		in, cuts := bytesOf{data}, bytesOf{cutting}
		var s chunkcodec.Samples
		var samples []point
		at, v := int64(start), 0.0
		for len(in.rest) > 0 {
			at += in.step()
			switch n := in.next(); {
			case n < 200:
				v += float64(n)
			case n < 250:
				v = float64(n - 200)
			case n == 251:
				samples = append(samples, point{at, math.Float64frombits(value.StaleNaN)})
			default:
				samples = append(samples, point{at, math.NaN()})
			}
			if n := len(samples); n == 0 || samples[n-1].t != at {
				samples = append(samples, point{at, v})
			}
			st := int64(0)
			if started {
				st = start - 1
			}
			s.AppendFloat(st, at, samples[len(samples)-1].v)
		}
		if len(samples) == 0 {
			return
		}
		raw := chunksCut(t, &s, []int{s.Len()})
		fine := chunksOf(t, raw, block.FiveMin)
		for name, got := range map[string][]series.Chunk{
			"5m": fine, "1h": chunksOf(t, raw, block.OneHour), "1h from 5m": chunksOf(t, fine, block.OneHour),
		} {
			res := block.OneHour
			if name == "5m" {
				res = block.FiveMin
			}
			if got, want := byEnd(read(t, got), res), naiveFloats(samples, res); !reflect.DeepEqual(got, want) {
				t.Fatalf("%s of %v:\n got %v\nwant %v", name, samples, got, want)
			}
		}
		if got := chunksOf(t, chunksCut(t, &s, cuts.cuts(s.Len())), block.FiveMin); !reflect.DeepEqual(got, fine) {
			t.Fatalf("chunks cut elsewhere give other bytes for %v", samples)
		}
	})
}

// histogramWindowOf is what a reader sees of a window of histograms.
type histogramWindowOf struct {
	count  float64
	sum    *histogram.FloatHistogram
	gained float64 // observations so far
}

// tally is the naive version's, and a reader's, way through counters.
type tally struct {
	last   *histogram.FloatHistogram
	gained float64
}

func (c *tally) take(h *histogram.FloatHistogram) float64 {
	switch {
	case h.CounterResetHint == histogram.GaugeType:
	case c.last == nil:
	case h.DetectReset(c.last):
		c.gained += h.Count
	default:
		c.gained += h.Count - c.last.Count
	}
	c.last = h
	return c.gained
}

// addWindow joins a window, or a piece of one, to what is there.
func addWindow(t testing.TB, to map[int64]histogramWindowOf, end int64, w histogramWindowOf) {
	t.Helper()
	if before, found := to[end]; found {
		sum, _, _, err := before.sum.Copy().Add(w.sum)
		if err != nil {
			sum = w.sum // custom and exponential buckets have no common sum
		}
		w.count, w.sum = w.count+before.count, sum
	}
	w.sum = w.sum.Copy().Compact(0)
	w.sum.CounterResetHint = histogram.UnknownCounterReset
	to[end] = w
}

// naiveHistograms is what downsampling histograms means.
func naiveHistograms(t testing.TB, s *chunkcodec.Samples, res block.Resolution) map[int64]histogramWindowOf {
	t.Helper()
	out := map[int64]histogramWindowOf{}
	var c tally
	for i, at := range s.T {
		h := histogramAt(s, i).float(nil).Copy()
		if value.IsStaleNaN(h.Sum) {
			continue
		}
		addWindow(t, out, windowEnd(at, res), histogramWindowOf{1, h, c.take(h)})
	}
	return out
}

func readHistograms(t testing.TB, chunks []series.Chunk, res block.Resolution) map[int64]histogramWindowOf {
	t.Helper()
	out := map[int64]histogramWindowOf{}
	var c tally
	for i, chunk := range chunks {
		if i > 0 && chunk.MinTime <= chunks[i-1].MaxTime {
			t.Fatalf("chunk %d begins at %d, before the end of the one before at %d", i, chunk.MinTime, chunks[i-1].MaxTime)
		}
		subs := decode(t, chunk)
		sums, counters := histograms(t, subs[aggrchunk.Sum]), histograms(t, subs[aggrchunk.Counter])
		if len(counters) > len(sums) { // the first one after a reset
			c.take(counters[0])
			counters = counters[1:]
		}
		for k, p := range points(t, subs[aggrchunk.Count]) {
			addWindow(t, out, windowEnd(p.t, res), histogramWindowOf{p.v, sums[k], c.take(counters[k])})
		}
	}
	return out
}

// sameHistograms compares windows; schemas may have been reduced on either way.
// A series of histograms has no first sample in front, so what was gained counts from the
// end of the first window.
func sameHistograms(t testing.TB, name string, got, want map[int64]histogramWindowOf) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: got %d windows, want %d", name, len(got), len(want))
	}
	begin := int64(math.MaxInt64)
	for end := range want {
		begin = min(begin, end)
	}
	for end, w := range want {
		g := got[end]
		g.gained -= got[begin].gained
		w.gained -= want[begin].gained
		if g.sum != nil && !g.sum.UsesCustomBuckets() && !w.sum.UsesCustomBuckets() {
			for _, h := range []*histogram.FloatHistogram{g.sum, w.sum} {
				if err := h.ReduceResolution(min(g.sum.Schema, w.sum.Schema)); err != nil && h.Schema != min(g.sum.Schema, w.sum.Schema) {
					t.Fatal(err)
				}
				h.Compact(0)
			}
		}
		if g.count != w.count || g.gained != w.gained || !g.sum.Equals(w.sum) {
			t.Fatalf("%s, window to %d:\n got %v %v %v\nwant %v %v %v", name, end, g.count, g.gained, g.sum, w.count, w.gained, w.sum)
		}
	}
}

// fuzzedHistograms follows the bytes of a fuzzer; add takes what they make.
func fuzzedHistograms(data []byte, add func(at int64, h *histogram.FloatHistogram)) {
	in := bytesOf{data}
	at := int64(start)
	h := newHistogram(1, nil)
	for len(in.rest) > 0 {
		at += in.step()
		n := in.next()
		sum := h.Sum
		switch {
		case n < 160: // grows
			h.PositiveBuckets[n%3] += float64(n)
			h.NegativeBuckets[0] += float64(n % 2)
			h.ZeroCount += float64(n % 5)
			h.Count += float64(n) + float64(n%2) + float64(n%5)
			h.Sum += float64(n)
			sum = h.Sum
		case n < 190: // a reset
			bounds := h.CustomValues
			h = newHistogram(h.Schema, bounds)
			sum = 0
		case n < 210: // other buckets
			h = newHistogram(int32(n%4), nil)
		case n < 220: // custom ones
			h = newHistogram(histogram.CustomBucketsSchema, []float64{1, 2, float64(n)})
		case n < 230: // one bucket more; there is none twice
			if h.PositiveSpans[0].Offset > 0 {
				h.PositiveSpans[0].Offset--
				h.PositiveSpans[0].Length++
				h.PositiveBuckets = append([]float64{0}, h.PositiveBuckets...)
			}
		case n < 240:
			h.CounterResetHint = histogram.GaugeType
		case n < 245:
			sum = math.Float64frombits(value.StaleNaN)
		default:
			sum = math.NaN()
		}
		sample := h.Copy()
		sample.Sum = sum
		if sample.UsesCustomBuckets() {
			sample.Count -= h.ZeroCount + h.NegativeBuckets[0]
			sample.ZeroCount, sample.ZeroThreshold, sample.NegativeSpans, sample.NegativeBuckets = 0, 0, nil, nil
		}
		add(at, sample)
	}
}

func newHistogram(schema int32, bounds []float64) *histogram.FloatHistogram {
	h := &histogram.FloatHistogram{
		Schema: schema, ZeroThreshold: 0.001, CustomValues: bounds,
		PositiveSpans: []histogram.Span{{Offset: 2, Length: 1}, {Offset: 1, Length: 2}}, PositiveBuckets: []float64{0, 0, 0},
		NegativeSpans: []histogram.Span{{Offset: 1, Length: 1}}, NegativeBuckets: []float64{0},
	}
	if bounds != nil {
		h.PositiveSpans = []histogram.Span{{Offset: 0, Length: 3}}
	}
	return h
}

// integers is a histogram with integer counts, without a hint but for gauges.
func integers(h *histogram.FloatHistogram) *histogram.Histogram {
	out := &histogram.Histogram{
		CounterResetHint: h.CounterResetHint, Schema: h.Schema, ZeroThreshold: h.ZeroThreshold, ZeroCount: uint64(h.ZeroCount), Count: uint64(h.Count), Sum: h.Sum,
		PositiveSpans: h.PositiveSpans, NegativeSpans: h.NegativeSpans, CustomValues: h.CustomValues,
	}
	for side, counts := range [][]float64{h.PositiveBuckets, h.NegativeBuckets} {
		before, deltas := int64(0), []int64{}
		for _, c := range counts {
			deltas = append(deltas, int64(c)-before)
			before = int64(c)
		}
		if side == 0 {
			out.PositiveBuckets = deltas
		} else {
			out.NegativeBuckets = deltas
		}
	}
	return out
}

// FuzzHistograms does for histograms what FuzzFloats does for floats.
func FuzzHistograms(f *testing.F) {
	f.Add([]byte{1, 10, 1, 20, 1, 170, 210, 7, 255, 9}, []byte{1}, false)
	f.Add([]byte{1, 10, 1, 242, 1, 170, 210, 250, 255, 9, 1, 235, 1, 4, 1, 213, 1, 9}, []byte{0, 2}, true)
	f.Add([]byte("\x01a\x01b\x01c\xc8\x01\x01d\x01\xdf\x01e\x01\xca\x01f\x01\xf1\x01\xfa\x01g"), []byte("cut"), true)
	f.Fuzz(func(t *testing.T, data, cutting []byte, floats bool) {
		if len(data) > 1<<12 {
			return
		}
		var s chunkcodec.Samples
		fuzzedHistograms(data, func(at int64, h *histogram.FloatHistogram) {
			if floats {
				s.AppendFloatHistogram(0, at, h)
			} else {
				s.AppendHistogram(0, at, integers(h))
			}
		})
		if s.Len() == 0 {
			return
		}
		raw := chunksCut(t, &s, []int{s.Len()})
		fine := chunksOf(t, raw, block.FiveMin)
		sameHistograms(t, "5m", readHistograms(t, fine, block.FiveMin), naiveHistograms(t, &s, block.FiveMin))
		want := naiveHistograms(t, &s, block.OneHour)
		sameHistograms(t, "1h", readHistograms(t, chunksOf(t, raw, block.OneHour), block.OneHour), want)
		sameHistograms(t, "1h from 5m", readHistograms(t, chunksOf(t, fine, block.OneHour), block.OneHour), naiveHistograms(t, &s, block.OneHour))
		cuts := bytesOf{cutting}
		if got := chunksOf(t, chunksCut(t, &s, cuts.cuts(s.Len())), block.FiveMin); !reflect.DeepEqual(got, fine) {
			t.Fatal("chunks cut elsewhere give other bytes")
		}
	})
}

// FuzzHostile feeds what no writer of chunks has written: an error is right, a panic is not.
func FuzzHostile(f *testing.F) {
	floats := rawChunks(f, []point{{start, 1}, {start + 400_000, 2}, {start + 800_000, 1}})[0]
	coarse := chunksOf(f, []series.Chunk{floats}, block.FiveMin)[0]
	var s chunkcodec.Samples
	fuzzedHistograms([]byte{1, 10, 1, 20, 1, 170, 210, 7, 255, 9}, func(at int64, h *histogram.FloatHistogram) {
		s.AppendHistogram(0, at, integers(h))
	})
	ints := chunksCut(f, &s, []int{s.Len()})[0]
	coarseInts := chunksOf(f, []series.Chunk{ints}, block.FiveMin)[0]
	for _, c := range []series.Chunk{floats, coarse, ints, coarseInts} {
		f.Add(byte(c.Encoding), c.Data, byte(c.Encoding), c.Data)
	}
	f.Fuzz(func(t *testing.T, encoding byte, data []byte, nextEncoding byte, next []byte) {
		if len(data)+len(next) > 1<<14 {
			return
		}
		var in []series.Chunk
		for i, c := range []series.Chunk{{Encoding: chunkenc.Encoding(encoding), Data: data}, {Encoding: chunkenc.Encoding(nextEncoding), Data: next}} {
			c.MinTime, c.MaxTime = start+int64(i)*3_600_000, start+int64(i+1)*3_600_000-1
			if c.Encoding == aggrchunk.Encoding {
				c.Resolution = int64(block.FiveMin)
			}
			in = append(in, c)
		}
		out, err := Chunks(in, block.OneHour)
		if err != nil {
			return
		}
		size := 0
		for _, c := range out {
			decode(t, c)
			size += len(c.Data)
		}
		if most := 1<<16 + 1<<10*(len(data)+len(next)); size > most {
			t.Fatalf("%d bytes out of %d", size, len(data)+len(next))
		}
	})
}
