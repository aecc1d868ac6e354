package block

import (
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
)

// tid is a ULID whose last letter is c; its time is the same for all.
func tid(c string) ulid.ULID { return id("01J8XPPZ6EZJ7QYJ4ZQJ0V4R5" + c) }

// entry builds a block over [0, 10) with the given sources and labels, written {name: value}.
func entry(name, sources string, level int, lset map[string]string) *Entry {
	m := &Meta{ULID: tid(name), MinTime: 0, MaxTime: 10, Version: 1, Thanos: Thanos{Labels: lset}}
	m.Compaction.Level = level
	for _, s := range sources {
		m.Compaction.Sources = append(m.Compaction.Sources, tid(string(s)))
	}
	return &Entry{Meta: m}
}

func TestSupersededBlocksAreThoseWhollyHeldByAnother(t *testing.T) {
	eu, euA, euB := map[string]string{"c": "eu"}, map[string]string{"c": "eu", "r": "a"}, map[string]string{"c": "eu", "r": "b"}
	only := func(v string) map[string]string { return map[string]string{"r": v} }
	coarse := entry("C", "AB", 2, eu)
	coarse.Meta.Thanos.Downsample.Resolution = FiveMin
	narrow := entry("C", "AB", 2, eu)
	narrow.Meta.MaxTime = 5
	for name, tc := range map[string]struct {
		blocks []*Entry
		want   string // hidden<holder …
	}{
		"sources of a merge":                          {[]*Entry{entry("A", "A", 1, eu), entry("B", "B", 1, eu), entry("C", "AB", 2, eu)}, "A<C B<C"},
		"an overlap in part hides nothing":            {[]*Entry{entry("C", "AB", 2, eu), entry("D", "BE", 2, eu)}, ""},
		"replicas merged into a block without":        {[]*Entry{entry("A", "A", 1, euA), entry("B", "B", 1, euB), entry("C", "AB", 2, eu)}, "A<C B<C"},
		"a replica alone relabelled":                  {[]*Entry{entry("A", "A", 1, euA), entry("C", "A", 1, eu)}, "A<C"},
		"replicas that had no other label":            {[]*Entry{entry("A", "A", 1, only("a")), entry("C", "AB", 2, only(Deduped))}, "A<C"},
		"a merge of the other replica holds nothing":  {[]*Entry{entry("A", "A", 1, euA), entry("C", "AB", 2, euB)}, ""},
		"one shard is not the whole":                  {[]*Entry{entry("A", "A", 1, eu), entry("C", "AB", 2, map[string]string{"c": "eu", "s": "1"})}, ""},
		"another resolution holds nothing":            {[]*Entry{entry("A", "A", 1, eu), coarse}, ""},
		"a block that ends earlier holds nothing":     {[]*Entry{entry("A", "A", 1, eu), narrow}, ""},
		"the same twice: the later ULID stays":        {[]*Entry{entry("C", "AB", 2, eu), entry("D", "AB", 2, eu)}, "C<D"},
		"the same twice: the higher level stays":      {[]*Entry{entry("C", "AB", 3, eu), entry("D", "AB", 2, eu)}, "D<C"},
		"a merge of merges hides both generations":    {[]*Entry{entry("A", "A", 1, eu), entry("C", "AB", 2, eu), entry("E", "ABD", 3, eu)}, "A<E C<E"},
		"blocks without sources are their own source": {[]*Entry{entry("A", "", 1, eu), entry("B", "", 1, eu), entry("C", "A", 2, eu)}, "A<C"},
	} {
		t.Run(name, func(t *testing.T) {
			hidden := Superseded(tc.blocks)
			var got []string
			for _, e := range tc.blocks {
				if by, ok := hidden[e.Meta.ULID]; ok {
					got = append(got, last(e.Meta.ULID)+"<"+last(by))
				}
			}
			if g := strings.Join(got, " "); g != tc.want {
				t.Errorf("got %q, want %q", g, tc.want)
			}
		})
	}
}

func last(id ulid.ULID) string { s := id.String(); return s[len(s)-1:] }

