package storeapitest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
)

// Run opens a store over Standard and checks all that the contract says of one
// with a single source. open registers what is to be closed with t.Cleanup. Start
// timestamps are compared when the store says that it is native.
func Run(t *testing.T, open func(t *testing.T, f Fixture) storeapi.Store) {
	s := suite{fixtures: []Fixture{Standard()}}
	s.store = open(t, s.fixtures[0])
	s.run(t)
	t.Run("an external label that contradicts a matcher selects nothing", s.contradiction)
	t.Run("external labels change the order", func(t *testing.T) {
		s := suite{fixtures: []Fixture{nested()}}
		s.store = open(t, s.fixtures[0])
		s.order(t)
	})
}

// RunReplicas does the same over two replicas of one Prometheus, for stores that
// have several sources. The second replica has its own samples, and a series more.
func RunReplicas(t *testing.T, open func(t *testing.T, fs []Fixture) storeapi.Store) {
	a, b := Standard(), Standard()
	b.External = labels.FromStrings("cluster", "eu", "prometheus", "p", "replica", "b")
	for i := range b.Series {
		for j := range b.Series[i].Samples {
			b.Series[i].Samples[j].T += 3000
		}
	}
	b.Series = append(b.Series, blocktest.Series{Labels: labels.FromStrings("__name__", "zz_only_in_b"), Samples: floats(Begin, 2, scrape, func(int) float64 { return 1 })})
	s := suite{fixtures: []Fixture{a, b}}
	s.store = open(t, s.fixtures)
	s.run(t)
}

type suite struct {
	fixtures []Fixture
	store    storeapi.Store
	native   bool
}

// lastSample bounds the samples of all fixtures.
const lastSample = End + 3000

func (s *suite) run(t *testing.T) {
	info, err := s.store.Info(t.Context())
	if err != nil {
		t.Fatalf("info: %v", err)
	}
	s.native = info.Native
	t.Run("info covers the data", func(t *testing.T) { s.info(t, info) })
	t.Run("matchers", s.matchers)
	t.Run("time ranges are inclusive at both ends", s.ranges)
	t.Run("removed labels", s.without)
	t.Run("labels only", s.skipChunks)
	t.Run("limits", s.limits)
	t.Run("shards", s.shards)
	t.Run("label names and values", s.labels)
	t.Run("label limits and ranges", s.labelLimits)
	t.Run("bad requests", s.badRequests)
	t.Run("a context that has ended", s.cancelled)
	t.Run("concurrent calls", s.concurrent)
}

// answered is a series as it is compared.
type answered struct {
	labels  labels.Labels
	replica string
	samples []blocktest.Sample
}

// want is the answer by its definition: every series, relabelled, matched, cut.
func (s *suite) want(req *storeapi.Request) (out []answered) {
	for _, f := range s.fixtures {
		for _, in := range f.Series {
			lset, _ := series.Final(in.Labels, f.External, nil)
			if !matchesAll(lset, req.Matchers) {
				continue
			}
			a := answered{samples: slices.DeleteFunc(slices.Clone(in.Samples), func(p blocktest.Sample) bool {
				return p.T < req.MinTime || p.T > req.MaxTime
			})}
			if a.labels, a.replica = series.Final(lset, labels.EmptyLabels(), req.WithoutLabels); len(a.samples) > 0 {
				out = append(out, a)
			}
		}
	}
	return s.fold(out)
}

// fold sorts, and joins what has the same labels and replica.
func (s *suite) fold(list []answered) (out []answered) {
	slices.SortStableFunc(list, func(a, b answered) int {
		return cmp.Or(labels.Compare(a.labels, b.labels), cmp.Compare(a.replica, b.replica))
	})
	for _, a := range list {
		if n := len(out); n > 0 && labels.Equal(out[n-1].labels, a.labels) && out[n-1].replica == a.replica {
			out[n-1].samples = append(out[n-1].samples, a.samples...)
			continue
		}
		out = append(out, a)
	}
	for i := range out {
		for j := range out[i].samples {
			if !s.native {
				out[i].samples[j].ST = 0
			}
		}
		slices.SortStableFunc(out[i].samples, func(a, b blocktest.Sample) int { return cmp.Compare(a.T, b.T) })
		out[i].samples = slices.CompactFunc(out[i].samples, func(a, b blocktest.Sample) bool { return a.T == b.T && text(a) == text(b) })
	}
	return out
}

