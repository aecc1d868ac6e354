package blockindex_test

import (
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/blockindex"
)

// Whatever Prometheus says of a block, we say.
func TestPrometheusAgrees(t *testing.T) {
	names := []string{"__name__", "few", "many", "rare", "long", "absent"}
	t.Run("version 1", func(t *testing.T) {
		sameAsPrometheus(t, prometheusTestdata(t, "index_format_v1"), []string{"__name__", "foo", "bar"}, [][]*labels.Matcher{
			{matcher(labels.MatchRegexp, "foo", ".*")},
			{matcher(labels.MatchEqual, "foo", "bar")},
			{matcher(labels.MatchRegexp, "bar", "1.*")},
			{matcher(labels.MatchNotRegexp, "bar", "1.*|2"), matcher(labels.MatchNotEqual, "foo", "")},
		}, always())
	})
	for seed, size := range []int{1, 40, 1000} {
		t.Run("version 2", func(t *testing.T) {
			dir := blockDir(t, randomSeries(size, int64(seed)))
			sameAsPrometheus(t, dir, names, matcherSets(int64(seed)), always())
			sameAsPrometheus(t, dir, nil, matcherSets(int64(seed)), times{-100, 250})
		})
	}
	t.Run("version 3", func(t *testing.T) {
		dir := blockDir(t, randomSeries(200, 9))
		path := filepath.Join(dir, "index")
		content, err := os.ReadFile(path)
		check(t, err)
		content[4] = index.FormatV3
		check(t, os.WriteFile(path, content, 0o600))
		sameAsPrometheus(t, dir, names, matcherSets(9), always())
	})
}

// blockDir is a block with an index of its own making.
func blockDir(t *testing.T, all []testSeries) string {
	t.Helper()
	dir, _ := blocktest.Dir(t, blocktest.Spec{Load: "load 1s\n  x 1", MinTime: 0, MaxTime: 1000})
	check(t, os.Rename(writeIndex(t, all, "", "symbols", "of no series"), filepath.Join(dir, "index")))
	return dir
}

// times are a range, both ends inclusive.
type times struct{ mint, maxt int64 }

func always() times { return times{math.MinInt64, math.MaxInt64} }

func sameAsPrometheus(t *testing.T, dir string, names []string, sets [][]*labels.Matcher, in times) {
	t.Helper()
	block, err := tsdb.OpenBlock(nil, dir, nil, nil)
	check(t, err)
	defer func() { check(t, block.Close()) }()
	ir, err := block.Index()
	check(t, err)
	defer func() { check(t, ir.Close()) }()
	x, _ := open(t, filepath.Join(dir, "index"))

	for _, ms := range sets {
		if len(ms) == 0 { // Prometheus gives nothing
			continue
		}
		p, err := tsdb.PostingsForMatchers(t.Context(), ir, ms...)
		check(t, err)
		r := x.Series(mustSelect(t, x, ms))
		var e blockindex.Entry
		for p.Next() {
			var b labels.ScratchBuilder
			var metas []chunks.Meta
			check(t, ir.Series(p.At(), &b, &metas))
			if !slices.ContainsFunc(metas, func(m chunks.Meta) bool { return m.OverlapsClosedInterval(in.mint, in.maxt) }) {
				continue // no writer of blocks keeps a series without chunks
			}
			if !r.Next(t.Context(), in.mint, in.maxt, &e) {
				t.Fatalf("%v: reading ends before %s (%v)", ms, b.Labels(), r.Err())
			}
			same := labels.Equal(e.Labels, b.Labels()) && slices.EqualFunc(e.Chunks, metas, func(c blockindex.Chunk, m chunks.Meta) bool {
				return c.Ref == chunks.BlockChunkRef(m.Ref) && c.MinTime == m.MinTime && c.MaxTime == m.MaxTime
			})
			if !same {
				t.Fatalf("%v: got %s with %v, want %s with %v", ms, e.Labels, e.Chunks, b.Labels(), metas)
			}
		}
		check(t, p.Err())
		if r.Next(t.Context(), in.mint, in.maxt, &e) || r.Err() != nil {
			t.Fatalf("%v selects %s too (%v)", ms, e.Labels, r.Err())
		}
		want, err := ir.LabelNames(t.Context(), ms...)
		check(t, err)
		slices.Sort(want)
		if got, err := x.LabelNames(t.Context(), ms...); err != nil || !slices.Equal(got, want) {
			t.Fatalf("names of %v: got %q (%v), want %q", ms, got, err, want)
		}
		for _, name := range names {
			want, err := ir.SortedLabelValues(t.Context(), name, nil, ms...)
			check(t, err)
			for _, limit := range []int{0, 1, 7} {
				want := want
				if limit > 0 {
					want = want[:min(limit, len(want))]
				}
				if got, err := labelValues(t, x, name, limit, ms...); err != nil || !slices.Equal(got, want) {
					t.Fatalf("values of %s of %v up to %d: got %.200q (%v), want %.200q", name, ms, limit, got, err, want)
				}
			}
		}
	}
}

// FuzzAgainstPrometheus asks Prometheus and us the same of random blocks: matchers of any
// kind and value on labels that exist or not, over any time.
func FuzzAgainstPrometheus(f *testing.F) {
	names := []string{"__name__", "few", "many", "rare", "absent"}
	f.Add(int64(1), uint8(40), uint32(0x1b), "value-1.*", "1|3", int64(-500), int64(500))
	f.Add(int64(2), uint8(200), uint32(0x3c0), "", "metric_1", int64(0), int64(0))
	f.Add(int64(3), uint8(3), uint32(0xfff), ".+", "(?i)VALUE-[0-9]+", int64(700), int64(-700))
	f.Fuzz(func(t *testing.T, seed int64, size uint8, kinds uint32, first, second string, mint, maxt int64) {
		next := func(n uint32) int {
			k := kinds % n
			kinds /= n
			return int(k)
		}
		var ms []*labels.Matcher
		for _, value := range []string{first, second, "metric_2"}[:1+next(3)] {
			kind, name := labels.MatchType(next(4)), names[next(uint32(len(names)))]
			m, err := labels.NewMatcher(kind, name, value)
			if err != nil { // it is no regular expression
				m = labels.MustNewMatcher(kind, name, regexp.QuoteMeta(value))
			}
			ms = append(ms, m)
		}
		dir := blockDir(t, randomSeries(1+int(size), seed))
		sameAsPrometheus(t, dir, names, [][]*labels.Matcher{ms}, times{mint, maxt})
	})
}

func mustSelect(t testing.TB, x *blockindex.Index, ms []*labels.Matcher) blockindex.Selection {
	t.Helper()
	s, err := x.Select(t.Context(), ms...)
	check(t, err)
	return s
}
