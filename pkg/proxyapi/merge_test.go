package proxyapi

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

func alert(name string, s AlertState, evaluated int, lset ...string) Rule {
	return Rule{Type: Alerting, Name: name, State: s, Labels: labels.FromStrings(lset...), LastEvaluation: at.Add(time.Duration(evaluated) * time.Second)}
}

func record(name string, evaluated int, lset ...string) Rule {
	return Rule{Type: Recording, Name: name, Labels: labels.FromStrings(lset...), LastEvaluation: at.Add(time.Duration(evaluated) * time.Second)}
}

func rulesText(groups []RuleGroup) (out []string) {
	for _, g := range groups {
		for _, r := range g.Rules {
			out = append(out, fmt.Sprintf("%s/%s %s %s%s %s +%ds", g.File, g.Name, r.Type, r.Name, r.Labels, r.State, int(r.LastEvaluation.Sub(at).Seconds())))
		}
	}
	return out
}

func TestMergeRules(t *testing.T) {
	for name, tc := range map[string]struct {
		in   []RuleGroup
		want []string
	}{
		"nothing": {nil, nil},
		"the same group of two replicas is one": {
			[]RuleGroup{
				{Name: "g", File: "f", Rules: []Rule{record("r", 1, "replica", "a")}},
				{Name: "g", File: "f", Rules: []Rule{record("r", 2, "replica", "b")}},
			},
			[]string{"f/g recording r{}  +2s"},
		},
		"a firing alert wins over a later one that is not": {
			[]RuleGroup{{Name: "g", File: "f", Rules: []Rule{
				alert("A", StatePending, 5, "replica", "a"), alert("A", StateFiring, 1, "replica", "b"), alert("A", StateInactive, 9, "replica", "c"),
			}}},
			[]string{"f/g alerting A{} firing +1s"},
		},
		"of equal alerts the later evaluation wins": {
			[]RuleGroup{{Name: "g", File: "f", Rules: []Rule{alert("A", StateFiring, 1, "replica", "a"), alert("A", StateFiring, 2, "replica", "b")}}},
			[]string{"f/g alerting A{} firing +2s"},
		},
		"other labels keep rules apart, alerts come first": {
			[]RuleGroup{{Name: "g", File: "f", Rules: []Rule{record("a", 0), alert("B", StateFiring, 0, "c", "2"), alert("B", StateFiring, 0, "c", "1")}}},
			[]string{`f/g alerting B{c="1"} firing +0s`, `f/g alerting B{c="2"} firing +0s`, "f/g recording a{}  +0s"},
		},
		"groups of one name in two files stay two": {
			[]RuleGroup{{Name: "g", File: "f2", Rules: []Rule{record("r", 0)}}, {Name: "g", File: "f1", Rules: []Rule{record("r", 0)}}},
			[]string{"f1/g recording r{}  +0s", "f2/g recording r{}  +0s"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := fmt.Sprint(tc.in)
			if got := rulesText(MergeRules(tc.in, []string{"replica"})); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got\n%q\nwant\n%q", got, tc.want)
			}
			if fmt.Sprint(tc.in) != before {
				t.Errorf("the arguments were changed to %v", tc.in)
			}
		})
	}
}

func TestFilterRules(t *testing.T) {
	in := []RuleGroup{
		{Name: "g1", File: "f1", Rules: []Rule{alert("A", StateFiring, 0, "team", "x"), record("r", 0, "team", "y")}},
		{Name: "g2", File: "f2", Rules: []Rule{record("r", 0)}},
	}
	for name, tc := range map[string]struct {
		req  RulesRequest
		want int
	}{
		"everything":             {RulesRequest{}, 3},
		"by type":                {RulesRequest{Type: Recording}, 2},
		"by name":                {RulesRequest{Names: []string{"A", "none"}}, 1},
		"by group":               {RulesRequest{Groups: []string{"g2"}}, 1},
		"by file":                {RulesRequest{Files: []string{"f1"}}, 2},
		"by labels":              {RulesRequest{Match: []string{`{team="x"}`}}, 1},
		"by one of two matchers": {RulesRequest{Match: []string{`{team="x"}`, `{team=~"y|z"}`}}, 2},
		"nothing is left":        {RulesRequest{Names: []string{"none"}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := FilterRules(in, tc.req)
			if err != nil || len(rulesText(got)) != tc.want {
				t.Errorf("got %q (%v), want %d rules", rulesText(got), err, tc.want)
			}
			for _, g := range got {
				if len(g.Rules) == 0 {
					t.Errorf("group %s is empty and still there", g.Name)
				}
			}
		})
	}
	if _, err := FilterRules(in, RulesRequest{Match: []string{"{"}}); !errors.Is(err, ErrBadRequest) {
		t.Errorf("a selector that is none: error is %v, want %v", err, ErrBadRequest)
	}
}

func TestMergeTargets(t *testing.T) {
	target := func(replica, url string, scraped int, h TargetHealth) Target {
		return Target{
			Labels: labels.FromStrings("job", "x", "replica", replica), DiscoveredLabels: labels.FromStrings("replica", replica),
			ScrapePool: "x", ScrapeURL: url, LastScrape: at.Add(time.Duration(scraped) * time.Second), Health: h,
		}
	}
	got := MergeTargets([]TargetDiscovery{
		{Active: []Target{target("a", "u1", 1, HealthUp), target("a", "u2", 1, HealthUp)}, Dropped: []Dropped{{labels.FromStrings("z", "1", "replica", "a")}}},
		{Active: []Target{target("b", "u1", 2, HealthDown)}, Dropped: []Dropped{{labels.FromStrings("z", "1", "replica", "b")}}},
	}, []string{"replica"})
	if len(got.Active) != 2 || got.Active[0].ScrapeURL != "u1" || got.Active[0].Health != HealthDown || got.Active[1].ScrapeURL != "u2" {
		t.Errorf("active: got %+v, want u1 as scraped last, and u2", got.Active)
	}
	if len(got.Dropped) != 1 || got.Dropped[0].DiscoveredLabels.Has("replica") {
		t.Errorf("dropped: got %v, want one without replica", got.Dropped)
	}
}