// ask runs a request and checks what holds for every answer.
func (s *suite) ask(t testing.TB, req *storeapi.Request) []series.Series {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got, warnings, err := series.Collect(s.store.Series(ctx, req))
	if err != nil {
		t.Fatalf("series: %v", err)
	}
	if len(warnings) > 0 {
		t.Errorf("warnings of a healthy store: %v", warnings)
	}
	for i := range got {
		if i > 0 && series.Compare(&got[i-1], &got[i]) > 0 {
			t.Errorf("series %s (%q) comes after %s (%q)", got[i].Labels, got[i].Replica, got[i-1].Labels, got[i-1].Replica)
		}
		if !slices.IsSortedFunc(got[i].Chunks, series.CompareChunks) {
			t.Errorf("chunks of %s are not in order", got[i].Labels)
		}
		if !req.SkipChunks && len(got[i].Chunks) == 0 {
			t.Errorf("series %s has no chunks and was not left out", got[i].Labels)
		}
	}
	return got
}

// check compares the answer with the definition, samples outside the range aside.
func (s *suite) check(t *testing.T, req *storeapi.Request) {
	t.Helper()
	var got []answered
	for _, in := range s.ask(t, req) {
		a := answered{labels: in.Labels, replica: in.Replica}
		for _, c := range in.Chunks {
			if c.Resolution != 0 {
				t.Errorf("raw chunk of %s has resolution %d", in.Labels, c.Resolution)
			}
			for _, p := range Decode(t, c) {
				if p.T < c.MinTime || p.T > c.MaxTime {
					t.Errorf("chunk of %s from %d to %d has a sample at %d", in.Labels, c.MinTime, c.MaxTime, p.T)
				}
				if p.T >= req.MinTime && p.T <= req.MaxTime {
					a.samples = append(a.samples, p)
				}
			}
		}
		if len(a.samples) > 0 { // a chunk may reach into the range without a sample in it
			got = append(got, a)
		}
	}
	compare(t, s.fold(got), s.want(req))
}

func compare(t *testing.T, got, want []answered) {
	t.Helper()
	if g, w := script(got), script(want); g != w {
		t.Fatalf("got\n%swant\n%s", g, w)
	}
	for i := range want {
		for j := range want[i].samples {
			if g, w := text(got[i].samples[j]), text(want[i].samples[j]); g != w {
				t.Errorf("sample %d of %s:\n got %s\nwant %s", j, want[i].labels, g, w)
			}
		}
	}
}

func all(ms ...*labels.Matcher) *storeapi.Request {
	if len(ms) == 0 {
		ms = []*labels.Matcher{re("__name__", ".+")}
	}
	return &storeapi.Request{MinTime: Begin, MaxTime: lastSample, Matchers: ms}
}

func eq(name, value string) *labels.Matcher {
	return labels.MustNewMatcher(labels.MatchEqual, name, value)
}

func ne(name, value string) *labels.Matcher {
	return labels.MustNewMatcher(labels.MatchNotEqual, name, value)
}

func re(name, value string) *labels.Matcher {
	return labels.MustNewMatcher(labels.MatchRegexp, name, value)
}

func nre(name, value string) *labels.Matcher {
	return labels.MustNewMatcher(labels.MatchNotRegexp, name, value)
}

func (s *suite) info(t *testing.T, info storeapi.Info) {
	if info.Component == "" || !info.APIs.Has(storeapi.StoreAPI) {
		t.Errorf("info has component %q and APIs %b, want a name and the Store API", info.Component, info.APIs)
	}
	if !info.DropsLabels {
		t.Error("info does not say that labels can be taken out")
	}
	for _, f := range s.fixtures {
		if !slices.ContainsFunc(info.LabelSets, func(l labels.Labels) bool { return labels.Equal(l, f.External) }) {
			t.Errorf("label sets are %v, want %s among them", info.LabelSets, f.External)
		}
	}
	for _, r := range append(info.Streams, storeapi.Stream{MinTime: info.MinTime, MaxTime: info.MaxTime}) {
		if r.MinTime > Begin || r.MaxTime < End {
			t.Errorf("range of %s is [%d, %d], want [%d, %d] inside", r.Labels, r.MinTime, r.MaxTime, Begin, End)
		}
	}
}

