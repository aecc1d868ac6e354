package blockindex_test

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/blockindex"
)

// An error of the bucket is no corruption, leaves nothing behind, and passes.
func TestErrorsOfTheSourcePass(t *testing.T) {
	all := clusterSeries(20)
	content, err := os.ReadFile(writeIndex(t, all, "a symbol of no series"))
	check(t, err)
	src := &memory{content: content}
	dir := t.TempDir()
	d := directories(t, dir, 0)
	for range 2 {
		src.broken.Store(1)
		if _, err := d.Open(t.Context(), "x", src, 0); !errors.Is(err, errBroken) || errors.Is(err, blockindex.ErrCorrupt) {
			t.Fatalf("open: error is %v, want %v", err, errBroken)
		}
		if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
			t.Fatalf("left are %v (%v)", files, err)
		}
	}
	x, err := d.Open(t.Context(), "x", src, 0)
	check(t, err)
	ms := []*labels.Matcher{matcher(labels.MatchEqual, "namespace", "team-03")}
	src.broken.Store(1)
	if _, err := x.Select(t.Context(), ms...); !errors.Is(err, errBroken) {
		t.Errorf("select: error is %v, want %v", err, errBroken)
	}
	r := x.Series(mustSelect(t, x, ms))
	src.broken.Store(1)
	var e blockindex.Entry
	if r.Next(t.Context(), math.MinInt64, math.MaxInt64, &e) || !errors.Is(r.Err(), errBroken) {
		t.Errorf("series: error is %v, want %v", r.Err(), errBroken)
	}
	if got, want := selected(t, x, ms...), matching(all, ms); !slices.Equal(got, want) {
		t.Errorf("%d series, want %d", len(got), len(want))
	}

	// A directory that has to be made again while the bucket is away.
	check(t, os.Remove(filepath.Join(dir, "x")))
	src.broken.Store(1)
	if _, err := x.LabelNames(t.Context()); !errors.Is(err, errBroken) {
		t.Errorf("label names: error is %v, want %v", err, errBroken)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := x.Select(ctx, ms...); err == nil {
		t.Error("a select whose context had ended has an answer")
	}
	if names, err := x.LabelNames(t.Context()); err != nil || len(names) != 12 {
		t.Errorf("label names: %q (%v)", names, err)
	}
}

// A read that fails half way through making a directory leaves nothing behind either.
func TestADirectoryIsWholeOrNotThere(t *testing.T) {
	content, err := os.ReadFile(writeIndex(t, clusterSeries(20), "a symbol of no series"))
	check(t, err)
	dir := t.TempDir()
	src := &failingSymbols{memory: &memory{content: content}}
	if _, err := directories(t, dir, 0).Open(t.Context(), "x", src, 0); !errors.Is(err, errBroken) {
		t.Fatalf("error is %v, want %v", err, errBroken)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("left are %v (%v)", files, err)
	}
}

// failingSymbols fails for the front of the index.
type failingSymbols struct{ *memory }

func (s *failingSymbols) Read(ctx context.Context, ranges ...blockindex.Range) error {
	if ranges[0].Off == 0 {
		return errBroken
	}
	return s.memory.Read(ctx, ranges...)
}

// Directories that go under many readers with next to no memory for pages.
func TestManyReadersAndNoDirectory(t *testing.T) {
	all := clusterSeries(20)
	content, err := os.ReadFile(writeIndex(t, all))
	check(t, err)
	dir := t.TempDir()
	d := directories(t, dir, 16<<10)
	x, err := d.Open(t.Context(), "x", &memory{content: content}, 0)
	check(t, err)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			ms := []*labels.Matcher{matcher(labels.MatchRegexp, "pod", "service-[1-3].*"), matcher(labels.MatchNotEqual, "node", "node-01")}
			want := len(matching(all, ms))
			for range 25 {
				selection, err := x.Select(t.Context(), ms...)
				r := x.Series(selection)
				var e blockindex.Entry
				got := 0
				for r.Next(t.Context(), math.MinInt64, math.MaxInt64, &e) {
					got++
				}
				if i == 0 {
					err = errors.Join(err, d.Sweep(func(string) bool { return false }))
				}
				if err := errors.Join(err, r.Err()); err != nil || got != want {
					t.Errorf("%v: %d series (%v), want %d", ms, got, err, want)
				}
			}
		})
	}
	wg.Wait()
}
