package blockindex_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"go.uber.org/goleak"

	"github.com/varve-io/varve/pkg/blockindex"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// memory is a Source that counts.
type memory struct {
	content []byte
	// rounds are calls of Read, ranges what they asked for, and bytes how much that was.
	rounds, ranges, bytes atomic.Int64
	// builds are ranges with the end of the index, which only making a directory needs.
	builds atomic.Int64
	// broken is the number of calls of Read that end in errBroken, from now on.
	broken atomic.Int64
}

var errBroken = errors.New("the bucket is away")

func (m *memory) Read(_ context.Context, ranges ...blockindex.Range) error {
	m.rounds.Add(1)
	if m.broken.Load() > 0 {
		m.broken.Add(-1)
		return errBroken
	}
	for _, r := range ranges {
		if r.Off < 0 || r.Off+int64(len(r.Into)) > m.Size() {
			return fmt.Errorf("read %d bytes at %d of %d", len(r.Into), r.Off, m.Size())
		}
		m.ranges.Add(1)
		if r.Off+int64(len(r.Into)) == m.Size() {
			m.builds.Add(1)
		}
		m.bytes.Add(int64(copy(r.Into, m.content[r.Off:])))
	}
	return nil
}

func (m *memory) Forget(_, _ int64) {}
func (m *memory) Size() int64       { return int64(len(m.content)) }

func (m *memory) reset() {
	for _, c := range []*atomic.Int64{&m.rounds, &m.ranges, &m.bytes, &m.builds} {
		c.Store(0)
	}
}

func directories(t testing.TB, dir string, bytes int64) *blockindex.Directories {
	t.Helper()
	d, err := blockindex.NewDirectories(dir, bytes, prometheus.NewRegistry())
	check(t, err)
	return d
}

// open opens the index file at path.
func open(t testing.TB, path string) (*blockindex.Index, *memory) {
	t.Helper()
	return openIn(t, directories(t, t.TempDir(), 1<<20), path)
}

// openIn opens the index file at path in page directories that others may use as well.
func openIn(t testing.TB, d *blockindex.Directories, path string) (*blockindex.Index, *memory) {
	t.Helper()
	content, err := os.ReadFile(path)
	check(t, err)
	src := &memory{content: content}
	x, err := d.Open(context.Background(), strings.ReplaceAll(path, string(filepath.Separator), "-"), src, 0)
	check(t, err)
	return x, src
}

// prometheusTestdata is a directory of test data in the Prometheus module.
func prometheusTestdata(t testing.TB, name string) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/prometheus/prometheus").Output()
	check(t, err)
	return filepath.Join(strings.TrimSpace(string(out)), "tsdb", "testdata", name)
}

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
		if rnd.Intn(100) == 0 {
			b.Add("long", strings.Repeat("long", 100+rnd.Intn(6000)))
		}
		b.Sort()
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
		at, count := int64(rnd.Intn(1000))-500, rnd.Intn(4)
		if rnd.Intn(200) == 0 {
			count = 2000 // an entry longer than is ever expected
		}
		for range count {
			all[i].chunks = append(all[i].chunks, chunks.Meta{Ref: chunks.ChunkRef(chunks.NewBlockChunkRef(segment, ref)), MinTime: at, MaxTime: at + 100})
			at += 150
			if ref += 20 + uint64(rnd.Intn(500)); ref > 20000 {
				segment, ref = segment+1, 8
			}
		}
	}
	return all
}

// writeIndex writes an index with Prometheus' writer. Its symbols are those of the
// series and the given ones.
func writeIndex(t testing.TB, all []testSeries, symbols ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "index")
	w, err := index.NewWriter(t.Context(), path)
	check(t, err)
	set := map[string]bool{}
	for _, s := range symbols {
		set[s] = true
	}
	for _, s := range all {
		s.labels.Range(func(l labels.Label) { set[l.Name], set[l.Value] = true, true })
	}
	var sorted []string
	for s := range set {
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

func matcher(kind labels.MatchType, name, value string) *labels.Matcher {
	return labels.MustNewMatcher(kind, name, value)
}

// matcherSets cover all kinds of matchers, alone and together.
func matcherSets(seed int64) [][]*labels.Matcher {
	var singles []*labels.Matcher
	for _, kind := range []labels.MatchType{labels.MatchEqual, labels.MatchNotEqual, labels.MatchRegexp, labels.MatchNotRegexp} {
		for _, value := range []string{"", "1", "value-7", "none", ".*", ".+", "1|3", "value-(7|9|250)", "value-2.*", "1|", "(?i)VALUE-1.", "metric_[12]"} {
			for _, name := range []string{"__name__", "few", "many", "rare", "long", "absent"} {
				singles = append(singles, matcher(kind, name, value))
			}
		}
	}
	sets := [][]*labels.Matcher{nil}
	rnd := rand.New(rand.NewSource(seed))
	for _, s := range singles {
		sets = append(sets, []*labels.Matcher{s},
			[]*labels.Matcher{matcher(labels.MatchEqual, "__name__", "metric_1"), s},
			[]*labels.Matcher{matcher(labels.MatchEqual, "many", "value-9"), s},
			[]*labels.Matcher{s, singles[rnd.Intn(len(singles))], singles[rnd.Intn(len(singles))]})
	}
	return sets
}

// labelValues are the values of a label in order.
func labelValues(t testing.TB, x *blockindex.Index, name string, limit int, ms ...*labels.Matcher) ([]string, error) {
	t.Helper()
	found := map[string]bool{}
	err := x.LabelValues(t.Context(), name, limit, func(value string) error {
		found[strings.Clone(value)] = true
		return nil
	}, ms...)
	all := slices.Sorted(maps.Keys(found))
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	return all, err
}

func mustBeCorrupt(t *testing.T, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, blockindex.ErrCorrupt) {
		t.Fatalf("error is %v, want one that is %v", err, blockindex.ErrCorrupt)
	}
}