// matcherSets are shared by series and labels.
func matcherSets() map[string][]*labels.Matcher {
	return map[string][]*labels.Matcher{
		"everything": {re("__name__", ".+")},
		"equal":      {eq("__name__", "requests_total"), eq("code", "200")},
		"not equal":  {eq("__name__", "requests_total"), ne("code", "200")},
		"regexp":     {re("__name__", "hist_.*|up")},
		"not regexp": {eq("__name__", "requests_total"), nre("pod", "a|c")},
		"an empty value matches series without the label": {eq("__name__", "requests_total"), eq("pod", "")},
		"not empty means that the label is there":         {eq("__name__", "requests_total"), ne("pod", "")},
		"a regexp that matches the empty value":           {eq("__name__", "requests_total"), re("pod", "b|")},
		"a value with quotes and line breaks":             {eq("note", "überholt \"\n")},
		"an external label, equal":                        {eq("__name__", "up"), eq("cluster", "eu")},
		"an external label, not equal":                    {eq("__name__", "up"), ne("cluster", "us")},
		"an external label, regexp":                       {eq("__name__", "up"), re("replica", "a|b")},
		"an external label, not regexp":                   {eq("__name__", "up"), nre("cluster", "us|ap")},
		"external labels alone select everything":         {eq("cluster", "eu")},
		"the external value where a series has its own":   {eq("__name__", "clash"), eq("cluster", "eu")},
		"the hidden value of a series finds nothing":      {eq("__name__", "clash"), eq("cluster", "inner")},
		"a label that nobody has, empty":                  {eq("__name__", "up"), eq("absent", "")},
		"a label that nobody has, not empty":              {eq("__name__", "up"), ne("absent", "")},
		"no such metric":                                  {eq("__name__", "nothing")},
		"one replica":                                     {eq("__name__", "requests_total"), eq("replica", "a")},
	}
}

func (s *suite) matchers(t *testing.T) {
	for name, ms := range matcherSets() {
		t.Run(name, func(t *testing.T) { s.check(t, all(ms...)) })
	}
}

func (s *suite) contradiction(t *testing.T) {
	for _, m := range []*labels.Matcher{eq("cluster", "us"), ne("cluster", "eu"), re("cluster", "u."), nre("cluster", "e."), eq("replica", "")} {
		if got := s.ask(t, all(re("__name__", ".+"), m)); len(got) > 0 {
			t.Errorf("%s selects %d series, want none", m, len(got))
		}
	}
}

func (s *suite) ranges(t *testing.T) {
	for name, r := range map[string][2]int64{
		"everything":                     {Begin, lastSample},
		"the first sample alone":         {Begin, Begin},
		"the last sample alone":          {End, End},
		"up to just before the first":    {Begin - 1_000_000, Begin - 1},
		"from just after the last":       {lastSample + 1, lastSample + 1_000_000},
		"between two samples":            {Begin + 4000, Begin + 4500},
		"from inside a chunk to another": {Begin + 60*scrape + 1, Begin + 200*scrape},
		"an end before the beginning":    {End, Begin},
		"the second hour":                {Begin + 3_600_000, End},
	} {
		t.Run(name, func(t *testing.T) {
			req := all()
			req.MinTime, req.MaxTime = r[0], r[1]
			s.check(t, req)
		})
	}
}

func (s *suite) without(t *testing.T) {
	for name, tc := range map[string]struct{ labels []string }{
		"an external label":                   {[]string{"replica"}},
		"a label of series in the middle":     {[]string{"pod"}},
		"both, and one that does not exist":   {[]string{"replica", "absent", "pod"}},
		"the same one twice":                  {[]string{"pod", "pod"}},
		"an external label that series hide":  {[]string{"cluster"}},
		"so many that metrics fall together":  {[]string{"__name__", "code", "job", "pod", "replica", "zone"}},
		"a label that comes last in a series": {[]string{"zone"}},
	} {
		t.Run(name, func(t *testing.T) {
			req := all()
			req.WithoutLabels = tc.labels
			s.check(t, req)
		})
	}
	t.Run("matchers see the labels before", func(t *testing.T) {
		req := all(eq("__name__", "requests_total"), eq("pod", "a"), re("replica", "a|b"))
		req.WithoutLabels = []string{"pod", "replica"}
		s.check(t, req)
	})
}

