package bucketops

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/blockio"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/bucket/buckettest"
	"github.com/varve-io/varve/pkg/planner"
)

func rewriting(t *testing.T, deletions, rules string) Rewriting {
	t.Helper()
	r := Rewriting{Text: deletions + "\n" + rules}
	var err error
	if r.Deletions, err = ParseDeletions([]byte(deletions)); err != nil {
		t.Fatal(err)
	}
	if r.Rules, err = ParseRules([]byte(rules)); err != nil {
		t.Fatal(err)
	}
	return r
}

// changed gives the series without those for which change returns no labels, with
// their labels and samples as it returns them.
func changed(list []blocktest.Series, change func(blocktest.Series) blocktest.Series) []blocktest.Series {
	var out []blocktest.Series
	for _, s := range list {
		if s = change(s); !s.Labels.IsEmpty() && len(s.Samples) > 0 {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b blocktest.Series) int { return labels.Compare(a.Labels, b.Labels) })
	return out
}

func TestRewritesKeepAllOtherSamples(t *testing.T) {
	for name, tc := range map[string]struct {
		deletions, rules string
		want             func(blocktest.Series) blocktest.Series
		summary          string
	}{
		"a series is dropped": {
			`[{matchers: '{__name__="requests", pod="b"}'}]`, "",
			func(s blocktest.Series) blocktest.Series {
				if s.Labels.Get("pod") == "b" {
					return blocktest.Series{}
				}
				return s
			},
			"of 4 series 1 dropped, 0 shortened, 0 relabelled",
		},
		"samples are dropped": {
			`[{matchers: 'requests{pod=~"a|b"}', intervals: [{mint: 100000, maxt: 200000}, {mint: 1200000, maxt: 9900000}], request_id: x}]`, "",
			func(s blocktest.Series) blocktest.Series {
				if s.Labels.Get("__name__") == "requests" && s.Labels.Get("pod") != "c" {
					s.Samples = slices.DeleteFunc(slices.Clone(s.Samples), func(p blocktest.Sample) bool {
						return p.T >= 100000 && p.T <= 200000 || p.T >= 1200000
					})
				}
				return s
			},
			"of 4 series 0 dropped, 2 shortened, 0 relabelled",
		},
		"all samples in an interval": {
			`[{matchers: 'latency', intervals: [{mint: 0, maxt: 9900000}]}]`, "",
			func(s blocktest.Series) blocktest.Series {
				if s.Labels.Get("__name__") == "latency" {
					return blocktest.Series{}
				}
				return s
			},
			"of 4 series 1 dropped, 0 shortened, 0 relabelled",
		},
		"labels change the order": {
			"", `[{source_labels: [pod], regex: a, target_label: pod, replacement: z}, {source_labels: [__name__], regex: latency, target_label: __name__, replacement: zzz}]`,
			func(s blocktest.Series) blocktest.Series {
				b := labels.NewBuilder(s.Labels)
				if s.Labels.Get("pod") == "a" {
					b.Set("pod", "z")
				}
				if s.Labels.Get("__name__") == "latency" {
					b.Set("__name__", "zzz")
				}
				s.Labels = b.Labels()
				return s
			},
			"of 4 series 0 dropped, 0 shortened, 2 relabelled",
		},
		"rules drop a series": {
			"", `[{source_labels: [pod], regex: b, action: drop}]`,
			func(s blocktest.Series) blocktest.Series {
				if s.Labels.Get("pod") == "b" {
					return blocktest.Series{}
				}
				return s
			},
			"of 4 series 1 dropped, 0 shortened, 0 relabelled",
		},
		"a deletion and a rule": {
			`[{matchers: '{pod="b"}'}]`, `[{regex: pod, action: labeldrop}, {source_labels: [__name__], regex: requests, action: keep}]`,
			nil, // pods a and c become one series: the first of them counts
			"of 4 series 2 dropped, 0 shortened, 2 relabelled",
		},
	} {
		t.Run(name, func(t *testing.T) {
			bkt := bucket.NewMemory()
			dir, _ := blocktest.Dir(t, spec("a"))
			source := blocktest.Upload(t, bkt, dir)
			before := contents(t, bkt)
			op := operator(t, bkt)
			how := rewriting(t, tc.deletions, tc.rules)
			op.opts.DryRun = true
			got, err := op.Rewrite(t.Context(), []ulid.ULID{source.ULID}, how)
			if err != nil || got[0].Why != tc.summary || got[0].Status != Planned || !maps.Equal(contents(t, bkt), before) {
				t.Errorf("dry run: got %+v, %v, want %s", got, err, tc.summary)
			}
			op.opts.DryRun = false
			got, err = op.Rewrite(t.Context(), []ulid.ULID{source.ULID}, how)
			if err != nil || got[0].Why != tc.summary {
				t.Fatalf("got %+v, %v, want %s", got, err, tc.summary)
			}
			made := ulid.MustParse(got[0].What)
			checkRepaired(t, bkt, source, made)
			written := blocktest.Read(t, dir)
			fresh := blocktest.Text(blocktest.Read(t, blocktest.Download(t, bkt, made)))
			want := blocktest.Text([]blocktest.Series{{Labels: labels.FromStrings("__name__", "requests"), Samples: written[1].Samples}})
			if tc.want != nil {
				want = blocktest.Text(changed(written, tc.want))
			}
			if fresh != want {
				t.Errorf("got\n%s\nwant\n%s", fresh, want)
			}
			again, err := op.Rewrite(t.Context(), []ulid.ULID{source.ULID}, how)
			if err != nil || again[0].Status != Unchanged {
				t.Errorf("again: got %v\n%s", err, ends(again))
			}
			if _, err := op.Rewrite(t.Context(), []ulid.ULID{source.ULID}, rewriting(t, `[{matchers: '{pod="c"}'}]`, "")); err == nil || !strings.Contains(err.Error(), made.String()) {
				t.Errorf("another rewrite: error is %v, want one that names %s", err, made)
			}
		})
	}
}

