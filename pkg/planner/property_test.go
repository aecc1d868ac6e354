package planner

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/block"
)

// TestPlansEndAndLoseNothing does what the plans say for random buckets, in
// random order, with crashes in between, while time goes on and blocks arrive.
// Whatever happens,
//   - planning again and again ends in an empty plan,
//   - a plan takes no block twice, and is the same for the same arguments,
//   - after every job that marks blocks each sample that is to be kept is in a block that is not marked,
//   - in the end no two blocks with series in common overlap, and all is downsampled,
//   - and no block is larger than the limit, if there is one.
func TestPlansEndAndLoseNothing(t *testing.T) {
	for seed := range uint64(80) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			b := newRandomBucket(seed)
			if err := b.policy.Validate(); err != nil {
				t.Fatalf("policy %+v: %v", b.policy, err)
			}
			b.check = func(job string) { b.checkKept(t, job) }
			for range 3 {
				b.arrive()
				b.checkPlan(t)
				if _, err := b.exhaust(); err != nil {
					t.Fatal(err)
				}
				b.now = b.now.Add(time.Duration(b.chance.IntN(100)) * time.Hour)
			}
			b.now = b.now.Add(40 * day) // all ranges are closed
			if _, err := b.exhaust(); err != nil {
				t.Fatal(err)
			}
			b.checkFinished(t)
		})
	}
}

// randomBucket is a world that grows, with what it was given.
type randomBucket struct {
	*world

	given map[ulid.ULID]*block.Entry
	hour  int // up to where blocks have arrived
}

func newRandomBucket(seed uint64) *randomBucket {
	b := &randomBucket{world: newWorld(), given: map[ulid.ULID]*block.Entry{}}
	b.chance = rand.New(rand.NewPCG(seed, 7))
	p := &b.policy
	if b.chance.IntN(3) > 0 {
		p.ReplicaLabels = []string{"r"}
	}
	p.DeleteDelay = time.Duration(b.chance.IntN(2)) * p.DeleteDelay
	p.NoDownsampling = b.chance.IntN(6) == 0
	if b.chance.IntN(2) == 0 {
		p.MaxBlockBytes = 40 << b.chance.IntN(5)
	}
	keep := func(least int) time.Duration { return time.Duration(b.chance.IntN(2)*(least+b.chance.IntN(20))) * day }
	p.Retention = map[block.Resolution]time.Duration{block.Raw: keep(2), block.FiveMin: keep(10), block.OneHour: keep(1)}
	return b
}

// arrive adds some days of blocks of a few streams and replicas, with gaps,
// late, long and broken ones, and lets the time follow.
func (b *randomBucket) arrive() {
	until := b.hour + 2*(1+b.chance.IntN(40))
	for _, stream := range []string{"eu", "us"} {
		for _, replica := range []string{"a", "b", "c"}[:1+b.chance.IntN(3)] {
			for hour := b.hour; hour < until; hour += 2 {
				switch b.chance.IntN(20) {
				case 0: // a gap
				case 1: // late data
					from := b.chance.IntN(hour + 1)
					b.add(stream, replica, from, from+1+b.chance.IntN(3))
				default:
					b.add(stream, replica, hour, hour+2)
				}
			}
		}
	}
	b.hour = until
	if end := time.Unix(0, 0).Add(time.Duration(until+1) * time.Hour); b.now.Before(end) {
		b.now = end
	}
}

func (b *randomBucket) add(stream, replica string, from, to int) {
	hour := time.Hour.Milliseconds()
	m := &block.Meta{ULID: b.id(fmt.Sprint("block ", len(b.given))), MinTime: int64(from)*hour + int64(b.chance.IntN(9000)), MaxTime: int64(to) * hour, Version: 1}
	m.Compaction.Level = 1
	m.Compaction.Sources = []ulid.ULID{m.ULID}
	m.Thanos.Labels = map[string]string{"c": stream, "r": replica}
	m.Thanos.Source = block.SourceSidecar
	m.Thanos.UploadTime = time.UnixMilli(m.MaxTime).Add(time.Duration(b.chance.IntN(90)) * time.Minute)
	e := &block.Entry{Meta: m, Objects: map[string]int64{block.IndexFile: 1}}
	if b.chance.IntN(50) == 0 {
		e.NoCompact = &block.Mark{Kind: block.NoCompactMark, ID: m.ULID, Reason: "corrupt"}
	}
	if b.chance.IntN(50) == 0 {
		e.NoDownsample = &block.Mark{Kind: block.NoDownsampleMark, ID: m.ULID, Reason: []string{"manual", "corrupt"}[b.chance.IntN(2)]}
	}
	b.given[m.ULID] = e
	b.blocks[m.ULID] = e
}