// order wants series sorted by their final labels, whichever of them are added.
func (s *suite) order(t *testing.T) {
	info, err := s.store.Info(t.Context())
	if err != nil {
		t.Fatalf("info: %v", err)
	}
	s.native = info.Native
	for name, without := range map[string][]string{
		"all are added":                         nil,
		"one is added":                          {"replica"},
		"the other is":                          {"cluster"},
		"none is":                               {"cluster", "replica"},
		"one, and one of the series is removed": {"replica", "az"},
	} {
		t.Run(name, func(t *testing.T) {
			req := all()
			req.WithoutLabels = without
			s.check(t, req)
		})
	}
}

func (s *suite) skipChunks(t *testing.T) {
	req := all()
	req.SkipChunks, req.WithoutLabels = true, []string{"replica"}
	var got []answered
	for _, in := range s.ask(t, req) {
		if len(in.Chunks) > 0 {
			t.Errorf("series %s has %d chunks, want none", in.Labels, len(in.Chunks))
		}
		got = append(got, answered{labels: in.Labels, replica: in.Replica})
	}
	want := s.want(req)
	for i := range want {
		want[i].samples = nil
	}
	compare(t, s.fold(got), want)
}

func (s *suite) limits(t *testing.T) {
	total := len(distinct(s.ask(t, all())))
	for limit := 1; limit <= total+1; limit += 4 {
		req := all()
		req.Limit = limit
		if got := len(distinct(s.ask(t, req))); got > limit || got == 0 {
			t.Errorf("limit %d: %d series, want at least one and at most the limit", limit, got)
		}
	}
	req := all()
	req.Limit = 1000
	s.check(t, req)
}

func distinct(list []series.Series) map[string]struct{} {
	out := map[string]struct{}{}
	for _, s := range list {
		out[s.Labels.String()] = struct{}{}
	}
	return out
}

func (s *suite) shards(t *testing.T) {
	info, err := s.store.Info(t.Context())
	if err != nil || !info.SupportsSharding {
		t.Skipf("the store announces no sharding (%v)", err)
	}
	for name, shard := range map[string]storeapi.Shard{
		"by some labels":   {Total: 3, By: true, Labels: []string{"pod", "code"}},
		"by all but some":  {Total: 3, Labels: []string{"__name__"}},
		"by one shard":     {Total: 1},
		"by the same hash": {Total: 2, By: true, Labels: []string{"absent"}},
	} {
		t.Run(name, func(t *testing.T) {
			union := map[string]struct{}{}
			for i := range shard.Total {
				req := all()
				req.WithoutLabels = []string{"replica"}
				shard.Index = i
				req.Shard = &shard
				for key := range distinct(s.ask(t, req)) {
					if _, twice := union[key]; twice {
						t.Errorf("series %s is in two shards", key)
					}
					union[key] = struct{}{}
				}
			}
			req := all()
			req.WithoutLabels = []string{"replica"}
			if want := distinct(s.ask(t, req)); !maps.Equal(union, want) {
				t.Errorf("the shards together have %d series, want %d", len(union), len(want))
			}
		})
	}
}

func labelsOf(req *storeapi.Request) *storeapi.LabelsRequest {
	return &storeapi.LabelsRequest{MinTime: req.MinTime, MaxTime: req.MaxTime, Matchers: req.Matchers, WithoutLabels: req.WithoutLabels}
}

