package store

import (
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
)

func TestSeriesAreInOrderWhereExternalLabelsSwapThem(t *testing.T) {
	// The first is a prefix of the second, whose next name comes before "cluster".
	spec := blocktest.Spec{
		Labels: map[string]string{"cluster": "eu"}, MinTime: 0, MaxTime: 60_000,
		Series: []blocktest.Series{
			blocktest.Floats(labels.FromStrings("__name__", "up", "a", "1"), 0, 15_000, 1, 2),
			blocktest.Floats(labels.FromStrings("__name__", "up", "a", "1", "b", "1"), 0, 15_000, 3, 4),
		},
	}
	for name, tc := range map[string]struct {
		without []string
		want    string
	}{
		"with the external label":    {nil, `{__name__="up", a="1", b="1", cluster="eu"} {__name__="up", a="1", cluster="eu"}`},
		"without the external label": {[]string{"cluster"}, `{__name__="up", a="1"} {__name__="up", a="1", b="1"}`},
	} {
		t.Run(name, func(t *testing.T) {
			bkt := bucket.NewMemory()
			g := open(t, bkt, nil, add(t, bkt, spec))
			req := selectUp(0, 60_000)
			req.WithoutLabels, req.Partial = tc.without, storeapi.Abort
			got, warnings, err := series.Collect(g.Series(t.Context(), req))
			if err != nil || len(warnings) > 0 {
				t.Fatalf("series: %v, warnings %v", err, warnings)
			}
			var order []string
			for _, s := range got {
				order = append(order, s.Labels.String())
			}
			if got := strings.Join(order, " "); got != tc.want {
				t.Errorf("order:\n got %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestRowsAreHeldNoLongerThanTheirOrderNeeds(t *testing.T) {
	var given int
	in := func(yield func(row, error) bool) {
		for _, a := range []string{"1", "2", "3"} {
			for _, l := range []labels.Labels{labels.FromStrings("a", a, "c", "x"), labels.FromStrings("a", a, "b", "1", "c", "x")} {
				given++
				if !yield(row{labels: l}, nil) {
					return
				}
			}
		}
	}
	var got []labels.Labels
	for r, err := range heldBack(iter.Seq2[row, error](in)) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r.labels)
		if ahead := given - len(got); ahead > 2 {
			t.Errorf("%d rows are held when %s is handed out, want 2 at most", ahead, r.labels)
		}
	}
	if len(got) != 6 || !slices.IsSortedFunc(got, labels.Compare) {
		t.Errorf("got %v, want 6 rows in order", got)
	}
}
