package blockwriter_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/internal/cputest"
	"github.com/varve-io/varve/pkg/blockwriter"
	"github.com/varve-io/varve/pkg/series"
)

// kubernetesSeries are series as a cluster has them: some hundred metrics of
// pods, each with some chunks.
func kubernetesSeries(b *testing.B, metrics, pods, chunksEach int) []series.Series {
	b.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	c := randomChunk(b, r, chunkenc.EncXOR, 120)
	var all []series.Series
	for m := range metrics {
		for p := range pods {
			s := series.Series{Labels: labels.FromStrings("__name__", fmt.Sprintf("container_metric_%04d_total", m),
				"cluster", "eu-1", "container", fmt.Sprintf("app-%d", p%20), "instance", fmt.Sprintf("10.0.%d.%d:8080", p/250, p%250),
				"job", "kubelet", "namespace", fmt.Sprintf("team-%d", p%15), "node", fmt.Sprintf("node-%03d", p%50),
				"pod", fmt.Sprintf("app-%d-6b7f9c-%05d", p%20, p))}
			for i := range chunksEach {
				c.MinTime, c.MaxTime = int64(i)*1_800_000, int64(i+1)*1_800_000-1
				s.Chunks = append(s.Chunks, c)
			}
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b series.Series) int { return labels.Compare(a.Labels, b.Labels) })
	return all
}

// forget is a place that keeps nothing.
type forget struct{}

func (forget) Create(string) (blockwriter.File, error) { return forget{}, nil }
func (forget) Write(b []byte) (int, error)             { return len(b), nil }
func (forget) Close() error                            { return nil }
func (forget) Abort()                                  {}

// BenchmarkWriter writes 100,000 series of 8 labels and 4 chunks. Beside it:
// Prometheus' writers, and postings that do not fit into memory. Time of the
// processor is what counts on a machine that is shared.
func BenchmarkWriter(b *testing.B) {
	all := kubernetesSeries(b, 100, 1000, 4)
	symbols := symbolsOf(all)
	spilling := blockwriter.Defaults()
	spilling.Memory, spilling.TempDir = 1<<20, b.TempDir()
	ours := func(files blockwriter.Files, o blockwriter.Options) {
		write(b, files, o, all, table(b, symbols))
	}
	for _, tc := range []struct {
		name string
		run  func(dir string)
	}{
		{"stream", func(string) { ours(forget{}, blockwriter.Defaults()) }},
		{"spilling", func(string) { ours(forget{}, spilling) }},
		{"directory", func(dir string) { ours(blockwriter.Dir(dir), blockwriter.Defaults()) }},
		{"prometheus", func(dir string) { writePrometheus(b, dir, all, symbols) }},
	} {
		b.Run(tc.name, func(b *testing.B) {
			b.ReportAllocs()
			began := cputest.Used(b)
			for b.Loop() {
				tc.run(b.TempDir())
			}
			b.ReportMetric(float64(cputest.Used(b)-began)/float64(b.N*len(all)), "cpu-ns/series")
		})
	}
}
