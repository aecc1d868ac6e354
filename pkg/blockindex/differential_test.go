package blockindex_test

import (
	"math"
	"os"
	"path/filepath"
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
		})
	})
	for seed, size := range []int{1, 40, 1000} {
		t.Run("version 2", func(t *testing.T) {
			dir := blockDir(t, randomSeries(size, int64(seed)))
			sameAsPrometheus(t, dir, names, matcherSets(int64(seed)))
		})
	}
	t.Run("version 3", func(t *testing.T) {
		dir := blockDir(t, randomSeries(200, 9))
		path := filepath.Join(dir, "index")
		content, err := os.ReadFile(path)
		check(t, err)
		content[4] = index.FormatV3
		check(t, os.WriteFile(path, content, 0o600))
		sameAsPrometheus(t, dir, names, matcherSets(9))
	})
}

// blockDir is a block with an index of its own making.
func blockDir(t *testing.T, all []testSeries) string {
	t.Helper()
	dir, _ := blocktest.Dir(t, blocktest.Spec{Load: "load 1s\n  x 1", MinTime: 0, MaxTime: 1000})
	check(t, os.Rename(writeIndex(t, all, "", "symbols", "of no series"), filepath.Join(dir, "index")))
	return dir
}

func sameAsPrometheus(t *testing.T, dir string, names []string, sets [][]*labels.Matcher) {
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
			if len(metas) == 0 {
				continue // no writer of blocks keeps such series
			}
			if !r.Next(t.Context(), math.MinInt64, math.MaxInt64, &e) {
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
		if r.Next(t.Context(), math.MinInt64, math.MaxInt64, &e) || r.Err() != nil {
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

func mustSelect(t testing.TB, x *blockindex.Index, ms []*labels.Matcher) blockindex.Selection {
	t.Helper()
	s, err := x.Select(t.Context(), ms...)
	check(t, err)
	return s
}
