package planner

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/block"
)

func TestPolicyThatCannotBeObeyedIsRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Policy)
		want   string // a part of the error; empty means none
	}{
		"the defaults":                 {func(*Policy) {}, ""},
		"ranges of minutes":            {func(p *Policy) { p.Levels = []time.Duration{time.Minute, 5 * time.Minute} }, ""},
		"no range":                     {func(p *Policy) { p.Levels = nil }, "compaction range"},
		"a range that does not divide": {func(p *Policy) { p.Levels = []time.Duration{2 * time.Hour, 5 * time.Hour} }, "5h0m0s"},
		"a range twice":                {func(p *Policy) { p.Levels = []time.Duration{2 * time.Hour, 2 * time.Hour} }, "2h0m0s"},
		"a negative delay":             {func(p *Policy) { p.DeleteDelay = -1 }, "--delete-delay"},
		"a negative retention":         {func(p *Policy) { p.Retention[block.OneHour] = -1 }, "--retention.resolution-1h"},
		"raw too short for 5m":         {func(p *Policy) { p.Retention[block.Raw] = 39 * time.Hour }, "--retention.resolution-raw"},
		"raw long enough for 5m":       {func(p *Policy) { p.Retention[block.Raw] = 40 * time.Hour }, ""},
		"5m too short for 1h":          {func(p *Policy) { p.Retention[block.FiveMin] = 9 * day }, "--retention.resolution-5m"},
		"1h as short as one likes":     {func(p *Policy) { p.Retention[block.OneHour] = time.Hour }, ""},
		"short raw and nothing to make of it": {func(p *Policy) {
			p.Retention[block.Raw], p.NoDownsampling = time.Hour, true
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := Defaults()
			tc.change(&p)
			err := p.Validate()
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got error %v, want one that says %q", err, tc.want)
			}
		})
	}
}

func TestWindowsAreAlignedOnBothSidesOf1970(t *testing.T) {
	h := time.Hour.Milliseconds()
	for at, want := range map[int64]block.TimeRange{
		0:       {MinTime: 0, MaxTime: 8 * h},
		8*h - 1: {MinTime: 0, MaxTime: 8 * h},
		8 * h:   {MinTime: 8 * h, MaxTime: 16 * h},
		-1:      {MinTime: -8 * h, MaxTime: 0},
		-8 * h:  {MinTime: -8 * h, MaxTime: 0},
	} {
		if got := window(at, 8*time.Hour); got != want {
			t.Errorf("window of %d: got %v, want %v", at, got, want)
		}
	}
}

func TestDurationsReadWell(t *testing.T) {
	for d, want := range map[time.Duration]string{
		14 * day: "14d", 8 * time.Hour: "8h", 10 * time.Minute: "10m", 90 * time.Minute: "1h30m", 10 * time.Second: "10s",
	} {
		if got := duration(d); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// BenchmarkPlan guards that a plan costs what a sort costs: a bucket of 100,000
// small blocks is planned within seconds.
func BenchmarkPlan(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			set, now := manyBlocks(n)
			p := Defaults()
			p.ReplicaLabels = []string{"r"}
			b.ReportAllocs()
			for b.Loop() {
				if jobs := Plan(set, p, now); len(jobs) == 0 {
					b.Fatal("the plan is empty")
				}
			}
		})
	}
}

// BenchmarkExplain has a bucket in which nothing is ready and every block says so.
func BenchmarkExplain(b *testing.B) {
	set, _ := manyBlocks(100_000)
	p := Defaults()
	p.ReplicaLabels = []string{"r"}
	b.ReportAllocs()
	for b.Loop() {
		if jobs, held := Explain(set, p, time.Unix(0, 0)); len(jobs) > 0 || len(held) != len(set.Blocks) {
			b.Fatalf("%d jobs, and %d blocks that are held", len(jobs), len(held))
		}
	}
}

// manyBlocks is a backlog of two-hour blocks of ten streams of two replicas each.
func manyBlocks(n int) (*block.Set, time.Time) {
	set := &block.Set{}
	h := time.Hour.Milliseconds()
	for i := range n {
		m := &block.Meta{MinTime: int64(i/20) * 2 * h, Version: 1}
		m.MaxTime = m.MinTime + 2*h
		_ = m.ULID.SetTime(uint64(i))
		m.ULID[15] = 1
		m.Compaction.Level = 1
		m.Compaction.Sources = []ulid.ULID{m.ULID}
		m.Thanos.Labels = map[string]string{"c": strconv.Itoa(i % 10), "r": strconv.Itoa(i % 20 / 10)}
		set.Blocks = append(set.Blocks, &block.Entry{Meta: m})
	}
	block.Sort(set.Blocks)
	return set, time.UnixMilli(set.Blocks[n-1].Meta.MaxTime).Add(time.Hour)
}