func TestMergeMetadata(t *testing.T) {
	in := []map[string][]Meta{
		{"up": {{"gauge", "Up.", ""}}, "zz": {{"counter", "", ""}}},
		{"up": {{"gauge", "Up.", ""}, {"gauge", "Is it up?", ""}}, "b": {{"counter", "", ""}}},
	}
	for limit, want := range map[int]string{
		-1: "map[b:[{counter  }] up:[{gauge Is it up? } {gauge Up. }] zz:[{counter  }]]",
		2:  "map[b:[{counter  }] up:[{gauge Is it up? } {gauge Up. }]]",
		0:  "map[]",
	} {
		if got := fmt.Sprint(MergeMetadata(in, limit)); got != want {
			t.Errorf("limit %d:\n got %s\nwant %s", limit, got, want)
		}
	}
}

func TestMergeExemplars(t *testing.T) {
	e := func(t int64, trace string) Exemplar { return Exemplar{labels.FromStrings("trace", trace), 1, t} }
	in := []SeriesExemplars{
		{labels.FromStrings("job", "x", "replica", "a"), []Exemplar{e(1, "1"), e(3, "3")}},
		{labels.FromStrings("job", "y", "replica", "a"), []Exemplar{e(1, "1")}},
		{labels.FromStrings("job", "x", "replica", "b"), []Exemplar{e(1, "1"), e(2, "2")}},
	}
	before := fmt.Sprint(in)
	want := `[{{job="x"} [{{trace="1"} 1 1} {{trace="2"} 1 2} {{trace="3"} 1 3}]} {{job="y"} [{{trace="1"} 1 1}]}]`
	if got := fmt.Sprint(MergeExemplars(in, []string{"replica"})); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if fmt.Sprint(in) != before {
		t.Errorf("the arguments were changed to %v", in)
	}
}

func TestExemplarQuery(t *testing.T) {
	sets := []labels.Labels{labels.FromStrings("cluster", "eu", "replica", "a"), labels.FromStrings("cluster", "us")}
	for name, tc := range map[string]struct{ query, stripped, whole string }{
		"matchers on external labels go":            {`sum(rate(m{cluster="eu", job="x"}[5m]))`, `{job="x", __name__="m"}`, `{cluster="eu", job="x", __name__="m"}`},
		"a selector that contradicts is left out":   {`m{cluster="ap"} / n`, `{__name__="n"}`, `{__name__="n"}`},
		"two selectors are joined":                  {`m / n{replica="a"}`, `{__name__="m"} + {__name__="n"}`, `{__name__="m"} + {replica="a", __name__="n"}`},
		"nothing is left when all contradict":       {`m{cluster="ap"}`, ``, ``},
		"nothing is left of external matchers only": {`{cluster="eu"}`, ``, `{cluster="eu"}`},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := ExemplarQuery(tc.query, sets); err != nil || got != tc.stripped {
				t.Errorf("got %s (%v), want %s", got, err, tc.stripped)
			}
			if got, err := MatchingSelectors(tc.query, sets); err != nil || got != tc.whole {
				t.Errorf("whole: got %s (%v), want %s", got, err, tc.whole)
			}
		})
	}
	if _, err := ExemplarQuery("sum(", nil); !errors.Is(err, ErrBadRequest) {
		t.Errorf("a query that is none: error is %v, want %v", err, ErrBadRequest)
	}
}

func TestMergeStatus(t *testing.T) {
	one := TSDBStatus{
		Head:                       HeadStats{NumSeries: 10, NumLabelPairs: 20, ChunkCount: 30, MinTime: 100, MaxTime: 200},
		SeriesCountByMetricName:    []Stat{{"up", 5}, {"a", 4}, {"b", 3}},
		LabelValueCountByLabelName: []Stat{{"job", 7}},
	}
	two := TSDBStatus{
		Head:                       HeadStats{NumSeries: 1, NumLabelPairs: 2, ChunkCount: 3, MinTime: 50, MaxTime: 150},
		SeriesCountByMetricName:    []Stat{{"b", 9}, {"up", 1}},
		LabelValueCountByLabelName: []Stat{{"job", 9}},
	}
	got := MergeStatus([]map[string]TSDBStatus{{"": one}, {"": two, "t": two}}, 2)
	want := map[string]TSDBStatus{
		"": {
			Head:                       HeadStats{NumSeries: 11, NumLabelPairs: 22, ChunkCount: 33, MinTime: 50, MaxTime: 200},
			SeriesCountByMetricName:    []Stat{{"b", 12}, {"up", 6}},
			LabelValueCountByLabelName: []Stat{{"job", 9}},
			MemoryInBytesByLabelName:   []Stat{}, SeriesCountByLabelValuePair: []Stat{},
		},
		"t": {
			Head: two.Head, SeriesCountByMetricName: []Stat{{"b", 9}, {"up", 1}}, LabelValueCountByLabelName: []Stat{{"job", 9}},
			MemoryInBytesByLabelName: []Stat{}, SeriesCountByLabelValuePair: []Stat{},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}
