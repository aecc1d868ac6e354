package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/block"
)

const hour = int64(time.Hour / time.Millisecond)

// entry is a block as tests name it: a letter, its hours, its resolution.
func entry(t testing.TB, text string) *block.Entry {
	t.Helper()
	var name, resolution string
	var from, to int64
	if _, err := fmt.Sscanf(text, "%1s@%d-%d/%s", &name, &from, &to, &resolution); err != nil {
		t.Fatalf("block %q: %v", text, err)
	}
	m := &block.Meta{MinTime: from * hour, MaxTime: to * hour}
	m.ULID = ulid.ULID{15: name[0]}
	m.Thanos.Labels = map[string]string{"cluster": "eu"}
	m.Compaction.Sources = []ulid.ULID{m.ULID}
	m.Thanos.Downsample.Resolution = map[string]block.Resolution{"raw": block.Raw, "5m": block.FiveMin, "1h": block.OneHour}[resolution]
	return &block.Entry{Meta: m}
}

func TestPlan(t *testing.T) {
	for name, tc := range map[string]struct {
		blocks            string
		allowed, fallback block.Resolution
		want              string
	}{
		"raw alone":                                {"a@0-2/raw b@2-4/raw", block.Raw, 0, "a@1-2 b@2-4"},
		"nothing overlaps":                         {"a@10-12/raw", block.OneHour, 0, ""},
		"an end is not in a block":                 {"a@0-1/raw b@5-7/raw", block.Raw, 0, ""},
		"the coarsest that is allowed":             {"a@0-6/raw b@0-6/5m c@0-6/1h", block.FiveMin, 0, "b@1-5"},
		"the finest when nothing else is":          {"a@0-6/raw b@0-6/5m c@0-6/1h", block.Raw, 0, "a@1-5"},
		"a finer one fills a gap":                  {"a@0-6/raw b@0-2/5m b@4-6/5m", block.FiveMin, 0, "b@1-2 b@4-5 a@2-4"},
		"each finer one fills what is left":        {"a@0-6/raw b@0-4/5m c@0-2/1h", block.OneHour, 0, "c@1-2 b@2-4 a@4-5"},
		"blocks of one resolution may overlap":     {"a@0-4/raw b@2-6/raw", block.Raw, 0, "a@1-4 b@2-5"},
		"a coarser one without permission":         {"c@0-6/1h", block.FiveMin, 0, ""},
		"a fallback below what is allowed is none": {"c@0-6/1h", block.FiveMin, block.FiveMin, ""},
		"a coarser one fills what nothing covers":  {"a@3-6/raw c@0-6/1h", block.Raw, block.OneHour, "a@3-5 c@1-3"},
		"the finest of the coarser ones first":     {"a@4-6/raw b@2-6/5m c@0-6/1h", block.Raw, block.OneHour, "a@4-5 b@2-4 c@1-2"},
		"no coarser than the fallback":             {"a@4-6/raw b@2-6/5m c@0-6/1h", block.Raw, block.FiveMin, "a@4-5 b@2-4"},
		"gaps on both sides of a coarse block":     {"a@0-6/raw c@2-4/1h", block.OneHour, 0, "c@2-4 a@1-2,4-5"},
	} {
		t.Run(name, func(t *testing.T) {
			var blocks []*openBlock
			for text := range strings.FieldsSeq(tc.blocks) {
				blocks = append(blocks, newOpenBlock(entry(t, text)))
			}
			var got []string
			for _, p := range plan(blocks, block.TimeRange{MinTime: hour, MaxTime: 5 * hour}, tc.allowed, tc.fallback) {
				var times []string
				for _, r := range p.times {
					times = append(times, fmt.Sprintf("%d-%d", r.MinTime/hour, r.MaxTime/hour))
				}
				got = append(got, string(p.block.meta.ULID[15])+"@"+strings.Join(times, ","))
			}
			if got := strings.Join(got, " "); got != tc.want {
				t.Errorf("picked %s, want %s", got, tc.want)
			}
		})
	}
}

