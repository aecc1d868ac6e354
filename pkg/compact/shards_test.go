package compact

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/blockio"
	"github.com/varve-io/varve/pkg/blockscan"
	"github.com/varve-io/varve/pkg/blockwriter"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/planner"
	"github.com/varve-io/varve/pkg/series"
)

// told is every sample of the live blocks of a bucket, by resolution and series, once for
// each block that has it, and what holds each series.
func told(t *testing.T, bkt *bucket.Memory) (samples, places []string) {
	t.Helper()
	for _, e := range fetch(t, bkt).Blocks {
		if e.Deletion != nil {
			continue
		}
		shard := e.Meta.Shard()
		s := openAll(t, bkt, e.Meta)
		set := s.set(t.Context(), nil)
		for set.Next() {
			cur := set.At()
			if !shard.Holds(cur.Labels) {
				t.Errorf("%s is not of %s", cur.Labels, shard)
			}
			places = append(places, fmt.Sprintf("%s %s %s", e.Meta.Resolution(), cur.Labels, shard))
			for _, c := range cur.Chunks {
				at := fmt.Sprint(e.Meta.Resolution(), cur.Labels)
				if c.Encoding != aggrchunk.Encoding {
					samples = append(samples, samplesAt(t, at, c)...)
					continue
				}
				subs, err := aggrchunk.Decode(c.Data)
				if err != nil {
					t.Fatal(err)
				}
				for kind, sub := range subs {
					if aggrchunk.Kind(kind) == aggrchunk.Counter {
						continue // has samples of where chunks begin and end
					}
					samples = append(samples, samplesAt(t, fmt.Sprint(at, kind), series.Chunk{Encoding: sub.Encoding, Data: sub.Data})...)
				}
			}
		}
		if err := set.Err(); err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	slices.Sort(samples)
	slices.Sort(places)
	return samples, places
}

func samplesAt(t *testing.T, what string, c series.Chunk) (out []string) {
	t.Helper()
	err := eachSample([]series.Chunk{c}, func(s sample) { out = append(out, fmt.Sprint(what, s)) })
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func openAll(t *testing.T, bkt *bucket.Memory, m *block.Meta) *source {
	t.Helper()
	s, err := openSource(t.Context(), bkt, m, newReaders(1, 1), newSymbolTable())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// crowd fills a bucket with some hours of two replicas of forty series.
func crowd(t *testing.T, hours int) *bucket.Memory {
	t.Helper()
	bkt := bucket.NewMemory()
	for from := hour; from < hour+hours; from += 2 {
		for _, spec := range []blocktest.Spec{twoHours("a", from, 10, 11, 12, 13), twoHours("b", from, 40, 41)} {
			some := spec.Series
			spec.Series = nil
			for n := range 20 {
				for _, s := range some {
					lset := labels.NewBuilder(s.Labels).Set("job", strconv.Itoa(n)).Labels()
					spec.Series = append(spec.Series, blocktest.Series{Labels: lset, Samples: s.Samples})
				}
			}
			blocktest.InBucket(t, bkt, spec)
		}
	}
	return bkt
}

// split compares a bucket with what whole blocks would hold, and gives how many series are in each shard at all resolutions.
func split(t *testing.T, bkt *bucket.Memory, hours int) map[string]int {
	t.Helper()
	whole := crowd(t, hours)
	if err := executor(t, whole).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, where := told(t, bkt)
	want, _ := told(t, whole)
	if !slices.Equal(got, want) {
		t.Errorf("%d samples are not the %d of whole blocks", len(got), len(want))
	}
	shards := map[string]int{}
	for i, place := range where {
		if i > 0 && place == where[i-1] {
			t.Errorf("%s twice", place)
		}
		shards[place[strings.LastIndex(place, " ")+1:]]++
	}
	return shards
}

func TestShardsHaveTogetherWhatOneBlockWouldHave(t *testing.T) {
	bkt := crowd(t, 8)
	var most int64
	for _, b := range fetch(t, bkt).Blocks {
		most = max(most, block.Size(b.Objects))
	}
	e := executor(t, bkt)
	e.opts.Policy.MaxBlockBytes = most
	if err := e.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if shards := split(t, bkt, 8); len(shards) != 4 || shards["1_of_4"] == 0 {
		t.Errorf("series by shard: %v", shards)
	}
	for _, b := range fetch(t, bkt).Blocks {
		if n := block.Size(b.Objects); b.Deletion == nil && n > most*3/2 { // ten series each are not the same number in every shard
			t.Errorf("block %s of %s has %d bytes, far more than %d", b.Meta.ULID, b.Meta.Labels(), n, most)
		}
	}
}

// TestWhatTurnsOutToBeTooLargeIsSplit has no room in the format for less than four shards.
func TestWhatTurnsOutToBeTooLargeIsSplit(t *testing.T) {
	bkt := crowd(t, 2)
	e := executor(t, bkt)
	build := e.build
	e.build = func(ctx context.Context, o output) error {
		if o.meta.Resolution() == o.sources[0].Resolution() && o.meta.Shard().Of < 4 {
			return fmt.Errorf("write block %s: %w", o.meta.ULID, blockwriter.ErrTooLarge)
		}
		return build(ctx, o)
	}
	if err := e.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if shards := split(t, bkt, 2); len(shards) != 4 || shards["1_of_4"] == 0 {
		t.Errorf("series by shard: %v", shards)
	}
}

// TestAProcessThatDiesBetweenShards ends after each write in turn; another goes on.
func TestAProcessThatDiesBetweenShards(t *testing.T) {
	for shards := range 4 {
		bkt := crowd(t, 8)
		e := executor(t, bkt)
		e.opts.Policy.MaxBlockBytes = 20_000
		ctx, die := context.WithCancel(t.Context())
		build, made := e.build, 0
		e.build = func(ctx context.Context, o output) error {
			if made++; made > shards {
				die()
				return ctx.Err()
			}
			return build(ctx, o)
		}
		if err := e.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Fatalf("the process went on: %v", err)
		}
		next := executor(t, bkt)
		next.opts.Policy.MaxBlockBytes = 20_000
		if err := next.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := split(t, bkt, 8); got[""] > 0 || len(got) < 2 {
			t.Errorf("after %d shards: series by shard: %v", shards, got)
		}
	}
}

func TestAJobIsSplitWhenItIsTriedAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		sources int
		into    uint64
		err     error
		before  int // attempts
		want    bound
		ok      bool
	}{
		"fewer sources come first":            {8, 1, syscall.ENOSPC, 0, bound{sources: 4}, true},
		"the format has no room for two":      {2, 1, blockwriter.ErrTooLarge, 0, bound{split: 2}, true},
		"nor for two shards":                  {2, 2, blockwriter.ErrTooLarge, 0, bound{split: 4}, true},
		"the disk is full for the first time": {2, 1, syscall.ENOSPC, 0, bound{}, false},
		"an hour later it still is":           {2, 1, syscall.ENOSPC, 1, bound{split: 2}, true},
		"memory is short for one":             {1, 4, syscall.ENOMEM, 1, bound{split: 8}, true},
		"there are enough shards":             {2, planner.MaxSplit, blockwriter.ErrTooLarge, 3, bound{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			job := planner.Compact{Group: block.GroupKey{Stream: "s"}, Into: (block.Shard{}).Split(tc.into)}
			for i := range tc.sources {
				job.Sources = append(job.Sources, &block.Meta{ULID: ulid.ULID{byte(i + 1)}, MaxTime: 1})
			}
			e := &Executor{bounds: map[block.GroupKey]bound{}, failed: map[string]failure{job.String(): {times: tc.before}}}
			ok := e.shrink(job, tc.err)
			got := e.bounds[job.Group]
			got.until = time.Time{}
			if ok != tc.ok || got != tc.want {
				t.Errorf("got %+v, %v, want %+v, %v", got, ok, tc.want, tc.ok)
			}
			if fitted := e.fit(job, nil).(planner.Compact); tc.want.split > 0 && len(fitted.Into) != int(tc.want.split) {
				t.Errorf("it is split in %d, want %d", len(fitted.Into), tc.want.split)
			}
		})
	}
}

