package compact

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/dedup"
	"github.com/varve-io/varve/pkg/fetcher"
	"github.com/varve-io/varve/pkg/planner"
)

var (
	simSeeds = flag.Uint64("seeds", usualSeeds, "how many seeds the simulation runs")
	simFrom  = flag.Uint64("seed", 0, "the first seed of the simulation")
)

// TestSimulation lets one to five compactors, on machines that die, stand still,
// have wrong clocks and bad networks, work on a bucket into which blocks arrive.
// Whatever happens, nothing that is to be kept is missing at any instant; and when
// the weather has cleared, the bucket is what one undisturbed compactor would have
// made of it. A seed that ends badly is run again by -seed N -seeds 1.
func TestSimulation(t *testing.T) {
	dir := t.TempDir() // nothing is written to it
	for seed := *simFrom; seed < *simFrom+*simSeeds; seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newSimWorld(seed, dir)
				if err := w.opts.Validate(); err != nil {
					t.Fatal(err)
				}
				w.simulate(t)
				for _, text := range w.wrong {
					t.Error(text)
				}
			})
		})
	}
}

func newSimWorld(seed uint64, dir string) *simWorld {
	w := &simWorld{
		bkt: bucket.NewMemory(), opts: Defaults(), series: []string{"a", "bb"},
		begin:  slotOf(time.Now().UnixMilli()),
		chance: rand.New(rand.NewPCG(seed, 11)), contents: map[string]content{},
		blocks: map[ulid.ULID]*simBlock{}, retired: map[ulid.ULID]int{},
	}
	o := &w.opts
	o.Dir = dir
	o.Concurrency, o.DownsampleConcurrency = 1+w.chance.IntN(3), 1+w.chance.IntN(2)
	o.RefreshInterval = time.Duration(1+w.chance.IntN(10)) * time.Minute
	o.Dedup.Func = dedup.Chain // of replicas that scrape at one instant: all samples of all
	p := &o.Policy
	p.ReplicaLabels = []string{"r"}
	p.Levels = []time.Duration{2 * time.Hour, 8 * time.Hour, 24 * time.Hour}
	p.DownsampleAfter = map[block.Resolution]time.Duration{block.FiveMin: 8 * time.Hour, block.OneHour: 24 * time.Hour}
	p.CloseAfter, p.PartialAge = 12*time.Hour, time.Duration(2+w.chance.IntN(10))*time.Hour
	p.DeleteDelay = []time.Duration{0, time.Hour, 4 * time.Hour}[w.chance.IntN(3)]
	p.NoDownsampling = w.chance.IntN(6) == 0
	keep := func(least int) time.Duration {
		return time.Duration(w.chance.IntN(2)*(least+w.chance.IntN(12))) * time.Hour
	}
	p.Retention = map[block.Resolution]time.Duration{block.Raw: keep(8), block.FiveMin: keep(24), block.OneHour: keep(8)}
	return w
}

// simulate is the life of a world.
func (w *simWorld) simulate(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var machines sync.WaitGroup
	for i := range 1 + min(w.chance.IntN(5), w.chance.IntN(5)) {
		chance := rand.New(rand.NewPCG(w.chance.Uint64(), uint64(i)))
		machines.Go(func() { w.machine(ctx, t, chance) })
	}
	w.feed(ctx)
	cancel() // every process ends, some in the middle of something
	machines.Wait()
	w.later.Wait()

	w.mu.Lock()
	w.calm = true
	w.mu.Unlock()
	for range 10 { // one of them is left, and the world goes on for two days
		m := &machine{world: w, chance: rand.New(rand.NewPCG(1, 2)), kill: func() {}}
		if err := w.process(t.Context(), m).Run(t.Context()); err != nil {
			w.fault("an undisturbed run: %v", err)
		}
		<-time.After(5 * time.Hour)
	}
	w.checkEnd(t)
}