func (s *suite) labels(t *testing.T) {
	sets := matcherSets()
	sets["no matchers"] = nil
	for name, ms := range sets {
		for _, without := range [][]string{nil, {"replica"}, {"pod", "cluster"}} {
			t.Run(fmt.Sprintf("%s without %v", name, without), func(t *testing.T) {
				req := all()
				req.Matchers, req.WithoutLabels = ms, without
				wantNames, wantValues := s.wantLabels(req)
				got, _, err := s.store.LabelNames(t.Context(), labelsOf(req))
				if err != nil || !slices.Equal(got, wantNames) {
					t.Errorf("label names: got %q (%v), want %q", got, err, wantNames)
				}
				for _, label := range []string{"__name__", "cluster", "replica", "pod", "code", "note", "absent"} {
					got, _, err := s.store.LabelValues(t.Context(), label, labelsOf(req))
					if err != nil || !slices.Equal(got, wantValues[label]) {
						t.Errorf("values of %s: got %q (%v), want %q", label, got, err, wantValues[label])
					}
				}
			})
		}
	}
}

func (s *suite) wantLabels(req *storeapi.Request) (names []string, values map[string][]string) {
	values = map[string][]string{}
	for _, a := range s.want(req) {
		a.labels.Range(func(l labels.Label) {
			if !slices.Contains(values[l.Name], l.Value) {
				values[l.Name] = append(values[l.Name], l.Value)
			}
		})
	}
	for _, list := range values {
		slices.Sort(list)
	}
	return slices.Sorted(maps.Keys(values)), values
}

func (s *suite) labelLimits(t *testing.T) {
	req := labelsOf(all())
	req.Limit = 2
	if got, _, err := s.store.LabelNames(t.Context(), req); err != nil || len(got) != 2 {
		t.Errorf("two label names: got %q (%v)", got, err)
	}
	if got, _, err := s.store.LabelValues(t.Context(), "__name__", req); err != nil || len(got) != 2 {
		t.Errorf("two label values: got %q (%v)", got, err)
	}
	long := labelsOf(all())
	long.MinTime, long.MaxTime = Begin-90*24*3_600_000, Begin-60*24*3_600_000
	if got, _, err := s.store.LabelNames(t.Context(), long); err != nil || len(got) > 0 {
		t.Errorf("label names long before the data: got %q (%v), want none", got, err)
	}
	if got, _, err := s.store.LabelValues(t.Context(), "job", long); err != nil || len(got) > 0 {
		t.Errorf("label values long before the data: got %q (%v), want none", got, err)
	}
}

func (s *suite) badRequests(t *testing.T) {
	for name, change := range map[string]func(*storeapi.Request){
		"no matchers":           func(r *storeapi.Request) { r.Matchers = nil },
		"a negative limit":      func(r *storeapi.Request) { r.Limit = -1 },
		"a negative resolution": func(r *storeapi.Request) { r.MaxResolution = -1 },
		"a shard out of range":  func(r *storeapi.Request) { r.Shard = &storeapi.Shard{Index: 2, Total: 2} },
	} {
		t.Run(name, func(t *testing.T) {
			req := all()
			change(req)
			if _, _, err := series.Collect(s.store.Series(t.Context(), req)); !errors.Is(err, storeapi.ErrBadRequest) {
				t.Errorf("error is %v, want %v", err, storeapi.ErrBadRequest)
			}
		})
	}
	if _, _, err := s.store.LabelValues(t.Context(), "", labelsOf(all())); !errors.Is(err, storeapi.ErrBadRequest) {
		t.Errorf("values of no label: error is %v, want %v", err, storeapi.ErrBadRequest)
	}
	if _, _, err := s.store.LabelNames(t.Context(), &storeapi.LabelsRequest{Limit: -1}); !errors.Is(err, storeapi.ErrBadRequest) {
		t.Errorf("label names with a negative limit: error is %v, want %v", err, storeapi.ErrBadRequest)
	}
}

func (s *suite) cancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := series.Collect(s.store.Series(ctx, all())); !errors.Is(err, context.Canceled) {
		t.Errorf("series: error is %v, want %v", err, context.Canceled)
	}
	if _, _, err := s.store.LabelNames(ctx, labelsOf(all())); !errors.Is(err, context.Canceled) {
		t.Errorf("label names: error is %v, want %v", err, context.Canceled)
	}
}

func (s *suite) concurrent(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			req := all(re("__name__", "requests_total|up|hist_int.*"))
			if i%2 == 0 {
				req.WithoutLabels = []string{"pod"}
			}
			for range 3 {
				s.check(t, req)
			}
		})
	}
	wg.Wait()
}
