package block

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
)

func TestEverySeriesIsInOneShardOfASplit(t *testing.T) {
	whole := Shard{}
	second := whole.Split(4)[1]
	for _, tc := range []struct {
		of Shard
		n  uint64
	}{{whole, 1}, {whole, 2}, {whole, 8}, {second, 2}, {second, 4}} {
		shards := tc.of.Split(tc.n)
		filled := map[int]bool{}
		for i := range 1000 {
			lset := labels.FromStrings(labels.MetricName, "up", "instance", strconv.Itoa(i))
			holders := 0
			for n, s := range shards {
				if !tc.of.Covers(s) {
					t.Fatalf("%v is none of %q", s, tc.of)
				}
				if s.Holds(lset) {
					holders++
					filled[n] = true
					if got := tc.of.Pick(lset, tc.n); got != n {
						t.Fatalf("%s is picked for %d of %q, its shard is %d", lset, got, tc.of, n)
					}
				}
			}
			if want := map[bool]int{true: 1, false: 0}[tc.of.Holds(lset)]; holders != want {
				t.Fatalf("%s is in %d shards of %q in %d, want %d", lset, holders, tc.of, tc.n, want)
			}
		}
		if len(filled) != int(tc.n) {
			t.Errorf("%q in %d: only %d shards have a series", tc.of, tc.n, len(filled))
		}
	}
}

// TestTheHashOfShardsStays: what is in buckets was split by it.
func TestTheHashOfShardsStays(t *testing.T) {
	var got []string
	for _, s := range []string{"a", "b", "c"} {
		lset := labels.FromStrings(labels.MetricName, "up", "job", s)
		got = append(got, Shard{}.Split(64)[Shard{}.Pick(lset, 64)].String())
	}
	if want := "16_of_64 30_of_64 54_of_64"; strings.Join(got, " ") != want {
		t.Errorf("got %s, want %s", strings.Join(got, " "), want)
	}
}

func TestShardsAreReadFromTheirLabel(t *testing.T) {
	for text, want := range map[string]Shard{
		"1_of_4": {0, 4}, "4_of_4": {3, 4}, "": {}, "1_of_1": {}, "0_of_4": {}, "5_of_4": {}, "1_of_3": {}, "01_of_4": {}, "1_of_4 ": {}, "x": {},
		"1_of_131072": {},
	} {
		m := &Meta{Thanos: Thanos{Labels: map[string]string{"c": "eu", ShardLabel: text}}}
		if got := m.Shard(); got != want {
			t.Errorf("%q is %v, want %v", text, got, want)
		}
		if shown := m.SeriesLabels().Get(ShardLabel); want.Whole() && shown != text || !want.Whole() && shown != "" {
			t.Errorf("series of %q are served with %q", text, shown)
		}
	}
}

func TestShardsAreGroupsOfOneStream(t *testing.T) {
	m := &Meta{Thanos: Thanos{Labels: map[string]string{"r": "a"}}}
	whole := m.Group([]string{"r"})
	m.Thanos.Labels[ShardLabel] = "2_of_4"
	if got := m.Group([]string{"r"}); got.Stream != whole.Stream || got.String() != `{r="deduped"}@raw/2_of_4` {
		t.Errorf("got %s of stream %s, the whole is of %s", got, got.Stream, whole.Stream)
	}
}

func TestShardsHoldTheBlockTheyWereSplitOff(t *testing.T) {
	eu, euA := map[string]string{"c": "eu"}, map[string]string{"c": "eu", "r": "a"}
	shard := func(text string, base map[string]string) map[string]string {
		s, ok := parseShard(text)
		if !ok {
			t.Fatalf("%q is no shard", text)
		}
		return WithShard(labels.FromMap(base), s).Map()
	}
	a, b := entry("A", "A", 1, euA), entry("B", "B", 1, eu)
	first, second := entry("C", "AB", 2, shard("1_of_2", eu)), entry("D", "AB", 2, shard("2_of_2", eu))
	firstOf4, thirdOf4 := entry("E", "AB", 3, shard("1_of_4", eu)), entry("F", "AB", 3, shard("3_of_4", eu))
	for name, tc := range map[string]struct {
		blocks []*Entry
		want   string // hidden<holder, block:remaining shards
	}{
		"all shards":                              {[]*Entry{a, b, first, second}, "A<C B<C"},
		"one of two":                              {[]*Entry{a, b, first}, "A:2_of_2 B:2_of_2"},
		"one is marked":                           {[]*Entry{a, b, first, marked(second)}, "A:2_of_2 B:2_of_2"},
		"a marked source is held as well":         {[]*Entry{marked(a), b, first, second}, "A<C B<C"},
		"a shard in shards of its own":            {[]*Entry{a, first, second, firstOf4, thirdOf4}, "A<E C<E"},
		"a shard half split":                      {[]*Entry{a, second, firstOf4}, "A:3_of_4"},
		"shards do not hold each other":           {[]*Entry{first, second}, ""},
		"a late block is held by its own shards":  {[]*Entry{entry("B", "B", 1, euA), entry("C", "B", 2, shard("1_of_2", euA)), entry("D", "B", 2, shard("2_of_2", euA))}, "B<C"},
		"a merge of more than a shard holds it":   {[]*Entry{first, entry("G", "ABX", 2, eu)}, "C<G"},
		"of the whole with the same content less": {[]*Entry{first, entry("G", "AB", 3, eu)}, "G:2_of_2"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			hidden, left := Superseded(tc.blocks), Remaining(tc.blocks)
			for _, e := range tc.blocks {
				if by, ok := hidden[e.Meta.ULID]; ok {
					got = append(got, last(e.Meta.ULID)+"<"+last(by))
				}
				if rest, ok := left[e.Meta.ULID]; ok {
					got = append(got, last(e.Meta.ULID)+":"+join(rest))
				}
			}
			slices.Sort(got)
			if g := strings.Join(got, " "); g != tc.want {
				t.Errorf("got %q, want %q", g, tc.want)
			}
		})
	}
}

func marked(e *Entry) *Entry {
	m := *e
	m.Deletion = &Mark{Kind: DeletionMark, ID: e.Meta.ULID}
	return &m
}

func join(shards []Shard) string {
	var texts []string
	for _, s := range shards {
		texts = append(texts, s.String())
	}
	return strings.Join(texts, ",")
}
