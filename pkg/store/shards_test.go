package store

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
	"github.com/varve-io/varve/pkg/storeapi/storeapitest"
)

// split is two blocks of one hour and the shards that they became together.
type split struct {
	sources, shards []*block.Entry
	bkt             *bucket.Memory
}

// newSplit makes n shards. One series has a label of the name of the external one.
func newSplit(t *testing.T, n uint64) split {
	t.Helper()
	const end = 10 * 15_000
	s := split{bkt: bucket.NewMemory()}
	spec := func(from, to int64, level int) blocktest.Spec {
		spec := ups(20, from, to, level)
		own := labels.NewBuilder(spec.Series[7].Labels).Set("cluster", "own").Labels()
		spec.Series[7].Labels = own
		return spec
	}
	var origin []ulid.ULID
	for i := range int64(2) {
		e := add(t, s.bkt, spec(i*end, (i+1)*end, 1))
		s.sources = append(s.sources, e)
		origin = append(origin, e.Meta.ULID)
	}
	for _, shard := range (block.Shard{}).Split(n) {
		all := spec(0, 2*end, 2)
		all.Series = slices.DeleteFunc(all.Series, func(in blocktest.Series) bool { return !shard.Holds(in.Labels) })
		if len(all.Series) == 0 {
			t.Fatalf("shard %s has no series", shard)
		}
		all.Labels = block.WithShard(labels.FromMap(all.Labels), shard).Map()
		e := add(t, s.bkt, all)
		e.Meta.Compaction.Sources = block.SortedIDs(origin)
		s.shards = append(s.shards, e)
	}
	return s
}

// told is what a gateway says of all series: labels and how many samples each has, those read twice counted twice.
func told(t *testing.T, g *Gateway) string {
	t.Helper()
	got, warnings, err := series.Collect(g.Series(t.Context(), selectUp(0, hour)))
	if err != nil || len(warnings) > 0 {
		t.Fatalf("series: %v, %v", err, warnings)
	}
	var b strings.Builder
	for _, s := range got {
		n := 0
		for _, c := range s.Chunks {
			n += len(storeapitest.Decode(t, c))
		}
		fmt.Fprintf(&b, "%s of %q: %d\n", s.Labels, s.Replica, n)
	}
	names, _, err := g.LabelNames(t.Context(), &storeapi.LabelsRequest{MaxTime: hour})
	if err != nil {
		t.Fatal(err)
	}
	values, _, err := g.LabelValues(t.Context(), "job", &storeapi.LabelsRequest{MaxTime: hour})
	if err != nil {
		t.Fatal(err)
	}
	info, err := g.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(&b, names, values, info.LabelSets)
	return b.String()
}

func TestASplitIsReadAlikeAtEveryStep(t *testing.T) {
	s := newSplit(t, 4)
	want := told(t, open(t, s.bkt, nil, s.sources...))
	if strings.Contains(want, block.ShardLabel) {
		t.Fatal("the sources have shards")
	}
	// Whatever shards are there, in whatever order they come.
	for set := range 1 << len(s.shards) {
		there := slices.Clone(s.sources)
		for i, e := range s.shards {
			if set>>i&1 == 1 {
				there = append(there, e)
			}
		}
		g := open(t, s.bkt, nil, there...)
		if got := told(t, g); got != want {
			t.Errorf("with shards %04b:\n%s\nwant\n%s", set, got, want)
		}
	}
	// All are there, and the sources go: first one, then the other.
	for _, left := range [][]*block.Entry{s.sources[1:], nil} {
		if got := told(t, open(t, s.bkt, nil, append(slices.Clone(left), s.shards...)...)); got != want {
			t.Errorf("with %d sources:\n%s\nwant\n%s", len(left), got, want)
		}
	}
}

// TestCoarseBlocksThatAreNotSplitAreNotMixedWithShards reads each series from one resolution for one time.
func TestCoarseBlocksThatAreNotSplitAreNotMixedWithShards(t *testing.T) {
	at := func(text, shard string) *openBlock {
		e := entry(t, text)
		e.Meta.Thanos.Labels = maps.Clone(e.Meta.Thanos.Labels)
		if shard != "" {
			e.Meta.Thanos.Labels[block.ShardLabel] = shard
		}
		return newOpenBlock(e)
	}
	for name, tc := range map[string]struct {
		blocks []*openBlock
		want   string
	}{
		"a coarse block that is whole covers all shards": {
			[]*openBlock{at("a@0-6/raw", "1_of_2"), at("b@0-6/raw", "2_of_2"), at("c@0-6/5m", "")}, "c",
		},
		"of one shard the coarser form is missing": {
			[]*openBlock{at("a@0-6/raw", "1_of_2"), at("b@0-6/raw", "2_of_2"), at("c@0-6/5m", "2_of_2")}, "a c",
		},
		"a whole block is read for one shard alone": {
			[]*openBlock{at("a@0-6/raw", ""), at("c@0-6/5m", "2_of_2")}, "a:1_of_2 c",
		},
		"shards of shards": {
			[]*openBlock{at("a@0-6/raw", "1_of_2"), at("b@0-6/raw", "2_of_4"), at("d@0-6/raw", "4_of_4"), at("c@0-6/5m", "4_of_4")}, "a b c",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, p := range planAll(partsOf(tc.blocks, nil), block.TimeRange{MaxTime: 6 * hour}, block.FiveMin, 0) {
				parts := []string{string(p.block.meta.ULID[15])}
				for _, s := range p.only {
					parts = append(parts, s.String())
				}
				got = append(got, strings.Join(parts, ":"))
			}
			slices.Sort(got)
			if got := strings.Join(got, " "); got != tc.want {
				t.Errorf("read %s, want %s", got, tc.want)
			}
		})
	}
}

func TestABlockThatVanishesIsReplacedByItsShards(t *testing.T) {
	s := newSplit(t, 2)
	want := told(t, open(t, s.bkt, nil, s.sources...))
	for name, tc := range map[string]struct{ before, after []*block.Entry }{
		"whole":                            {s.sources, s.shards},
		"what is left of it when one is":   {append(slices.Clone(s.sources), s.shards[0]), s.shards},
		"a shard by one and by the source": {append(slices.Clone(s.sources), s.shards[1]), append(slices.Clone(s.sources[1:]), s.shards...)},
	} {
		t.Run(name, func(t *testing.T) {
			vanishing := &vanishingBucket{Reader: s.bkt, prefix: s.sources[0].Meta.ULID.String(), open: make(chan struct{})}
			g := open(t, vanishing, nil, tc.before...)
			set := g.Series(t.Context(), selectUp(0, hour))
			syncBlocks(t, g, tc.after...)
			vanishing.gone.Store(true)
			close(vanishing.open)
			got, warnings, err := series.Collect(set)
			if err != nil || len(warnings) > 0 {
				t.Fatalf("series: %v, %v", err, warnings)
			}
			var lines []string
			for _, in := range got {
				lines = append(lines, fmt.Sprintf("%s of %q: ", in.Labels, in.Replica))
			}
			for _, line := range lines {
				if !strings.Contains(want, line) {
					t.Errorf("%s is unexpected", line)
				}
			}
			if len(lines) != 20 || vanishing.missed.Load() == 0 {
				t.Errorf("%d series after %d misses, want 20 after some", len(lines), vanishing.missed.Load())
			}
		})
	}
}
