package blockindex_test

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/varve-io/varve/pkg/blockindex"
)

// benchmarkIndex has 10,000 series of 200 pods.
func benchmarkIndex(b *testing.B) (path string, src *memory) {
	b.Helper()
	path = writeIndex(b, clusterSeries(200))
	content, err := os.ReadFile(path)
	check(b, err)
	return path, &memory{content: content}
}

// BenchmarkOpen makes a page directory, opens one that is there, and lets
// Prometheus' reader read its tables.
func BenchmarkOpen(b *testing.B) {
	path, src := benchmarkIndex(b)
	dir := b.TempDir()
	d := directories(b, dir, 1<<20)
	b.Run("making the directory", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			_, err := d.Open(context.Background(), "made-"+strconv.Itoa(i), src, 0)
			check(b, err)
		}
	})
	b.Run("with a directory", func(b *testing.B) {
		b.ReportAllocs()
		_, err := d.Open(context.Background(), "x", src, 0)
		check(b, err)
		info, err := os.Stat(filepath.Join(dir, "x"))
		check(b, err)
		b.ReportMetric(float64(info.Size()), "file-bytes")
		for range b.N {
			_, err := d.Open(context.Background(), "x", src, 0)
			check(b, err)
		}
	})
	b.Run("prometheus", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			r, err := index.NewFileReader(path, index.DecodePostingsRaw)
			check(b, err)
			check(b, r.Close())
		}
	})
}

// BenchmarkBuild makes the page directory of a block of two hours: 10,000 series of 4,400
// pods, whose names and addresses are nearly all of the postings offset table.
func BenchmarkBuild(b *testing.B) {
	var all []testSeries
	for p := range 4400 {
		for m := range 2 {
			all = append(all, testSeries{labels: labels.FromStrings(
				"__name__", fmt.Sprintf("process_metric_%d_total", 2*(p%20)+m), "instance", fmt.Sprintf("10.%d.%d.%d:8080", p>>16, p>>8&0xff, p&0xff), "job", "node",
				"namespace", fmt.Sprintf("team-%d", p%12), "pod", fmt.Sprintf("workload-%d-7d9f8b6c5-%05x", p%40, p*6151&0xfffff)), chunks: []chunks.Meta{{Ref: 8, MaxTime: 1}}})
		}
	}
	slices.SortFunc(all, func(a, b testSeries) int { return labels.Compare(a.labels, b.labels) })
	content, err := os.ReadFile(writeIndex(b, all))
	check(b, err)
	d := directories(b, b.TempDir(), 1<<20)
	b.ReportAllocs()
	for made := 0; b.Loop(); made++ {
		_, err := d.Open(context.Background(), strconv.Itoa(made), &memory{content: content}, uint64(len(all)))
		check(b, err)
	}
}

// BenchmarkSelect resolves matchers and reads the entries of what they select.
func BenchmarkSelect(b *testing.B) {
	path, src := benchmarkIndex(b)
	x, err := directories(b, b.TempDir(), 8<<20).Open(context.Background(), "x", src, 0)
	check(b, err)
	prom, err := index.NewFileReader(path, index.DecodePostingsRaw)
	check(b, err)
	defer func() { check(b, prom.Close()) }()
	for name, ms := range map[string][]*labels.Matcher{
		"narrow": {matcher(labels.MatchEqual, "__name__", "container_some_7_seconds_total"), matcher(labels.MatchEqual, "namespace", "team-03")},
		"regex":  {matcher(labels.MatchEqual, "__name__", "container_some_7_seconds_total"), matcher(labels.MatchRegexp, "pod", "service-1.*-0.*")},
		"wide":   {matcher(labels.MatchRegexp, "__name__", "container_some_1.*_seconds_total"), matcher(labels.MatchNotEqual, "namespace", "team-03")},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			src.reset()
			series := 0
			for range b.N {
				s, err := x.Select(context.Background(), ms...)
				check(b, err)
				r := x.Series(s)
				var e blockindex.Entry
				for r.Next(context.Background(), math.MinInt64, math.MaxInt64, &e) {
					series++
				}
				check(b, r.Err())
			}
			b.ReportMetric(float64(series)/float64(b.N), "series")
			b.ReportMetric(float64(src.bytes.Load())/float64(b.N), "read-bytes")
			b.ReportMetric(float64(src.rounds.Load())/float64(b.N), "rounds")
		})
		b.Run(name+"/prometheus", func(b *testing.B) {
			b.ReportAllocs()
			series := 0
			var builder labels.ScratchBuilder
			var metas []chunks.Meta
			for range b.N {
				p, err := tsdb.PostingsForMatchers(context.Background(), prom, ms...)
				check(b, err)
				for p.Next() {
					check(b, prom.Series(p.At(), &builder, &metas))
					_ = builder.Labels()
					series++
				}
				check(b, p.Err())
			}
			b.ReportMetric(float64(series)/float64(b.N), "series")
		})
	}
}

// BenchmarkShared has sixteen readers of the same series, a step at a time as those of blocks whose
// series are merged. The time is of all of them.
func BenchmarkShared(b *testing.B) {
	_, src := benchmarkIndex(b)
	x, err := directories(b, b.TempDir(), 8<<20).Open(context.Background(), "x", src, 0)
	check(b, err)
	s, err := x.Select(context.Background(), matcher(labels.MatchRegexp, "__name__", "container_some_1.*_seconds_total"))
	check(b, err)
	for _, shared := range []bool{false, true} {
		b.Run("shared="+strconv.FormatBool(shared), func(b *testing.B) {
			b.ReportAllocs()
			series := 0
			for range b.N {
				all := make([]*blockindex.SeriesReader, 16)
				var known *blockindex.SharedLabels
				if shared {
					known = blockindex.NewSharedLabels()
				}
				for i := range all {
					all[i] = x.Series(s)
					all[i].Add(labels.FromStrings("cluster", "one", "replica", "a"))
					all[i].Share(known)
				}
				var e blockindex.Entry
				for more := true; more; {
					for _, r := range all {
						if more = r.Next(context.Background(), math.MinInt64, math.MaxInt64, &e); more {
							series++
						}
						check(b, r.Err())
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(series), "ns/series")
		})
	}
}
