package query

import (
	"context"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/varve-io/varve/internal/cputest"
	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
)

// inMemory is a Store whose answers cost nothing.
type inMemory struct {
	storeapi.Store
	series []series.Series
}

func (m inMemory) Series(context.Context, *storeapi.Request) series.Set {
	return series.NewSet(m.series, nil)
}

const benchHours = 24

// twoReplicas are counters, or histograms, that two replicas have scraped every 15 s; the first one lacks a part in rows of ten.
func twoReplicas(b *testing.B, n int, missed float64, scrape func(s *chunkcodec.Samples, at int64, total int)) (m inMemory, samples int) {
	b.Helper()
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	for i := range n {
		for replica := range 2 {
			r := rand.New(rand.NewPCG(71, uint64(2*i+replica)))
			process := rand.New(rand.NewPCG(72, uint64(i)))
			var s chunkcodec.Samples
			total, down := 0, 0
			for at := start + int64(2_000+3_000*replica); at < start+benchHours*3_600_000; at += 15_000 {
				total += process.IntN(40)
				if replica == 0 && r.Float64() < missed/10 {
					down = 10
				}
				if down--; down >= 0 {
					continue
				}
				scrape(&s, at, total)
			}
			chunks, err := chunkcodec.Append(nil, &s)
			if err != nil {
				b.Fatal(err)
			}
			one := series.Series{Labels: labels.FromStrings(labels.MetricName, "m", "instance", strconv.Itoa(1000+i)), Replica: string(rune('a' + replica))}
			for _, c := range chunks {
				one.Chunks = append(one.Chunks, series.Chunk{MinTime: c.MinTime, MaxTime: c.MaxTime, Encoding: c.Encoding, Data: c.Data})
			}
			m.series = append(m.series, one)
		}
		samples += benchHours * 240
	}
	return m, samples
}

func scrapeCounter(s *chunkcodec.Samples, at int64, total int) { s.AppendFloat(0, at, float64(total)) }

func scrapeHistogram(s *chunkcodec.Samples, at int64, total int) {
	h := tsdbutil.GenerateTestHistogram(int64(total))
	h.CounterResetHint = histogram.UnknownCounterReset
	s.AppendHistogram(0, at, h)
}

// BenchmarkReplicas measures the CPU time of whole queries over a day of two replicas, for each sample of the result that the engine looks at.
func BenchmarkReplicas(b *testing.B) {
	for _, tc := range []struct {
		name   string
		series int
		missed float64
		scrape func(s *chunkcodec.Samples, at int64, total int)
		expr   string
	}{
		{"rate/healthy", 200, 0, scrapeCounter, `sum(rate(m[5m]))`},
		{"rate/holes", 200, 0.02, scrapeCounter, `sum(rate(m[5m]))`},
		{"instant/healthy", 200, 0, scrapeCounter, `sum(m)`},
		{"timestamp/healthy", 200, 0, scrapeCounter, `sum(timestamp(m))`},
		{"histograms/healthy", 10, 0, scrapeHistogram, `sum(histogram_quantile(0.9, rate(m[5m])))`},
		{"histograms/holes", 10, 0.02, scrapeHistogram, `sum(histogram_quantile(0.9, rate(m[5m])))`},
	} {
		b.Run(tc.name, func(b *testing.B) {
			store, samples := twoReplicas(b, tc.series, tc.missed, tc.scrape)
			e := NewEngine(store, Defaults(), promslog.NewNopLogger(), prometheus.NewRegistry())
			p := Params{Dedup: true, ReplicaLabels: []string{"replica"}}
			start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
			b.ReportAllocs()
			before := cputest.Used(b)
			for b.Loop() {
				answer, err := e.Range(b.Context(), tc.expr, Steps{Start: start, End: start.Add(benchHours * time.Hour), Step: 5 * time.Minute}, p)
				if err != nil {
					b.Fatal(err)
				}
				answer.Close()
			}
			b.ReportMetric(float64(cputest.Used(b)-before)/float64(b.N)/float64(samples), "cpu-ns/sample")
		})
	}
}
