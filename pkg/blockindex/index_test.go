package blockindex_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"go.uber.org/goleak"

	"github.com/varve-io/varve/pkg/blockindex"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testSeries is a series as it is written.
type testSeries struct {
	labels labels.Labels
	chunks []chunks.Meta
}

// randomSeries makes n series with few and many values, with missing labels, and
// with one, several or no chunks.
func randomSeries(n int, seed int64) []testSeries {
	rnd := rand.New(rand.NewSource(seed))
	byText := map[string]testSeries{}
	for range n {
		b := labels.NewScratchBuilder(4)
		b.Add("__name__", fmt.Sprintf("metric_%d", rnd.Intn(5)))
		if rnd.Intn(3) > 0 {
			b.Add("few", strconv.Itoa(rnd.Intn(4)))
		}
		if rnd.Intn(4) > 0 {
			b.Add("many", fmt.Sprintf("value-%d", rnd.Intn(300)))
		}
		if rnd.Intn(8) == 0 {
			b.Add("rare", "ö\"\n\x01")
		}
		lset := b.Labels()
		byText[lset.String()] = testSeries{labels: lset}
	}
	var all []testSeries
	for _, s := range byText {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b testSeries) int { return labels.Compare(a.labels, b.labels) })
	ref, segment := uint64(8), uint64(0)
	for i := range all {
		at := int64(rnd.Intn(1000)) - 500
		for range rnd.Intn(4) {
			all[i].chunks = append(all[i].chunks, chunks.Meta{Ref: chunks.ChunkRef(chunks.NewBlockChunkRef(segment, ref)), MinTime: at, MaxTime: at + 100})
			at += 150
			if ref += 20 + uint64(rnd.Intn(500)); ref > 20000 {
				segment, ref = segment+1, 8
			}
		}
	}
	return all
}

func writeIndex(t testing.TB, all []testSeries) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "index")
	w, err := index.NewWriter(t.Context(), path)
	check(t, err)
	symbols := map[string]bool{}
	for _, s := range all {
		s.labels.Range(func(l labels.Label) { symbols[l.Name], symbols[l.Value] = true, true })
	}
	var sorted []string
	for s := range symbols {
		sorted = append(sorted, s)
	}
	slices.Sort(sorted)
	for _, s := range sorted {
		check(t, w.AddSymbol(s))
	}
	for i, s := range all {
		check(t, w.AddSeries(storage.SeriesRef(i), s.labels, s.chunks...))
	}
	check(t, w.Close())
	return path
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, path string) *blockindex.Index {
	t.Helper()
	x, err := blockindex.OpenFile(context.Background(), path)
	check(t, err)
	t.Cleanup(func() { check(t, x.Close()) })
	return x
}

// matcherSets cover all kinds of matchers, alone and together.
func matcherSets() [][]*labels.Matcher {
	m := func(kind labels.MatchType, name, value string) *labels.Matcher {
		return labels.MustNewMatcher(kind, name, value)
	}
	var singles []*labels.Matcher
	for _, kind := range []labels.MatchType{labels.MatchEqual, labels.MatchNotEqual, labels.MatchRegexp, labels.MatchNotRegexp} {
		for _, value := range []string{"", "1", "value-7", "none", ".*", ".+", "1|3", "value-(7|9|250)", "value-2.*", "1|", "(?i)VALUE-1.", "metric_[12]"} {
			for _, name := range []string{"__name__", "few", "many", "rare", "absent"} {
				singles = append(singles, m(kind, name, value))
			}
		}
	}
	sets := [][]*labels.Matcher{nil}
	rnd := rand.New(rand.NewSource(1))
	for _, s := range singles {
		sets = append(sets, []*labels.Matcher{s},
			[]*labels.Matcher{m(labels.MatchEqual, "__name__", "metric_1"), s},
			[]*labels.Matcher{s, singles[rnd.Intn(len(singles))], singles[rnd.Intn(len(singles))]})
	}
	return sets
}

func TestSelectFindsWhatMatchersAccept(t *testing.T) {
	all := randomSeries(2000, 1)
	x := open(t, writeIndex(t, all))
	for _, ms := range matcherSets() {
		var want []string
		for _, s := range all {
			if !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(s.labels.Get(m.Name)) }) && len(s.chunks) > 0 {
				want = append(want, s.labels.String())
			}
		}
		refs, err := x.Select(t.Context(), ms...)
		check(t, err)
		var got []string
		reader := x.SeriesReader()
		var e blockindex.Entry
		for _, ref := range refs {
			some, err := reader.Read(t.Context(), ref, math.MinInt64, math.MaxInt64, &e)
			check(t, err)
			if some {
				got = append(got, e.Labels.String())
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v selects %d series, want %d\n got %.300q\nwant %.300q", ms, len(got), len(want), got, want)
		}
	}
}