// machine starts one process after another.
func (w *simWorld) machine(ctx context.Context, t *testing.T, chance *rand.Rand) {
	t.Helper()
	m := &machine{world: w, chance: chance, skew: time.Duration(chance.Int64N(int64(2*maxSkew))) - maxSkew}
	for ctx.Err() == nil {
		life, kill := context.WithCancel(ctx)
		m.mu.Lock()
		m.dead, m.kill = false, kill
		m.mu.Unlock()
		e := w.process(life, m)
		for life.Err() == nil {
			_ = e.Run(life) // errors are what this is about
			m.pause(life, 2*time.Hour)
		}
		kill()
		m.pause(ctx, 2*time.Hour)
	}
}

func (m *machine) pause(ctx context.Context, longest time.Duration) {
	m.mu.Lock()
	d := time.Duration(m.chance.Int64N(int64(longest)))
	m.mu.Unlock()
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// process is a compactor that has just been started.
func (w *simWorld) process(ctx context.Context, m *machine) *Executor {
	bkt := simBucket{w.bkt, m}
	log := promslog.NewNopLogger()
	e, err := New(bkt, fetcher.New(bkt, fetcher.Defaults(), log, prometheus.NewRegistry()), w.opts, log, prometheus.NewRegistry())
	if err != nil {
		panic(err)
	}
	e.now = m.now
	e.build = func(ctx context.Context, o output) error { return m.build(ctx, o, e) }
	return e
}

// feed lets blocks arrive for a day and a half: two streams or one, with replicas,
// gaps, late blocks, odd ranges and uploads that never come to their end.
func (w *simWorld) feed(ctx context.Context) {
	type arrival struct {
		at      time.Time
		in      *simBlock
		content content
	}
	var all []arrival
	start := time.UnixMilli(w.begin * slot)
	for stream := range 1 + w.chance.IntN(2) {
		for replica := range 1 + w.chance.IntN(3) {
			for hour := 0; hour < 36; hour += 2 {
				from, to := hour, hour+2
				due := start.Add(time.Duration(to)*time.Hour + time.Duration(w.chance.IntN(40))*time.Minute)
				switch w.chance.IntN(16) {
				case 0:
					continue
				case 1:
					due = due.Add(time.Duration(w.chance.IntN(20)) * time.Hour)
				case 2: // out of order, across others
					from = w.chance.IntN(hour + 1)
					to = min(from+1+w.chance.IntN(4), hour+2)
				}
				labels := map[string]string{"c": strconv.Itoa(stream), "r": strconv.Itoa(replica)}
				in, c := w.input(len(all), int64(from), int64(to), labels)
				all = append(all, arrival{due, in, c})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b arrival) int { return a.at.Compare(b.at) })
	for i, a := range all {
		<-time.After(time.Until(a.at))
		if len(a.content) == 0 {
			continue
		}
		if w.chance.IntN(30) == 0 {
			id := w.id(1000 + i)
			_ = w.bkt.Upload(ctx, block.IndexName(id), strings.NewReader("cut"))
		}
		w.arrive(ctx, a.in, a.content)
	}
	<-time.After(time.Duration(w.chance.IntN(20)) * time.Hour)
}

func (w *simWorld) id(n int) ulid.ULID {
	var id ulid.ULID
	_ = id.SetTime(uint64(time.Now().UnixMilli()))
	id[15], id[14] = byte(n), byte(n>>8)
	return id
}

// input is a block of some hours, in which some samples are missing.
func (w *simWorld) input(n int, from, to int64, labels map[string]string) (*simBlock, content) {
	slots := map[string][]int64{}
	gap := w.chance.Int64N(40)
	for _, name := range w.series {
		for at := w.begin + from*perHour; at < w.begin+to*perHour; at++ {
			if at%40 != gap && w.chance.IntN(20) > 0 {
				slots[name] = append(slots[name], at)
			}
		}
	}
	c, err := rawContent(w.series, slots)
	if err != nil {
		panic(err)
	}
	hour := time.Hour.Milliseconds()
	m := &block.Meta{ULID: w.id(n), MinTime: w.begin*slot + from*hour, MaxTime: w.begin*slot + to*hour, Version: 1}
	m.Compaction.Level = 1
	m.Compaction.Sources = []ulid.ULID{m.ULID}
	m.Stats.NumSamples = uint64(len(slots[w.series[0]]) + len(slots[w.series[1]]))
	m.Thanos.Labels, m.Thanos.Source, m.Thanos.Version = labels, block.SourceSidecar, 1
	return &simBlock{meta: m, slots: w.slotsOf(c, block.Raw)}, c
}

// checkEnd looks at a bucket that had all the time it needed.
func (w *simWorld) checkEnd(t *testing.T) {
	t.Helper()
	m := &machine{world: w, chance: rand.New(rand.NewPCG(3, 4)), kill: func() {}}
	e := w.process(t.Context(), m)
	set, err := e.blocks.Fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range planner.Plan(set, w.opts.Policy, time.Now()) {
		w.fault("left to do: %s", j)
	}
	for _, p := range set.Partial {
		w.fault("left behind: %s with %v", p.ID, p.Objects)
	}
	for key, blocks := range w.live() {
		slices.SortFunc(blocks, func(a, b *simBlock) int { return int(a.meta.MinTime - b.meta.MinTime) })
		for i, b := range blocks[1:] {
			if b.meta.MinTime < blocks[i].meta.MaxTime {
				w.fault("%s: %s and %s overlap", key, blocks[i].meta.ULID, b.meta.ULID)
			}
		}
		keep := w.opts.Policy.Retention[key.Resolution]
		for _, b := range blocks {
			if keep > 0 && b.meta.MaxTime <= time.Now().Add(-keep).UnixMilli() {
				w.fault("%s: %s is past its retention", key, b.meta.ULID)
			}
			w.checkContent(t.Context(), key, b)
		}
	}
	for _, in := range w.inputs {
		if n := w.retired[in.meta.ULID]; n > 1 || n == 0 && w.blocks[in.meta.ULID] == nil {
			w.fault("input %s is retired %d times", in.meta.ULID, n)
		}
	}
	w.look()
}

// checkContent compares a block with all that was put in for its time.
func (w *simWorld) checkContent(ctx context.Context, key block.GroupKey, b *simBlock) {
	want := make([]bits, len(w.series))
	for _, in := range w.inputs {
		if in.meta.Group([]string{"r"}).Stream == key.Stream {
			for i := range want {
				want[i].add(in.slots[i])
			}
		}
	}
	c, ok := w.contentOf(ctx, b.meta.ULID)
	if !ok {
		w.fault("%s has no index", b.meta.ULID)
		return
	}
	first, last := b.meta.MinTime/slot-w.begin, (b.meta.MaxTime-1)/slot-w.begin
	for _, s := range c {
		name := s.Labels.Get("__name__")
		i := slices.Index(w.series, name)
		got, err := points(s, key.Resolution)
		if err != nil {
			w.fault("%s: %v", b.meta.ULID, err)
		}
		for at := first; at <= last; at++ {
			n := int64(1)
			if key.Resolution == block.OneHour {
				n = perHour
				if at%perHour != 0 {
					continue
				}
			}
			count, sum := 0.0, 0.0
			for j := at; j < at+n; j++ {
				if want[i].has(j) {
					count++
					sum += valueAt(name, w.begin+j)
				}
			}
			if p := got[w.begin+at]; p != [2]float64{count, sum} && w.exact(key.Resolution) {
				w.fault("%s: %s of %s has %v in slot %d, want %v and %v", key, name, b.meta.ULID, p, at, count, sum)
				return
			}
		}
	}
}

// exact reports whether a window must hold all samples that ever came for it. What
// came when its finer samples had expired is merged with it window by window, of
// which the fuller one counts.
func (w *simWorld) exact(r block.Resolution) bool {
	keep := w.opts.Policy.Retention
	switch r {
	case block.Raw:
		return true
	case block.FiveMin:
		return keep[block.Raw] == 0
	case block.OneHour:
		return keep[block.Raw] == 0 && keep[block.FiveMin] == 0
	}
	return false
}
