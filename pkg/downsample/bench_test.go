package downsample

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/varve-io/varve/internal/cputest"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
)

// scraped cuts n samples, 15 s apart, into chunks as Prometheus has them. One scrape in 32 is late,
// which changes the distance of one sample in eleven: so it is where Prometheus scrapes itself.
func scraped(t testing.TB, n int, add func(s *chunkcodec.Samples, i int, at int64)) []series.Chunk {
	t.Helper()
	r := rand.New(rand.NewPCG(7, 7))
	var s chunkcodec.Samples
	for i := range n {
		at := start + int64(i)*15_000
		if r.IntN(32) == 0 {
			at += r.Int64N(20)
		}
		add(&s, i, at)
	}
	return encoded(t, nil, &s)
}

// encoded appends chunks of s to dst.
func encoded(t testing.TB, dst []series.Chunk, s *chunkcodec.Samples) []series.Chunk {
	t.Helper()
	chunks, err := chunkcodec.Append(nil, s)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range chunks {
		dst = append(dst, series.Chunk{MinTime: c.MinTime, MaxTime: c.MaxTime, Encoding: c.Encoding, Data: c.Data})
	}
	return dst
}

// latencies observes requests, about 2.5 each 15 s, in up to 48 buckets.
func latencies(r *rand.Rand, h *histogram.Histogram) *histogram.Histogram {
	if h == nil {
		h = &histogram.Histogram{Schema: 3, ZeroThreshold: 1e-128, PositiveSpans: []histogram.Span{{Offset: -24, Length: 48}}, PositiveBuckets: make([]int64, 48)}
	}
	h = h.Copy()
	for range r.IntN(6) {
		at := min(max(int(24+r.NormFloat64()*8), 0), 47)
		h.Count++
		h.Sum += math.Exp2(float64(at-24) / 8)
		h.PositiveBuckets[at]++
		if at < 47 {
			h.PositiveBuckets[at+1]--
		}
	}
	return h
}

// shape makes series of one kind.
type shape struct {
	name   string
	weight int // of a sample, in those of the lightest
	new    func(r *rand.Rand) func(s *chunkcodec.Samples, i int, at int64)
}

const week = 7 * 24 * 60 * 4 // in scrapes

func (s shape) series(t testing.TB, seed uint64, samples int) []series.Chunk {
	t.Helper()
	return scraped(t, samples/s.weight, s.new(rand.New(rand.NewPCG(11, seed))))
}

// shapes are what servers export.
func shapes() []shape {
	return []shape{
		{"counter", 1, func(r *rand.Rand) func(*chunkcodec.Samples, int, int64) {
			requests := 0.0
			return func(s *chunkcodec.Samples, _ int, at int64) {
				if requests += float64(r.IntN(40)); r.IntN(20_000) == 0 {
					requests = 0
				}
				s.AppendFloat(0, at, requests)
			}
		}},
		{"gauge", 1, func(r *rand.Rand) func(*chunkcodec.Samples, int, int64) {
			load := 40.0
			return func(s *chunkcodec.Samples, _ int, at int64) {
				load = math.Abs(load + r.NormFloat64())
				s.AppendFloat(0, at, math.Round(load*100)/100)
			}
		}},
		{"constant", 1, func(*rand.Rand) func(*chunkcodec.Samples, int, int64) {
			return func(s *chunkcodec.Samples, _ int, at int64) { s.AppendFloat(0, at, 1) }
		}},
		{"histogram", 16, func(r *rand.Rand) func(*chunkcodec.Samples, int, int64) {
			var h *histogram.Histogram
			return func(s *chunkcodec.Samples, _ int, at int64) {
				h = latencies(r, h)
				s.AppendHistogram(0, at, h)
			}
		}},
		{"float_histogram", 16, func(r *rand.Rand) func(*chunkcodec.Samples, int, int64) {
			var h *histogram.Histogram
			return func(s *chunkcodec.Samples, _ int, at int64) {
				h = latencies(r, h)
				s.AppendFloatHistogram(0, at, h.ToFloat(nil))
			}
		}},
	}
}

// BenchmarkDownsample reports the CPU time for a sample that goes in. It goes
// through many series, because processors learn one by heart.
func BenchmarkDownsample(b *testing.B) {
	const count = 20
	for _, shape := range shapes() {
		var raw, fine [count][]series.Chunk
		for i := range count {
			raw[i] = shape.series(b, uint64(i), 2*week)
			fine[i] = chunksOf(b, raw[i], block.FiveMin)
		}
		for _, bm := range []struct {
			name string
			in   [count][]series.Chunk
			to   block.Resolution
		}{{"5m", raw, block.FiveMin}, {"1h", fine, block.OneHour}} {
			b.Run(shape.name+"/"+bm.name, func(b *testing.B) {
				samples := 0
				for _, s := range bm.in {
					for _, c := range s {
						samples += sampleCount(c)
					}
				}
				d := downsampler{to: bm.to} // as in Run, which keeps it from series to series
				b.ReportAllocs()
				before := cputest.Used(b)
				for b.Loop() {
					for _, s := range bm.in {
						if err := d.series(s, Decoded{}); err != nil {
							b.Fatal(err)
						}
					}
				}
				b.ReportMetric(float64(cputest.Used(b)-before)/float64(b.N)/float64(samples), "cpu-ns/sample")
				b.ReportMetric(float64(samples), "samples/op")
			})
		}
	}
}
