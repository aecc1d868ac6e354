package dedup

import (
	"math/rand/v2"
	"testing"

	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
)

// pair is a counter over eight hours as two replicas scrape it every 15 s with
// a jitter of milliseconds; the first misses some scrapes.
func pair(b *testing.B, missed float64, burst int) [][]series.Chunk {
	b.Helper()
	r := rand.New(rand.NewPCG(31, 32))
	var out [][]series.Chunk
	for _, phase := range []int64{2_000, 9_000} {
		var s chunkcodec.Samples
		var chunks []series.Chunk
		total, down := 0.0, 0
		for at := 20*Cell + phase; at < 24*Cell; at += 15_000 {
			total += float64(r.IntN(40))
			if n := s.Len(); n > 0 && (n == chunkcodec.MaxSamples || cellStart(s.T[n-1]) != cellStart(at)) {
				chunks = append(chunks, chunk(b, &s, 0, n))
				s.Reset()
			}
			if phase == 2_000 && r.Float64() < missed/float64(burst) {
				down = burst
			}
			if down--; down < 0 {
				s.AppendFloat(0, at+r.Int64N(3), total)
			}
		}
		out = append(out, append(chunks, chunk(b, &s, 0, s.Len())))
	}
	return out
}

// BenchmarkDedup reports the time for a sample of the result. In gaps the first
// replica misses 2 % of its scrapes: one by one, or ten in a row.
func BenchmarkDedup(b *testing.B) {
	for _, bm := range []struct {
		name   string
		missed float64
		burst  int
	}{{"identical", 0, 1}, {"gaps", 0.02, 10}, {"misses", 0.02, 1}} {
		b.Run(bm.name, func(b *testing.B) {
			in := pair(b, bm.missed, bm.burst)
			samples := unpack(b, dedupe(b, in...)).Len()
			var d deduplicator // as in a set, which keeps it from series to series
			b.ReportAllocs()
			for b.Loop() {
				if _, err := d.chunks(in, Defaults()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(samples), "ns/sample")
		})
	}
}