func TestRewritesThatLeaveNothing(t *testing.T) {
	bkt := bucket.NewMemory()
	m := blocktest.InBucket(t, bkt, spec("a"))
	op := operator(t, bkt)
	how := rewriting(t, `[{matchers: '{pod=~".+"}'}]`, "")
	if _, err := op.Rewrite(t.Context(), []ulid.ULID{m.ULID}, how); err == nil || !strings.Contains(err.Error(), "--delete-blocks") {
		t.Errorf("error is %v, want one that names --delete-blocks", err)
	}
	how.DeleteSource = true
	got, err := op.Rewrite(t.Context(), []ulid.ULID{m.ULID}, how)
	if err != nil || got[0].What != nothing || strings.Count(ends(got), "mark "+m.ULID.String()+" done") != 2 {
		t.Errorf("got %v\n%s", err, ends(got))
	}
}

func TestRewritesThatChangeNothing(t *testing.T) {
	bkt := bucket.NewMemory()
	m := blocktest.InBucket(t, bkt, spec("a"))
	before := contents(t, bkt)
	got, err := operator(t, bkt).Rewrite(t.Context(), []ulid.ULID{m.ULID}, rewriting(t, `[{matchers: '{pod="x"}'}]`, ""))
	if err != nil || len(got) != 1 || got[0].Status != Unchanged || !maps.Equal(contents(t, bkt), before) {
		t.Errorf("got %v\n%s", err, ends(got))
	}
	if _, err := operator(t, bkt).Rewrite(t.Context(), []ulid.ULID{m.ULID}, Rewriting{}); err == nil || !strings.Contains(err.Error(), "--rewrite.to-delete-config") {
		t.Errorf("nothing to do: error is %v", err)
	}
}

func TestRewritesOfOtherResolutions(t *testing.T) {
	bkt := bucket.NewMemory()
	blocktest.InBucket(t, bkt, spec("a"))
	op := operator(t, bkt)
	made, err := op.Downsample(t.Context(), Selection{}, planner.Defaults())
	if err != nil {
		t.Fatal(err)
	}
	id := ulid.MustParse(made[0].What)
	source, err := blockio.ReadMeta(t.Context(), bkt, id)
	if err != nil || source.Resolution() != block.FiveMin {
		t.Fatalf("got %+v, %v", source, err)
	}
	if _, err := op.Rewrite(t.Context(), []ulid.ULID{id}, rewriting(t, `[{matchers: 'requests', intervals: [{mint: 1, maxt: 2}]}]`, "")); err == nil || !strings.Contains(err.Error(), "rewrite the raw block") {
		t.Errorf("an interval: error is %v", err)
	}
	got, err := op.Rewrite(t.Context(), []ulid.ULID{id}, rewriting(t, `[{matchers: 'requests'}]`, ""))
	if err != nil || got[0].Why != "of 4 series 3 dropped, 0 shortened, 0 relabelled" {
		t.Fatalf("got %v\n%+v", err, got)
	}
	checkRepaired(t, bkt, source, ulid.MustParse(got[0].What))
}

func TestARewriteGoesOnAfterACrashAtEveryWrite(t *testing.T) {
	whole := bucket.NewMemory()
	source := blocktest.InBucket(t, whole, spec("a"))
	before := contents(t, whole)
	how := rewriting(t, `[{matchers: '{pod="b"}'}]`, `[{target_label: job, replacement: x}]`)
	how.DeleteSource = true
	if _, err := operator(t, whole).Rewrite(t.Context(), []ulid.ULID{source.ULID}, how); err != nil {
		t.Fatal(err)
	}
	want := contents(t, whole)
	for n := 1; ; n++ {
		bkt := bucket.NewMemory()
		put(t, bkt, before)
		dying := buckettest.CrashAt(bkt, n, buckettest.After)
		_, err := operator(t, dying).Rewrite(t.Context(), []ulid.ULID{source.ULID}, how)
		if !dying.Crashed() {
			if n < 5 {
				t.Errorf("only %d writes", n-1)
			}
			return
		}
		if err == nil {
			t.Fatalf("crash at write %d: no error", n)
		}
		if got, err := operator(t, bkt).Rewrite(t.Context(), []ulid.ULID{source.ULID}, how); err != nil {
			t.Fatalf("after a crash at write %d: %v\n%s", n, err, ends(got))
		}
		if got := contents(t, bkt); !maps.Equal(got, want) {
			t.Errorf("after a crash at write %d: %v, want %v", n, slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
		}
	}
}

func TestConfigurationsOfRewritesThatCannotBeMeant(t *testing.T) {
	for name, tc := range map[string]struct{ content, want string }{
		"no list":             {"matchers: x", "parse deletions"},
		"an unknown key":      {`[{matcher: '{a="b"}'}]`, "matcher"},
		"no matchers":         {`[{intervals: []}]`, "deletion 1"},
		"a selector of none":  {`[{matchers: '{a='}]`, "deletion 1: matchers"},
		"an interval of none": {`[{matchers: '{a="b"}', intervals: [{mint: 2, maxt: 1}]}]`, "from 2 to 1 is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseDeletions([]byte(tc.content)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %s", err, tc.want)
			}
		})
	}
}
