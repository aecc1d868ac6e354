package blockindex_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/varve-io/varve/internal/metrictest"
	"github.com/varve-io/varve/pkg/blockindex"
)

// churned are the series of so many pods, of which one in a thousand is there only in this block.
func churned(pods, block int) []testSeries {
	stay, come := rand.New(rand.NewPCG(1, 1)), rand.New(rand.NewPCG(2, uint64(block)))
	all := make([]testSeries, pods)
	for i := range all {
		id := stay.Uint64()
		if i%1000 == 999 {
			id = come.Uint64()
		}
		all[i] = testSeries{
			labels: labels.FromStrings("__name__", "up", "job", "node", "pod", fmt.Sprintf("%016x", id)),
			chunks: []chunks.Meta{{Ref: 8, MaxTime: 1}},
		}
	}
	slices.SortFunc(all, func(a, b testSeries) int { return labels.Compare(a.labels, b.labels) })
	return all
}

// pageBytes reads all series of some indexes, for several rounds, in page directories that keep so many bytes
// of pages, and returns how many they say that these are after each index.
func pageBytes(t *testing.T, most int64, rounds int, all ...[]testSeries) (bytes []float64) {
	t.Helper()
	reg := prometheus.NewRegistry()
	d, err := blockindex.NewDirectories(t.TempDir(), most, reg)
	check(t, err)
	var indexes []*blockindex.Index
	for _, one := range all {
		x, _ := openIn(t, d, writeIndex(t, one))
		indexes = append(indexes, x)
	}
	for range rounds {
		for i, x := range indexes {
			s, err := x.Select(t.Context())
			check(t, err)
			if n := readEntries(t, x, s); n != len(all[i]) {
				t.Fatalf("index %d: got %d series, want %d", i, n, len(all[i]))
			}
			bytes = append(bytes, metrictest.Value(t, reg, "varve_blockindex_page_bytes"))
		}
	}
	return bytes
}

func TestIndexesWithMostlyTheSameStringsShareTheirPages(t *testing.T) {
	got := pageBytes(t, 64<<20, 1, churned(4000, 1), churned(4000, 2), churned(4000, 3))
	if more := got[2] - got[0]; more > got[0] {
		t.Errorf("the first index takes %.0f bytes, two more that are nearly alike %.0f, want them to take less than one", got[0], more)
	}
}

// TestPagesTakeNoMoreThanTheyMay has three indexes that share memory for the pages of little more than one.
func TestPagesTakeNoMoreThanTheyMay(t *testing.T) {
	whole := pageBytes(t, 64<<20, 1, churned(4000, 1))[0]
	most := int64(whole) / 10 * 11
	for i, got := range pageBytes(t, most, 10, churned(4000, 1), churned(4000, 2), churned(4000, 3)) {
		if got > float64(most) || got < float64(most)/2 {
			t.Errorf("step %d: pages take %.0f bytes, want %d at most and half of that at least", i, got, most)
		}
	}
}
