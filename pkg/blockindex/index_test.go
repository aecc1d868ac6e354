package blockindex_test

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/varve-io/varve/pkg/blockindex"
)

// selected returns the series that matchers select, as text, by way of entries.
func selected(t *testing.T, x *blockindex.Index, ms ...*labels.Matcher) []string {
	t.Helper()
	s, err := x.Select(t.Context(), ms...)
	check(t, err)
	var got []string
	r := x.Series(s)
	var e blockindex.Entry
	for r.Next(t.Context(), math.MinInt64, math.MaxInt64, &e) {
		got = append(got, e.Labels.String())
	}
	check(t, r.Err())
	return got
}

func matching(all []testSeries, ms []*labels.Matcher) (texts []string) {
	for _, s := range all {
		if !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(s.labels.Get(m.Name)) }) && len(s.chunks) > 0 {
			texts = append(texts, s.labels.String())
		}
	}
	return texts
}

func TestSelectFindsWhatMatchersAccept(t *testing.T) {
	all := randomSeries(2000, 1)
	x, _ := open(t, writeIndex(t, all))
	for _, ms := range matcherSets(1) {
		if got, want := selected(t, x, ms...), matching(all, ms); !slices.Equal(got, want) {
			t.Errorf("%v selects %d series, want %d\n got %.300q\nwant %.300q", ms, len(got), len(want), got, want)
		}
	}
}

func TestEntriesAreWhatWasWritten(t *testing.T) {
	all := randomSeries(3000, 2)
	x, _ := open(t, writeIndex(t, all, "a symbol", "that no series has"))
	s, err := x.Select(t.Context())
	check(t, err)
	if len(s.Refs) != len(all) || len(s.Rest) > 0 {
		t.Fatalf("%d series and %v, want %d", len(s.Refs), s.Rest, len(all))
	}
	r := x.Series(s)
	var e blockindex.Entry
	for i, want := range all {
		if !slices.ContainsFunc(want.chunks, func(c chunks.Meta) bool { return c.MinTime <= 100 && c.MaxTime >= 0 }) {
			continue
		}
		if !r.Next(t.Context(), 0, 100, &e) {
			t.Fatalf("reading ends before %s: %v", want.labels, r.Err())
		}
		if !labels.Equal(e.Labels, want.labels) || len(e.Chunks) != len(want.chunks) {
			t.Fatalf("series %d: got %s with %d chunks, want %s with %d", i, e.Labels, len(e.Chunks), want.labels, len(want.chunks))
		}
		for j, c := range e.Chunks {
			want := want.chunks[j]
			if c.Ref != chunks.BlockChunkRef(want.Ref) || c.MinTime != want.MinTime || c.MaxTime != want.MaxTime {
				t.Fatalf("chunk %d of %s: got %v, want %v", j, e.Labels, c, want)
			}
		}
		var next chunks.BlockChunkRef
		if i+1 < len(all) && len(all[i+1].chunks) > 0 {
			next = chunks.BlockChunkRef(all[i+1].chunks[0].Ref)
		}
		if e.Next != next && e.Next != 0 {
			t.Fatalf("what follows %s: got %d, want %d", e.Labels, e.Next, next)
		}
	}
	if r.Next(t.Context(), 0, 100, &e) || r.Err() != nil {
		t.Errorf("there is more: %s (%v)", e.Labels, r.Err())
	}
}