// checkPlan looks at one plan as such.
func (b *randomBucket) checkPlan(t *testing.T) {
	t.Helper()
	jobs := Plan(b.set(), b.policy, b.now)
	if again := Plan(b.set(), b.policy, b.now); !reflect.DeepEqual(jobs, again) {
		t.Fatalf("two plans of the same set:\n%v\n%v", jobs, again)
	}
	taken := map[ulid.ULID]Job{}
	for _, j := range jobs {
		if c, ok := j.(Compact); ok {
			if len(c.Sources) < 2 && !c.Splits() {
				t.Fatalf("%s: nothing to merge, nor to split", j)
			}
			for _, m := range c.Sources {
				if m.Group(b.policy.ReplicaLabels) != c.Group {
					t.Fatalf("%s: %s is of group %s", j, m.ULID, m.Group(b.policy.ReplicaLabels))
				}
			}
		}
		for _, id := range j.Blocks() {
			if other := taken[id]; other != nil {
				t.Fatalf("%s is part of two jobs: %s, %s", id, other, j)
			}
			taken[id] = j
		}
	}
}

// checkKept fails if samples that are to be kept at some resolution are nowhere.
func (b *randomBucket) checkKept(t *testing.T, job string) {
	t.Helper()
	s := &state{policy: b.policy, now: b.now}
	kept := make(map[ulid.ULID]map[block.Resolution]residues, len(b.given))
	for _, e := range b.blocks {
		if e.Deletion != nil {
			continue
		}
		for _, id := range e.Meta.Origin() {
			if kept[id] == nil {
				kept[id] = map[block.Resolution]residues{}
			}
			kept[id][e.Meta.Resolution()] |= residuesOf(e.Meta.Shard())
		}
	}
	for id, e := range b.given {
		m := e.Meta
		waived := e.NoDownsample != nil && e.NoDownsample.Reason == reasonManual
		rawGone := s.past(m, block.Raw)
		lacking := ^kept[id][block.Raw]
		switch {
		case !rawGone && lacking != 0:
			t.Fatalf("after %s: raw samples of %s are gone, their retention is not over", job, b.names[id])
		case !rawGone || b.policy.NoDownsampling || waived:
		case !s.past(m, block.FiveMin) && lacking&^kept[id][block.FiveMin] != 0:
			t.Fatalf("after %s: %s is gone without its 5m samples", job, b.names[id])
		case !s.past(m, block.OneHour) && lacking&^kept[id][block.OneHour] != 0:
			t.Fatalf("after %s: %s is gone without its 1h samples", job, b.names[id])
		}
	}
}

// residues are shards of 64, a bit for each.
type residues uint64

func residuesOf(s block.Shard) (r residues) {
	for i, small := range (block.Shard{}).Split(64) {
		if s.Covers(small) {
			r |= 1 << i
		}
	}
	return r
}

// checkFinished looks at a bucket in which nothing is left to do and nothing comes any more.
func (b *randomBucket) checkFinished(t *testing.T) {
	t.Helper()
	s := look(b.set(), b.policy, b.now)
	if len(s.hidden) > 0 {
		t.Errorf("superseded blocks are left: %v", s.hidden)
	}
	for _, g := range s.groups {
		for _, f := range s.finer(g) {
			for _, e := range g.blocks {
				if e.NoCompact == nil && s.meets(e, f) {
					t.Errorf("%s: %s has series in common with %s", g.key, b.names[e.Meta.ULID], f.key)
				}
			}
		}
		for _, e := range g.blocks {
			if most := b.policy.MaxBlockBytes; most > 0 && e.Meta.Compaction.Level > 1 && block.Size(e.Objects) > most {
				t.Errorf("%s: %s has %d bytes, the limit is %d", g.key, b.names[e.Meta.ULID], block.Size(e.Objects), most)
			}
		}
		mergeable := block.Select(g.blocks, func(e *block.Entry) bool { return e.NoCompact == nil })
		for _, run := range overlaps(mergeable) {
			if len(run) > 1 {
				t.Errorf("%s: %d blocks overlap in %v", g.key, len(run), span(run))
			}
		}
		to, ok := coarser(g.key.Resolution)
		for _, e := range g.blocks {
			if s.past(e.Meta, g.key.Resolution) && !s.needed(e) {
				t.Errorf("%s: %s is past its retention", g.key, b.names[e.Meta.ULID])
			}
			if ok && !b.policy.NoDownsampling && e.NoDownsample == nil && !s.pastAt(e.Meta, to, s.now.Add(maxSkew)) && !s.has(e.Meta, to) {
				t.Errorf("%s: %s has no %s", g.key, b.names[e.Meta.ULID], to)
			}
		}
	}
}