// TestAShardWithoutSeriesIsABlock splits a block of two series in 64.
func TestAShardWithoutSeriesIsABlock(t *testing.T) {
	bkt := bucket.NewMemory()
	for _, replica := range []string{"a", "b"} {
		blocktest.InBucket(t, bkt, twoHours(replica, hour))
	}
	e := executor(t, bkt)
	e.opts.Policy.MaxBlockBytes = 1
	if err := e.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := e.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	blocks, series := map[block.Resolution]int{}, map[block.Resolution]uint64{}
	for _, b := range fetch(t, bkt).Blocks {
		if b.Deletion == nil {
			blocks[b.Meta.Resolution()]++
			series[b.Meta.Resolution()] += b.Meta.Stats.NumSeries
			scan(t, bkt, b)
		}
	}
	for _, r := range []block.Resolution{block.Raw, block.FiveMin, block.OneHour} {
		if blocks[r] != planner.MaxSplit || series[r] != 2 {
			t.Errorf("%d series are in %d blocks of %s", series[r], blocks[r], r)
		}
	}
}

// scan lets the reader of hand tools look at every byte of a block.
func scan(t *testing.T, bkt *bucket.Memory, e *block.Entry) {
	t.Helper()
	dir := t.TempDir()
	if _, err := blockio.Download(t.Context(), bkt, e.Meta.ULID, dir); err != nil {
		t.Fatal(err)
	}
	b, err := blockscan.Open(dir, e.Meta)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := b.Verify(t.Context(), func(f blockscan.Finding) { t.Errorf("%s: %s", e.Meta.Labels(), f) }); err != nil {
		t.Error(err)
	}
}