func TestLabels(t *testing.T) {
	all := randomSeries(2000, 3)
	x, _ := open(t, writeIndex(t, all))
	names := []string{"__name__", "absent", "few", "long", "many", "rare"}
	for _, ms := range matcherSets(3) {
		found := map[string]map[string]bool{}
		for _, s := range all {
			if !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(s.labels.Get(m.Name)) }) {
				s.labels.Range(func(l labels.Label) {
					if found[l.Name] == nil {
						found[l.Name] = map[string]bool{}
					}
					found[l.Name][l.Value] = true
				})
			}
		}
		if got, err := x.LabelNames(t.Context(), ms...); err != nil || !slices.Equal(got, sortedKeys(found)) {
			t.Fatalf("names of %v: got %q (%v), want %q", ms, got, err, sortedKeys(found))
		}
		e, err := x.Estimate(t.Context(), ms...)
		if n := int64(len(matching(all, ms))); err != nil || e.Series < n || e.Memory < 0 || len(e.Postings) != len(ms) {
			t.Fatalf("estimate of %v is %+v (%v), want %d series or more", ms, e, err, n)
		}
		if got, err := x.Any(t.Context(), ms...); err != nil || got != (len(found) > 0) {
			t.Fatalf("any of %v: %v (%v)", ms, got, err)
		}
		for _, name := range names {
			want := sortedKeys(found[name])
			for _, limit := range []int{0, 1, 3} {
				if limit > 0 && len(want) > limit {
					want = want[:limit]
				} else {
					want = sortedKeys(found[name])
				}
				if got, err := labelValues(t, x, name, limit, ms...); err != nil || !slices.Equal(got, want[:min(len(want), max(limit, len(want)*(1-min(limit, 1))))]) {
					t.Fatalf("%d values of %s of %v: got %.300q (%v), want %.300q", limit, name, ms, got, err, want)
				}
			}
		}
	}
	for name, want := range map[string]bool{"few": true, "absent": false, "": false} {
		if got, err := x.HasLabel(t.Context(), name); err != nil || got != want {
			t.Errorf("has label %q: %v (%v), want %v", name, got, err, want)
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func TestADirectoryIsMadeOnceAndAgainWhenItIsDamaged(t *testing.T) {
	all := randomSeries(2000, 4)
	content, err := os.ReadFile(writeIndex(t, all))
	check(t, err)
	src := &memory{content: content}
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	everything := func(t *testing.T, d *blockindex.Directories) {
		t.Helper()
		x, err := d.Open(t.Context(), "x", src, 0)
		check(t, err)
		for _, ms := range [][]*labels.Matcher{nil, {matcher(labels.MatchRegexp, "many", "value-.*")}} {
			if got, want := selected(t, x, ms...), matching(all, ms); !slices.Equal(got, want) {
				t.Fatalf("%v selects %d series, want %d", ms, len(got), len(want))
			}
		}
	}
	builds := func() int64 {
		n := src.builds.Load()
		src.reset()
		return n
	}
	everything(t, directories(t, dir, 0))
	if builds() == 0 {
		t.Fatal("the first directory was not made")
	}
	everything(t, directories(t, dir, 0))
	if n := builds(); n > 0 {
		t.Fatalf("the directory was made %d times although it is there", n)
	}
	good, err := os.ReadFile(path)
	check(t, err)
	for name, damage := range map[string]func() error{
		"gone":    func() error { return os.Remove(path) },
		"empty":   func() error { return os.WriteFile(path, nil, 0o600) },
		"cut off": func() error { return os.Truncate(path, int64(len(good)/2)) },
		"other":   func() error { return os.WriteFile(path, make([]byte, len(good)), 0o600) },
		"all pages": func() error {
			return os.WriteFile(path, append(make([]byte, len(good)-200), good[len(good)-200:]...), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, damage())
			everything(t, directories(t, dir, 0))
			if builds() == 0 {
				t.Error("the directory was not made again")
			}
			if now, err := os.ReadFile(path); err != nil || !slices.Equal(now, good) {
				t.Errorf("the directory is another (%v)", err)
			}
		})
	}
	t.Run("while in use", func(t *testing.T) {
		x, err := directories(t, dir, 0).Open(t.Context(), "x", src, 0)
		check(t, err)
		check(t, os.WriteFile(path, make([]byte, len(good)), 0o600))
		if got, want := selected(t, x), matching(all, nil); !slices.Equal(got, want) {
			t.Fatalf("%d series, want %d", len(got), len(want))
		}
	})
}

func TestSweepRemovesWhatIsNotKept(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b", "1.tmp"} {
		check(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	d, err := blockindex.NewDirectories(dir, 0, prometheus.NewRegistry())
	check(t, err)
	check(t, d.Sweep(func(name string) bool { return name == "b" }))
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 || files[0].Name() != "b" {
		t.Errorf("left are %v (%v), want b", files, err)
	}
}

// TestLabelsAreAdded adds labels that come before, between, behind and in the place of
// those of the series.
func TestLabelsAreAdded(t *testing.T) {
	all := randomSeries(500, 5)
	x, _ := open(t, writeIndex(t, all))
	for _, added := range []labels.Labels{
		labels.FromStrings("a", "1"), labels.FromStrings("zz", "1"), labels.FromStrings("__name__", "x", "many", "y", "zz", "1"),
		labels.FromStrings("absent", "", "few", "", "cluster", "eu", "long", "short", "nothing", "a"),
	} {
		s, err := x.Select(t.Context())
		check(t, err)
		r := x.Series(s)
		r.Add(added)
		var e blockindex.Entry
		for _, series := range all {
			b := labels.NewBuilder(series.labels)
			added.Range(func(l labels.Label) {
				if l.Value != "" {
					b.Set(l.Name, l.Value)
				}
			})
			want := b.Labels()
			if len(series.chunks) == 0 {
				continue
			}
			if !r.Next(t.Context(), math.MinInt64, math.MaxInt64, &e) || !labels.Equal(e.Labels, want) {
				t.Fatalf("%s with %s: got %s, want %s (%v)", series.labels, added, e.Labels, want, r.Err())
			}
		}
	}
}

// TestWhatComesNextIsTold compares what Ahead and Starts say after each series with what Next brings.
func TestWhatComesNextIsTold(t *testing.T) {
	all := randomSeries(2000, 6)
	x, _ := open(t, writeIndex(t, all))
	s, err := x.Select(t.Context())
	check(t, err)
	var entries []blockindex.Entry
	r := x.Series(s)
	for e := (blockindex.Entry{}); r.Next(t.Context(), math.MinInt64, math.MaxInt64, &e); e.Chunks = nil {
		entries = append(entries, e)
	}
	check(t, r.Err())
	r = x.Series(s)
	r.Window(32 << 10) // some times as much
	told := 0
	var e blockindex.Entry
	for i := 0; r.Next(t.Context(), math.MinInt64, math.MaxInt64, &e); i++ {
		at := i
		r.Ahead(func(all []blockindex.Chunk, next chunks.BlockChunkRef) bool {
			if len(all) == 0 {
				return true // Next leaves it out
			}
			if !slices.Equal(all, entries[at].Chunks) || next != entries[at].Next && next != 0 {
				t.Fatalf("after series %d, %d ahead: got %v and %v, want %v and %v", i, at-i, all, next, entries[at].Chunks, entries[at].Next)
			}
			at++
			told++
			return at < i+20
		})
		at = i
		r.Starts(func(first, next chunks.BlockChunkRef) bool {
			if first == 0 {
				return true
			}
			if first != entries[at].Chunks[0].Ref || next != entries[at].Next && next != 0 {
				t.Fatalf("after series %d, %d ahead: it starts at %v and the next at %v, want %v and %v", i, at-i, first, next, entries[at].Chunks[0].Ref, entries[at].Next)
			}
			at++
			return at < i+20
		})
	}
	check(t, r.Err())
	if told < 5*len(entries) {
		t.Errorf("%d series were told of %d", told, len(entries))
	}
}
