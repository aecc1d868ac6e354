package blockindex_test

import (
	"fmt"
	"math"
	"math/rand"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/varve-io/varve/pkg/blockindex"
)

// clusterSeries are those of a small Kubernetes cluster in two hours: some 50
// metrics of each container of each pod.
func clusterSeries(pods int) []testSeries {
	var all []testSeries
	for p := range pods {
		namespace := fmt.Sprintf("team-%02d", p%17)
		pod := fmt.Sprintf("service-%d-%010x-%05x", p%40, p*7919*31, p*104729)
		for m := range 50 {
			all = append(all, testSeries{labels: labels.FromStrings(
				"__name__", fmt.Sprintf("container_some_%d_seconds_total", m), "container", "app", "endpoint", "https-metrics",
				"id", fmt.Sprintf("/kubepods/burstable/pod%08x-%04x", p*2654435761, p), "image", fmt.Sprintf("registry.example/team/service-%d:v1.%d", p%40, p%3),
				"instance", fmt.Sprintf("10.0.%d.%d:10250", p%30/10, p%30), "job", "kubelet", "metrics_path", "/metrics/cadvisor",
				"namespace", namespace, "node", fmt.Sprintf("node-%02d", p%30), "pod", pod, "service", "kubelet")})
		}
	}
	slices.SortFunc(all, func(a, b testSeries) int { return labels.Compare(a.labels, b.labels) })
	ref := uint64(8)
	for i := range all {
		for c := range int64(4) {
			all[i].chunks = append(all[i].chunks, chunks.Meta{Ref: chunks.ChunkRef(ref), MinTime: c * 1_800_000, MaxTime: (c+1)*1_800_000 - 15_000})
			ref += 300
		}
	}
	return all
}

func readEntries(t testing.TB, x *blockindex.Index, s blockindex.Selection) (n int) {
	t.Helper()
	r := x.Series(s)
	var e blockindex.Entry
	for r.Next(t.Context(), math.MinInt64, math.MaxInt64, &e) {
		n++
	}
	check(t, r.Err())
	return n
}

// A dependent read is a round trip to the bucket: they are few, and small.
func TestReadsAreFewAndExact(t *testing.T) {
	content, err := os.ReadFile(writeIndex(t, clusterSeries(100)))
	check(t, err)
	src := &memory{content: content}
	dir := t.TempDir()
	_, err = directories(t, dir, 1<<20).Open(t.Context(), "x", src, 0)
	check(t, err)
	if n, b := src.rounds.Load(), src.bytes.Load(); n > 1 || b > int64(len(content))/3 {
		t.Errorf("making a directory: %d round trips for %d bytes, want one for at most %d", n, b, len(content)/3)
	}

	for name, tc := range map[string]struct {
		matchers []*labels.Matcher
		series   int
		// At most: round trips, ranges in them, and bytes for each series.
		rounds, ranges, bytes int64
	}{
		"one pod": {[]*labels.Matcher{matcher(labels.MatchEqual, "pod", "service-1-000003bef1-19919")}, 50, 2, 51, 400},
		"one metric of a namespace": {[]*labels.Matcher{
			matcher(labels.MatchEqual, "__name__", "container_some_7_seconds_total"), matcher(labels.MatchEqual, "namespace", "team-03"),
		}, 6, 2, 8, 2400},
		"an expensive expression": {[]*labels.Matcher{
			matcher(labels.MatchEqual, "__name__", "container_some_7_seconds_total"), matcher(labels.MatchRegexp, "id", ".*burst.*00.*"), matcher(labels.MatchRegexp, "job", ".+"),
		}, 100, 2, 2, 250},
		"a set": {[]*labels.Matcher{matcher(labels.MatchRegexp, "__name__", "container_some_(7|9)_seconds_total")}, 200, 2, 4, 250},
		"none":  {[]*labels.Matcher{matcher(labels.MatchEqual, "pod", "none"), matcher(labels.MatchEqual, "job", "kubelet")}, 0, 0, 0, 0},
		"all":   {nil, 5000, 3, 3, 200},
	} {
		t.Run(name, func(t *testing.T) {
			src.reset()
			x, err := directories(t, dir, 1<<20).Open(t.Context(), "x", src, 0)
			check(t, err)
			n := readEntries(t, x, mustSelect(t, x, tc.matchers))
			rounds, ranges, b := src.rounds.Load(), src.ranges.Load(), src.bytes.Load()
			t.Logf("%d series: %d rounds, %d ranges, %d bytes", n, rounds, ranges, b)
			if n != tc.series || rounds > tc.rounds || ranges > tc.ranges || b > tc.bytes*int64(n) || src.builds.Load() > 0 {
				t.Errorf("want %d series: %d rounds, %d ranges, %d bytes, and the directory as it is (%d)", tc.series, tc.rounds, tc.ranges, tc.bytes*int64(n), src.builds.Load())
			}
		})
	}

	t.Run("labels", func(t *testing.T) {
		src.reset()
		x, err := directories(t, dir, 1<<20).Open(t.Context(), "x", src, 0)
		check(t, err)
		if names, err := x.LabelNames(t.Context()); err != nil || len(names) != 12 {
			t.Errorf("names: %q (%v)", names, err)
		}
		if pods, err := labelValues(t, x, "pod", 0); err != nil || len(pods) != 100 {
			t.Errorf("%d pods (%v)", len(pods), err)
		}
		if n := src.rounds.Load(); n > 0 {
			t.Errorf("%d round trips for what the directory knows", n)
		}
		pods, err := labelValues(t, x, "pod", 0, matcher(labels.MatchEqual, "job", "kubelet"))
		if b := src.bytes.Load(); err != nil || len(pods) != 100 || b > 100_000 {
			t.Errorf("%d pods (%v) for %d bytes, want 100 from postings", len(pods), err, b)
		}
	})
}