func TestEntriesAreWhatWasWritten(t *testing.T) {
	all := randomSeries(3000, 2)
	x := open(t, writeIndex(t, all))
	refs, err := x.Select(t.Context())
	check(t, err)
	if len(refs) != len(all) {
		t.Fatalf("%d series, want %d", len(refs), len(all))
	}
	reader := x.SeriesReader()
	var e blockindex.Entry
	for i, ref := range refs {
		some, err := reader.Read(t.Context(), ref, 0, 100, &e)
		check(t, err)
		overlaps := slices.ContainsFunc(all[i].chunks, func(c chunks.Meta) bool { return c.MinTime <= 100 && c.MaxTime >= 0 })
		if some != overlaps {
			t.Fatalf("series %s: in range is %v, want %v", all[i].labels, some, overlaps)
		}
		if !some {
			continue
		}
		if !labels.Equal(e.Labels, all[i].labels) {
			t.Fatalf("series %d: got %s, want %s", i, e.Labels, all[i].labels)
		}
		for j, c := range e.Chunks {
			want := all[i].chunks[j]
			if c.Ref != chunks.BlockChunkRef(want.Ref) || c.MinTime != want.MinTime || c.MaxTime != want.MaxTime {
				t.Fatalf("chunk %d of %s: got %v, want %v", j, e.Labels, c, want)
			}
		}
		var next chunks.BlockChunkRef
		if i+1 < len(all) && len(all[i+1].chunks) > 0 {
			next = chunks.BlockChunkRef(all[i+1].chunks[0].Ref)
		}
		if e.Next != next {
			t.Fatalf("what follows %s: got %d, want %d", e.Labels, e.Next, next)
		}
	}
}

func TestLabels(t *testing.T) {
	all := randomSeries(2000, 3)
	x := open(t, writeIndex(t, all))
	want := map[string][]string{}
	for _, s := range all {
		s.labels.Range(func(l labels.Label) { want[l.Name] = append(want[l.Name], l.Value) })
	}
	if got := x.LabelNames(); !slices.Equal(got, []string{"__name__", "few", "many", "rare"}) {
		t.Errorf("label names: %q", got)
	}
	for name, values := range want {
		slices.Sort(values)
		values = slices.Compact(values)
		got, err := x.LabelValues(t.Context(), name, 0)
		if err != nil || !slices.Equal(got, values) {
			t.Errorf("values of %s: got %q (%v), want %q", name, got, err, values)
		}
		got, err = x.LabelValues(t.Context(), name, 1)
		if err != nil || !slices.Equal(got, values[:1]) {
			t.Errorf("one value of %s: got %q (%v), want %q", name, got, err, values[:1])
		}
	}
	if got, err := x.LabelValues(t.Context(), "absent", 0); err != nil || len(got) > 0 {
		t.Errorf("values of a label that is not there: %q (%v)", got, err)
	}
	if x.HasLabel("absent") || x.HasLabel("") || !x.HasLabel("few") {
		t.Error("HasLabel is wrong")
	}
}

func TestFetchCopiesOrExplains(t *testing.T) {
	content, err := os.ReadFile(writeIndex(t, randomSeries(500, 4)))
	check(t, err)
	for name, tc := range map[string]struct {
		size int64
		want error
	}{
		"the size of the listing":     {int64(len(content)), nil},
		"an object that is truncated": {int64(len(content)) + 1, blockindex.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "copy")
			err := blockindex.Fetch(t.Context(), object(content), "x/index", tc.size, path)
			if !errors.Is(err, tc.want) {
				t.Fatalf("error is %v, want %v", err, tc.want)
			}
			files, _ := os.ReadDir(dir)
			if err != nil {
				if len(files) > 0 {
					t.Errorf("%d files are left", len(files))
				}
				return
			}
			got, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(got, content) || len(files) != 1 {
				t.Errorf("the copy differs (%v), %d files", err, len(files))
			}
		})
	}
}

// object is a bucket with one object.
type object []byte

func (o object) GetRange(_ context.Context, _ string, off, length int64) (io.ReadCloser, error) {
	rest := o[min(off, int64(len(o))):]
	return io.NopCloser(bytes.NewReader(rest[:min(length, int64(len(rest)))])), nil
}

func TestPrometheusBlocksOfVersion1AreRead(t *testing.T) {
	dir := prometheusTestdata(t, "index_format_v1")
	x := open(t, filepath.Join(dir, "index"))
	want, err := tsdb.OpenBlock(nil, dir, nil, nil)
	check(t, err)
	defer func() { check(t, want.Close()) }()
	ir, err := want.Index()
	check(t, err)
	defer func() { check(t, ir.Close()) }()

	names, err := ir.LabelNames(t.Context())
	check(t, err)
	if got := x.LabelNames(); !slices.Equal(got, names) {
		t.Fatalf("label names: got %q, want %q", got, names)
	}
	for _, name := range names {
		values, err := ir.SortedLabelValues(t.Context(), name, nil)
		check(t, err)
		got, err := x.LabelValues(t.Context(), name, 0)
		if err != nil || !slices.Equal(got, values) {
			t.Fatalf("values of %s: got %q (%v), want %q", name, got, err, values)
		}
		for _, v := range values {
			m := labels.MustNewMatcher(labels.MatchEqual, name, v)
			p, err := tsdb.PostingsForMatchers(t.Context(), ir, m)
			check(t, err)
			refs, err := index.ExpandPostings(p)
			check(t, err)
			got, err := x.Select(t.Context(), m)
			if err != nil || !slices.Equal(got, refs) {
				t.Fatalf("%s selects %v (%v), want %v", m, got, err, refs)
			}
			reader := x.SeriesReader()
			for _, ref := range refs {
				var b labels.ScratchBuilder
				var metas []chunks.Meta
				check(t, ir.Series(ref, &b, &metas))
				var e blockindex.Entry
				if some, err := reader.Read(t.Context(), ref, math.MinInt64, math.MaxInt64, &e); err != nil || some != (len(metas) > 0) {
					t.Fatalf("series %d: %v (%v)", ref, some, err)
				}
				if !labels.Equal(e.Labels, b.Labels()) || len(e.Chunks) != len(metas) {
					t.Fatalf("series %d: got %s with %d chunks, want %s with %d", ref, e.Labels, len(e.Chunks), b.Labels(), len(metas))
				}
			}
		}
	}
}
