package sidecar_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/sidecar"
	"github.com/varve-io/varve/pkg/storeapi"
	"github.com/varve-io/varve/pkg/storeapi/storeapitest"
)

func everything(without ...string) *storeapi.Request {
	return &storeapi.Request{
		MinTime: -1e12, MaxTime: 1e12, WithoutLabels: without,
		Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".*")},
	}
}

// ask reads a whole answer.
func ask(t *testing.T, s storeapi.Store, req *storeapi.Request) ([]series.Series, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got, warnings, err := series.Collect(s.Series(ctx, req))
	if len(warnings) > 0 {
		t.Errorf("warnings: %v", warnings)
	}
	return got, err
}

// tallies counts, for each series of an answer, the samples by value.
func tallies(t *testing.T, list []series.Series) map[string]map[float64]int {
	t.Helper()
	out := map[string]map[float64]int{}
	for _, s := range list {
		key := s.Labels.String() + " of " + strconv.Quote(s.Replica)
		if out[key] == nil {
			out[key] = map[float64]int{}
		}
		for _, c := range s.Chunks {
			for _, p := range storeapitest.Decode(t, c) {
				out[key][p.V]++
			}
		}
	}
	return out
}

// Any series, external labels and labels to remove, whose names are few, so that
// they meet: the answer is in order, and nothing is missing or comes twice.
func TestLiveSeriesComeInTheOrderOfTheirFinalLabels(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 1))
		list, raw := randomSeries(rng)
		external := randomLabels(rng, []string{"A", "b", "d", "z"}, 0.6)
		without := slices.Collect(maps.Keys(randomLabels(rng, []string{"a", "d", "e", "z"}, 0.3).Map()))
		if external.IsEmpty() {
			external = labels.FromStrings("b", "x")
		}
		p := remotePrometheus{announced: external, merged: external, frame: 200, samplesOnly: seed%10 == 0}
		t.Run(fmt.Sprintf("seed %d: external %s without %v", seed, external, without), func(t *testing.T) {
			got, err := ask(t, storeOver(t, p.start(t, list), nil), everything(without...))
			if err != nil {
				t.Fatal(err)
			}
			for i := range got[1:] {
				if series.Compare(&got[i], &got[i+1]) > 0 {
					t.Errorf("series %s (%q) comes after %s (%q)", got[i+1].Labels, got[i+1].Replica, got[i].Labels, got[i].Replica)
				}
			}
			want := map[string]map[float64]int{}
			for value, lset := range raw {
				final, replica := series.Final(lset, external, without)
				key := final.String() + " of " + strconv.Quote(replica)
				if want[key] == nil {
					want[key] = map[float64]int{}
				}
				want[key][value] = samplesEach
			}
			if g, w := fmt.Sprint(tallies(t, got)), fmt.Sprint(want); g != w {
				t.Errorf("got samples\n%s\nwant\n%s", g, w)
			}
		})
	}
}

const samplesEach = 250 // more than two chunks

// randomSeries gives series each of which has a value of its own.
func randomSeries(rng *rand.Rand) ([]blocktest.Series, map[float64]labels.Labels) {
	raw := map[float64]labels.Labels{}
	seen := map[string]bool{}
	var list []blocktest.Series
	for len(list) < 25 {
		lset := labels.NewBuilder(randomLabels(rng, []string{"a", "b", "c", "d", "e", "f"}, 0.4)).Set("__name__", "m").Labels()
		if seen[lset.String()] {
			continue
		}
		seen[lset.String()] = true
		value := float64(len(list) + 1)
		raw[value] = lset
		values := slices.Repeat([]float64{value}, samplesEach)
		list = append(list, blocktest.Floats(lset, 0, 1000, values...))
	}
	return list, raw
}

// randomLabels takes each of the names with some probability.
func randomLabels(rng *rand.Rand, names []string, p float64) labels.Labels {
	b := labels.NewBuilder(labels.EmptyLabels())
	for _, n := range names {
		if rng.Float64() < p {
			b.Set(n, strconv.Itoa(rng.IntN(2)))
		}
	}
	return b.Labels()
}

// many are series that together weigh far more than the limit of the tests below.
func many(n int) (list []blocktest.Series) {
	for i := range n {
		lset := labels.FromStrings("__name__", "m", "pod", fmt.Sprintf("%05d", i))
		list = append(list, blocktest.Floats(lset, 0, 1000, 1, 2, 3))
	}
	return list
}

func TestOnlyWhatChangesItsPlaceIsHeld(t *testing.T) {
	external := labels.FromStrings("cluster", "eu", "replica", "a")
	url := remotePrometheus{announced: external, merged: external, frame: 1 << 20}.start(t, many(1000))
	s := storeOver(t, url, func(o *sidecar.StoreOptions) { o.MaxHeld = 4 << 10 })
	for name, tc := range map[string]struct {
		without []string
		want    error
	}{
		"external labels are added":            {nil, nil},
		"an external label is removed":         {[]string{"replica"}, nil},
		"a label that nobody has is removed":   {[]string{"replica", "absent"}, nil},
		"a label that all series have goes":    {[]string{"pod"}, storeapi.ErrLimit},
		"the first label of all series goes":   {[]string{"__name__"}, storeapi.ErrLimit},
		"external and own labels are the same": {[]string{"replica", "pod"}, storeapi.ErrLimit},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ask(t, s, everything(tc.without...))
			if !errors.Is(err, tc.want) {
				t.Fatalf("error is %v, want %v", err, tc.want)
			}
			if err == nil && len(got) != 1000 {
				t.Errorf("got %d series, want 1000", len(got))
			}
			if err != nil && !strings.Contains(err.Error(), "more than 4096 bytes") {
				t.Errorf("the error does not name the limit: %v", err)
			}
		})
	}
}