func TestVisibleBlocks(t *testing.T) {
	now := time.UnixMilli(100 * hour)
	marked := func(e *block.Entry, ago time.Duration) *block.Entry {
		e.Deletion = &block.Mark{Kind: block.DeletionMark, ID: e.Meta.ULID, Time: now.Add(-ago).Unix()}
		return e
	}
	holding := func(e *block.Entry, of ...*block.Entry) *block.Entry {
		e.Meta.Compaction = block.Compaction{Level: 2}
		for _, o := range of {
			e.Meta.Compaction.Sources = append(e.Meta.Compaction.Sources, o.Meta.Compaction.Sources...)
		}
		return e
	}
	a, b, c := entry(t, "a@0-2/raw"), entry(t, "b@2-4/raw"), entry(t, "c@4-6/raw")
	for name, tc := range map[string]struct {
		blocks []*block.Entry
		change func(*Options)
		want   string
	}{
		"all":                          {[]*block.Entry{a, b, c}, nil, "abc"},
		"what a merged block replaces": {[]*block.Entry{a, b, c, holding(entry(t, "m@0-4/raw"), a, b)}, nil, "cm"},
		"a downsampled block hides no raw one": {
			[]*block.Entry{a, b, holding(entry(t, "m@0-4/5m"), a, b)}, nil, "abm",
		},
		"marked and merged, both within the delay": {
			[]*block.Entry{marked(entry(t, "a@0-2/raw"), time.Hour), b, holding(entry(t, "m@0-4/raw"), a, b)}, nil, "m",
		},
		"a marked block hides none": {
			[]*block.Entry{a, b, marked(holding(entry(t, "m@0-4/raw"), a, b), time.Hour)}, nil, "abm",
		},
		"marked long ago": {[]*block.Entry{marked(entry(t, "a@0-2/raw"), 25*time.Hour), b}, nil, "b"},
		"outside the times": {[]*block.Entry{a, b, c}, func(o *Options) {
			o.MinTime = func(time.Time) time.Time { return time.UnixMilli(2 * hour) }
			o.MaxTime = func(time.Time) time.Time { return time.UnixMilli(4*hour - 1) }
		}, "b"},
		"not selected": {[]*block.Entry{a, b, c}, func(o *Options) {
			o.Selector, _ = ParseSelector([]byte("[{action: drop, source_labels: [__block_id], regex: " + b.Meta.ULID.String() + "}]"))
		}, "ac"},
		"another stream": {[]*block.Entry{a}, func(o *Options) {
			o.Selector, _ = ParseSelector([]byte("[{action: keep, source_labels: [cluster], regex: us}]"))
		}, ""},
		"too young": {[]*block.Entry{a, b}, func(o *Options) { o.ConsistencyDelay = 200 * 365 * 24 * time.Hour }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			o := Defaults()
			if tc.change != nil {
				tc.change(&o)
			}
			var got []byte
			for _, e := range o.visible(&block.Set{Blocks: tc.blocks}, now) {
				got = append(got, e.Meta.ULID[15])
			}
			if slices.Sort(got); string(got) != tc.want {
				t.Errorf("visible are %q, want %q", got, tc.want)
			}
		})
	}
}

// TestHashmodSharesBlocksOut has three gateways that answer for all blocks, each for some.
func TestHashmodSharesBlocksOut(t *testing.T) {
	set := &block.Set{}
	for i := range 60 {
		e := entry(t, "a@0-2/raw")
		e.Meta.ULID[14] = byte(i)
		e.Meta.Compaction.Sources = []ulid.ULID{e.Meta.ULID}
		set.Blocks = append(set.Blocks, e)
	}
	seen := map[ulid.ULID]int{}
	for shard := range 3 {
		o := Defaults()
		var err error
		o.Selector, err = ParseSelector(fmt.Appendf(nil, "[{action: hashmod, source_labels: [__block_id], target_label: shard, modulus: 3}, {action: keep, source_labels: [shard], regex: %d}]", shard))
		if err != nil {
			t.Fatal(err)
		}
		mine := o.visible(set, time.UnixMilli(100*hour))
		if len(mine) == 0 || len(mine) == len(set.Blocks) {
			t.Errorf("shard %d has %d of %d blocks", shard, len(mine), len(set.Blocks))
		}
		for _, e := range mine {
			seen[e.Meta.ULID]++
		}
	}
	for _, e := range set.Blocks {
		if seen[e.Meta.ULID] != 1 {
			t.Errorf("%d shards have block %s, want 1", seen[e.Meta.ULID], e.Meta.ULID)
		}
	}
}

func TestSelectorsThatChangeLabelsAreRefused(t *testing.T) {
	for content, want := range map[string]string{
		"": "",
		"- action: hashmod\n  source_labels: [__block_id]\n  target_label: s\n  modulus: 2\n- action: keep\n  source_labels: [s]\n  regex: 0": "",
		"- action: replace\n  target_label: x":      "only keep, drop and hashmod",
		"- action: keep\n  sauce_labels: [cluster]": "sauce_labels",
		"-": "empty",
		"- action: hashmod\n  source_labels: [x]": "rule 1",
	} {
		_, err := ParseSelector([]byte(content))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error is %v, want one with %q", content, err, want)
		}
	}
}
