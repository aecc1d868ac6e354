package merge

import (
	"fmt"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/series"
)

// BenchmarkSets merges fifty sets with the same series, which share their labels as those of blocks do, and fifty
// of which no two have one in common. The time is of each series of an input.
func BenchmarkSets(b *testing.B) {
	const sets, each = 50, 500
	name := func(i int) labels.Labels {
		return labels.FromStrings("__name__", "container_some_seconds_total", "cluster", "one", "job", "kubelet", "namespace", "team", "pod", fmt.Sprintf("service-%05d", i))
	}
	same, apart := make([][]series.Series, sets), make([][]series.Series, sets)
	for i := range each * sets {
		apart[i%sets] = append(apart[i%sets], series.Series{Labels: name(i), Chunks: make([]series.Chunk, 4)})
	}
	for i := range each {
		l := name(i)
		for j := range same {
			same[j] = append(same[j], series.Series{Labels: l, Chunks: []series.Chunk{{MinTime: int64(j), MaxTime: int64(j)}}})
		}
	}
	for _, bm := range []struct {
		name   string
		inputs [][]series.Series
	}{{"same", same}, {"apart", apart}} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				var in []series.Set
				for _, all := range bm.inputs {
					in = append(in, series.NewSet(all, nil))
				}
				for m := Sets(in...); m.Next(); {
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*sets*each), "ns/series")
		})
	}
}