func TestGroupsLeaveReplicaLabelsOut(t *testing.T) {
	for name, tc := range map[string]struct {
		labels   map[string]string
		replicas []string
		want     string
	}{
		"nothing to leave out":        {map[string]string{"c": "eu"}, nil, `{c="eu"}@raw`},
		"one replica label":           {map[string]string{"c": "eu", "r": "a"}, []string{"r"}, `{c="eu"}@raw`},
		"several, one of them absent": {map[string]string{"c": "eu", "r": "a", "s": "1"}, []string{"s", "x", "r"}, `{c="eu"}@raw`},
		"no label would be left":      {map[string]string{"r": "a"}, []string{"x", "r"}, `{r="deduped"}@raw`},
		"no labels at all":            {nil, []string{"r"}, `{}@raw`},
	} {
		t.Run(name, func(t *testing.T) {
			m := &Meta{Thanos: Thanos{Labels: tc.labels}}
			if got := m.Group(tc.replicas).String(); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestSettledAndMarkedFor(t *testing.T) {
	now := time.Date(2024, 10, 3, 0, 0, 0, 0, time.UTC)
	m := golden()
	m.Thanos.Source, m.Thanos.UploadTime = SourceSidecar, now.Add(-10*time.Minute)
	if m.Settled(11*time.Minute, now) || !m.Settled(10*time.Minute, now) {
		t.Error("a block uploaded ten minutes ago is settled after ten minutes, not after eleven")
	}
	m.Thanos.Source = SourceCompactor
	if !m.Settled(time.Hour, now) {
		t.Error("what a compactor wrote is settled at once")
	}
	e := &Entry{Meta: m}
	if e.MarkedFor(0, now) {
		t.Error("a block without a mark counts as marked")
	}
	e.Deletion = &Mark{Kind: DeletionMark, Time: now.Add(-time.Hour).Unix()}
	if !e.MarkedFor(time.Hour, now) || e.MarkedFor(time.Hour+time.Second, now) {
		t.Error("a mark of one hour is older than an hour and a second, or not of an hour")
	}
}

func TestOutputIDFollowsFromWhatIsWritten(t *testing.T) {
	late := tid("B")
	if err := late.SetTime(late.Time() + 1000); err != nil {
		t.Fatal(err)
	}
	base := Output{Kind: "compact", Sources: []ulid.ULID{tid("A"), late}, Params: "dedup=r"}
	want := base.ID()
	if want.Time() != late.Time() {
		t.Errorf("time of the ID is %d, want that of the newest source, %d", want.Time(), late.Time())
	}
	if got, frozen := want.String(), "01J8XPQ05P7YWPNX288SFFN5WE"; got != frozen {
		t.Errorf("got %s, want %s: a changed hash writes blocks again that older versions wrote; raise writerVersion knowingly", got, frozen)
	}
	swapped := base
	swapped.Sources = []ulid.ULID{late, tid("A"), late}
	if got := swapped.ID(); got != want {
		t.Errorf("sources in another order: got %s, want %s", got, want)
	}
	for name, change := range map[string]func(*Output){
		"kind":       func(o *Output) { o.Kind = "downsample" },
		"sources":    func(o *Output) { o.Sources = []ulid.ULID{tid("C"), late} },
		"params":     func(o *Output) { o.Params = "" },
		"resolution": func(o *Output) { o.Resolution = FiveMin },
		"shard":      func(o *Output) { o.Shard = "1/2" },
		"attempt":    func(o *Output) { o.Attempt = 1 },
	} {
		o := base
		change(&o)
		if o.ID() == want {
			t.Errorf("another %s gives the same ID", name)
		}
	}
}

func TestReplica(t *testing.T) {
	labels := []string{"replica", "rule_replica"}
	for name, tc := range map[string]struct {
		of   map[string]string
		want string
	}{
		"one label":            {map[string]string{"cluster": "eu", "replica": "a"}, "replica=a"},
		"two labels":           {map[string]string{"replica": "a", "rule_replica": "b"}, "replica=a,rule_replica=b"},
		"merged":               {map[string]string{"cluster": "eu"}, ""},
		"merged with one left": {map[string]string{"replica": Deduped}, ""},
		"no labels":            {nil, ""},
	} {
		m := &Meta{Thanos: Thanos{Labels: tc.of}}
		if got := m.Replica(labels); got != tc.want {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
}