func TestLimitsSayTheirNumbers(t *testing.T) {
	external := labels.FromStrings("cluster", "eu")
	url := remotePrometheus{announced: external, merged: external, frame: 1 << 20}.start(t, many(10))
	for name, tc := range map[string]struct {
		change func(*sidecar.StoreOptions)
		want   string
	}{
		"series":         {func(o *sidecar.StoreOptions) { o.MaxSeries = 9 }, "more than 9 series"},
		"samples":        {func(o *sidecar.StoreOptions) { o.MaxSamples = 29 }, "more than 29 samples"},
		"just enough":    {func(o *sidecar.StoreOptions) { o.MaxSeries, o.MaxSamples = 10, 30 }, ""},
		"a minimum time": {func(o *sidecar.StoreOptions) { o.MinTime = func() int64 { return 1500 }; o.MaxSamples = 10 }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ask(t, storeOver(t, url, tc.change), everything())
			switch {
			case tc.want == "" && (err != nil || len(got) != 10):
				t.Errorf("got %d series (%v), want 10", len(got), err)
			case tc.want != "" && (!errors.Is(err, storeapi.ErrLimit) || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("error is %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestAnswersThatBreakOffAreErrors(t *testing.T) {
	external := labels.FromStrings("cluster", "eu")
	for name, p := range map[string]remotePrometheus{
		"inside the frame of a series": {announced: external, merged: external, frame: 1 << 20, cutAfter: 500},
		"inside the samples":           {announced: external, merged: external, frame: 1 << 20, cutAfter: 100, samplesOnly: true},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ask(t, storeOver(t, p.start(t, many(100)), nil), everything())
			if !errors.Is(err, storeapi.ErrUnavailable) {
				t.Errorf("error is %v, want %v", err, storeapi.ErrUnavailable)
			}
		})
	}
}

// Between a reload of Prometheus and the next heartbeat remote read adds labels that
// nobody knows of.
func TestAnAnswerOutOfOrderIsAnError(t *testing.T) {
	p := remotePrometheus{announced: labels.FromStrings("A", "1"), merged: labels.FromStrings("A", "1", "d", "new"), frame: 1 << 20}
	url := p.start(t, []blocktest.Series{
		blocktest.Floats(labels.FromStrings("__name__", "m", "a", "1"), 0, 1000, 1),
		blocktest.Floats(labels.FromStrings("__name__", "m", "a", "1", "c", "1"), 0, 1000, 1),
	})
	_, err := ask(t, storeOver(t, url, nil), everything())
	if !errors.Is(err, storeapi.ErrUnavailable) || !strings.Contains(err.Error(), "external labels have just changed") {
		t.Errorf("error is %v", err)
	}
}

func TestSamplesBecomeChunks(t *testing.T) {
	external := labels.FromStrings("cluster", "eu")
	lset := func(name string) labels.Labels { return labels.FromStrings("__name__", name) }
	list := []blocktest.Series{
		blocktest.Floats(lset("floats"), 0, 1000, make([]float64, 250)...),
		{Labels: lset("histograms")},
		{Labels: lset("mixed")},
	}
	for i := range int64(130) {
		list[1].Samples = append(list[1].Samples, blocktest.Sample{T: i * 1000, H: tsdbutil.GenerateTestHistogram(i)})
	}
	list[2].Samples = []blocktest.Sample{{T: 0, V: 1}, {T: 1000, FH: tsdbutil.GenerateTestFloatHistogram(1)}, {T: 2000, V: 2}}
	url := remotePrometheus{announced: external, merged: external, samplesOnly: true}.start(t, list)
	got, err := ask(t, storeOver(t, url, nil), everything())
	if err != nil || len(got) != len(list) {
		t.Fatalf("got %d series (%v), want %d", len(got), err, len(list))
	}
	const xor, hist, float = chunkenc.EncXOR, chunkenc.EncHistogram, chunkenc.EncFloatHistogram
	for i, want := range [][]chunkenc.Encoding{{xor, xor, xor}, {hist, hist}, {xor, float, xor}} {
		var samples []blocktest.Sample
		var encodings []chunkenc.Encoding
		for _, c := range got[i].Chunks {
			encodings = append(encodings, c.Encoding)
			in := storeapitest.Decode(t, c)
			if in[0].T != c.MinTime || in[len(in)-1].T != c.MaxTime || len(in) > 120 {
				t.Errorf("chunk of %s from %d to %d has %d samples from %d to %d", got[i].Labels, c.MinTime, c.MaxTime, len(in), in[0].T, in[len(in)-1].T)
			}
			samples = append(samples, in...)
		}
		if !slices.Equal(encodings, want) || len(samples) != len(list[i].Samples) {
			t.Errorf("%s has encodings %v and %d samples, want %v and %d", got[i].Labels, encodings, len(samples), want, len(list[i].Samples))
		}
	}
}