// A directory costs one read of the tail if the index has the symbols of its series,
// as most have, and one more of the symbols if it has others too.
func TestSymbolsAreReadOnlyIfTheyAreNotThoseOfTheSeries(t *testing.T) {
	all := clusterSeries(40)
	for name, tc := range map[string]struct {
		symbols []string
		rounds  int64
	}{
		"those of the series":    {nil, 1},
		"the empty one too":      {[]string{""}, 1},
		"one more":               {[]string{"gone"}, 2},
		"one more and the empty": {[]string{"", "gone"}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			content, err := os.ReadFile(writeIndex(t, all, tc.symbols...))
			check(t, err)
			src := &memory{content: content}
			x, err := directories(t, t.TempDir(), 1<<20).Open(t.Context(), "x", src, uint64(4*len(all)))
			check(t, err)
			if n := src.rounds.Load(); n != tc.rounds {
				t.Errorf("%d round trips, want %d", n, tc.rounds)
			}
			ms := []*labels.Matcher{matcher(labels.MatchEqual, "namespace", "team-03")}
			if got, want := selected(t, x, ms...), matching(all, ms); !slices.Equal(got, want) || len(got) == 0 {
				t.Errorf("%d series, want %d", len(got), len(want))
			}
		})
	}
}

// Labels of which names and values are strings of other labels too, lie between those, or begin
// like them as far as any page and any length reaches, make the symbols that the index has.
func TestSymbolsOfLabelsThatAreAlike(t *testing.T) {
	rnd := rand.New(rand.NewSource(11))
	var all []testSeries
	seen := map[string]bool{}
	for len(all) < 3000 {
		b := labels.NewScratchBuilder(4)
		for _, name := range []string{"a", "ab", "b", "ba"} {
			value := []byte(strings.Repeat("ab", rnd.Intn(3)*rnd.Intn(2)*60))
			for range 1 + rnd.Intn(8) {
				value = append(value, "ab"[rnd.Intn(2)])
			}
			b.Add(name, string(value))
		}
		if lset := b.Labels(); !seen[lset.String()] {
			seen[lset.String()] = true
			all = append(all, testSeries{labels: lset})
		}
	}
	slices.SortFunc(all, func(a, b testSeries) int { return labels.Compare(a.labels, b.labels) })
	for i := range all {
		for c := range int64(50) { // so that most of the index are entries of series
			all[i].chunks = append(all[i].chunks, chunks.Meta{Ref: chunks.ChunkRef(50*int64(i) + c + 8), MinTime: c, MaxTime: c})
		}
	}
	content, err := os.ReadFile(writeIndex(t, all))
	check(t, err)
	for name, tc := range map[string]struct {
		chunks uint64 // the more the index has, the shorter the tail that is guessed
		rounds int64
	}{
		"with all of the offset table in the tail":  {0, 1},
		"with a part of the offset table before it": {math.MaxUint32, 2},
	} {
		t.Run(name, func(t *testing.T) {
			src := &memory{content: content}
			x, err := directories(t, t.TempDir(), 1<<20).Open(t.Context(), "x", src, tc.chunks)
			check(t, err)
			if n := src.rounds.Load(); n != tc.rounds {
				t.Errorf("%d round trips, want %d", n, tc.rounds)
			}
			if got, want := selected(t, x), matching(all, nil); !slices.Equal(got, want) {
				t.Errorf("%d series, want %d\n got %.300q\nwant %.300q", len(got), len(want), got, want)
			}
		})
	}
}

// At rest a block must not take more than 16 KiB, however many labels it has.
func TestBlocksAtRestTakeLittleMemory(t *testing.T) {
	const blocks, most = 200, 16 << 10
	var all []testSeries
	for i := range 33_334 {
		all = append(all, testSeries{labels: labels.FromStrings("__name__", "x", "a", fmt.Sprintf("a-%d-%x", i, i*7919), "b", fmt.Sprintf("b-%d", i), "c", fmt.Sprintf("%x", i*104729)), chunks: []chunks.Meta{{Ref: 8, MaxTime: 1}}})
	}
	slices.SortFunc(all, func(a, b testSeries) int { return labels.Compare(a.labels, b.labels) })
	content, err := os.ReadFile(writeIndex(t, all))
	check(t, err)
	src := &memory{content: content}
	dir := t.TempDir()
	const cache = 1 << 20
	d := directories(t, dir, cache)
	_, err = d.Open(t.Context(), "0", src, 0)
	check(t, err)
	for i := 1; i < blocks; i++ {
		check(t, os.Link(filepath.Join(dir, "0"), filepath.Join(dir, strconv.Itoa(i))))
	}
	src.reset()
	before := heap()
	open := make([]*blockindex.Index, blocks)
	for i := range open {
		open[i], err = d.Open(t.Context(), strconv.Itoa(i), src, 0)
		check(t, err)
		if n := readEntries(t, open[i], mustSelect(t, open[i], []*labels.Matcher{matcher(labels.MatchEqual, "b", "b-7")})); n != 1 {
			t.Fatalf("%d series, want 1", n)
		}
	}
	each := (heap() - before) / blocks
	t.Logf("%d bytes a block, pages that all share included", each)
	if each > most || src.builds.Load() > 0 {
		t.Errorf("%d bytes of heap a block, want at most %d", each, most)
	}
	runtime.KeepAlive(open)
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
