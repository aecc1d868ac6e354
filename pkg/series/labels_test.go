package series

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"
)

func TestFinal(t *testing.T) {
	for name, tc := range map[string]struct {
		lset, external string
		without        []string
		want, replica  string
	}{
		"external labels are added":                        {`{a="1"}`, `{c="x"}`, nil, `{a="1", c="x"}`, ""},
		"external labels win":                              {`{a="1", c="own"}`, `{c="x"}`, nil, `{a="1", c="x"}`, ""},
		"an empty external label counts as absent":         {`{a="1", c="own"}`, `{c=""}`, nil, `{a="1", c="own"}`, ""},
		"the replica label becomes the replica":            {`{a="1"}`, `{replica="r1"}`, []string{"replica"}, `{a="1"}`, "r1"},
		"a replica label of the series itself counts, too": {`{a="1", replica="r2"}`, `{}`, []string{"replica"}, `{a="1"}`, "r2"},
		"a replica label of the series is overridden":      {`{replica="own"}`, `{replica="r1"}`, []string{"replica"}, `{}`, "r1"},
		"several are joined in the order of their names":   {`{a="1"}`, `{r="x", pod="y"}`, []string{"r", "pod"}, `{a="1"}`, "y\xffx"},
		"one that is missing leaves its place empty":       {`{a="1"}`, `{r="x"}`, []string{"pod", "r"}, `{a="1"}`, "\xffx"},
		"a repeated name counts once":                      {`{a="1"}`, `{r="x"}`, []string{"r", "r"}, `{a="1"}`, "x"},
		"without any of them there is no replica":          {`{a="1"}`, `{c="x"}`, []string{"pod", "r"}, `{a="1", c="x"}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, replica := Final(parseLabels(t, tc.lset), parseLabels(t, tc.external), tc.without)
			if got.String() != tc.want || replica != tc.replica {
				t.Errorf("got %s and %q, want %s and %q", got, replica, tc.want, tc.replica)
			}
		})
	}
}

func parseLabels(t *testing.T, s string) labels.Labels {
	t.Helper()
	b := labels.NewScratchBuilder(2)
	for pair := range strings.SplitSeq(strings.Trim(s, "{}"), ", ") {
		if name, value, ok := strings.Cut(pair, "="); ok {
			b.Add(name, strings.Trim(value, `"`))
		}
	}
	b.Sort()
	return b.Labels()
}

// TestFinalLaws checks random labels against what Final promises, said in maps.
func TestFinalLaws(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	names := []string{"a", "b", "c", "d"}
	some := func() map[string]string {
		m := map[string]string{}
		for _, n := range names {
			if r.IntN(2) == 0 {
				m[n] = []string{"x", "y"}[r.IntN(2)]
			}
		}
		return m
	}
	replicas := map[string]string{} // replica → the values it stands for
	for range 5000 {
		own, external := some(), some()
		var without []string
		for _, n := range names {
			if r.IntN(2) == 0 {
				without = append(without, n)
			}
		}
		r.Shuffle(len(without), func(i, j int) { without[i], without[j] = without[j], without[i] })
		before := slices.Clone(without)

		got, replica := Final(labels.FromMap(own), labels.FromMap(external), without)

		if !slices.Equal(before, without) {
			t.Fatalf("the list of replica labels was changed: %v, was %v", without, before)
		}
		values := []string{}
		for _, n := range names {
			want := own[n]
			if v, ok := external[n]; ok {
				want = v
			}
			if slices.Contains(without, n) {
				values = append(values, n+"="+want)
				want = ""
			}
			if got.Get(n) != want {
				t.Fatalf("%v + %v without %v: %s is %q, want %q", own, external, without, n, got.Get(n), want)
			}
		}
		key := strings.Join(without, ",") + replica
		all := strings.Join(values, ",")
		if old, ok := replicas[key]; ok && old != all {
			t.Fatalf("replica %q stands for %s and for %s", replica, old, all)
		}
		replicas[key] = all
	}
}

func TestSortPutsChangedLabelsInOrder(t *testing.T) {
	var w annotations.Annotations
	w.Add(errors.New("careful"))
	var in []Series
	for _, lset := range []string{`{a="1", z="1"}`, `{a="1"}`, `{b="1"}`, `{b="1"}`} {
		in = append(in, Series{Labels: parseLabels(t, lset), Chunks: []Chunk{{MinTime: int64(len(in))}}})
	}
	got, warnings, err := Collect(Sort(NewSet(in, w)))
	if err != nil || len(warnings) != 1 {
		t.Fatalf("error %v, warnings %v", err, warnings)
	}
	var order []int64
	for _, s := range got {
		order = append(order, s.Chunks[0].MinTime)
	}
	if !slices.Equal(order, []int64{1, 0, 2, 3}) {
		t.Errorf("got order %v, want 1 0 2 3", order)
	}
	boom := errors.New("boom")
	if got, _, err := Collect(Sort(ErrSet(boom))); !errors.Is(err, boom) || len(got) != 0 {
		t.Errorf("got %v and error %v, want %v", got, err, boom)
	}
}
