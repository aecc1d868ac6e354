package compact

import (
	"context"
	"flag"
	"fmt"
	"maps"
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
	seen := &events{count: map[string]int{}}
	t.Cleanup(func() { seen.check(t) })
	for _, seed := range seeds() {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newSimWorld(seed, dir)
				defer seen.add(w)
				if err := w.opts.Validate(); err != nil {
					t.Fatal(err)
				}
				w.simulate(t)
				if len(w.wrong) > 0 {
					t.Logf("deduplication %s, retention %v, downsampling %t, out of time %v, %d compactions at a time, %s delay", w.opts.Dedup.Func, w.opts.Policy.Retention, !w.opts.Policy.NoDownsampling, w.untimely, w.opts.Concurrency, w.opts.Policy.DeleteDelay)
				}
				for _, text := range w.wrong {
					t.Error(text)
				}
			})
		})
	}
}

// seeds are those that were asked for or, unless that was said, the first ones and
// such as have shown something once. Goroutines of one instant may take turns in any
// order, so a world is not quite the same when it is run again.
func seeds() (out []uint64) {
	for seed := *simFrom; seed < *simFrom+*simSeeds; seed++ {
		out = append(out, seed)
	}
	if *simFrom == 0 {
		out = append(out,
			104891, // penalty waits for hours where blocks came late
			201707, // a late block of a shard between two that were merged before
			107750, // a meta.json that could not be read once
			508984, // a coarser block that expires while it is made again
		)
	}
	return out
}

// events are what happened in all worlds, how often.
type events struct {
	mu     sync.Mutex
	worlds int
	count  map[string]int
}

func (e *events) add(w *simWorld) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.worlds++
	for what, n := range w.saw {
		e.count[what] += n
	}
}

// check makes sure that enough worlds have seen everything that they are for.
func (e *events) check(t *testing.T) {
	t.Helper()
	t.Logf("%d worlds have seen %v", e.worlds, e.count)
	if e.worlds < 100 {
		return
	}
	for _, what := range []string{
		"died", "stood still", "lost on the way", "answer lost", "arrived late", "lease taken over",
		"a block came late", "a block across others", "a broken block", string(block.NoCompactMark), string(block.NoDownsampleMark),
		"marked raw", "marked 5m", "marked 1h", "default", "chain", "penalty",
	} {
		if e.count[what] == 0 {
			t.Errorf("not one of %d worlds has seen: %s", e.worlds, what)
		}
	}
}

func newSimWorld(seed uint64, dir string) *simWorld {
	w := &simWorld{
		bkt: bucket.NewMemory(), opts: Defaults(), series: []string{"a", "bb"},
		begin:  slotOf(time.Now().UnixMilli()),
		chance: rand.New(rand.NewPCG(seed, 11)), contents: map[string]content{},
		blocks: map[ulid.ULID]*simBlock{}, retired: map[ulid.ULID]int{}, broken: map[ulid.ULID]reason{},
		untimely: map[string]bool{}, epochs: map[string]leaseState{}, saw: map[string]int{},
	}
	o := &w.opts
	o.Dir = dir
	o.Concurrency, o.DownsampleConcurrency = 1+w.chance.IntN(3), 1+w.chance.IntN(2)
	o.RefreshInterval = time.Duration(1+w.chance.IntN(10)) * time.Minute
	o.Dedup.Func = []dedup.Func{dedup.Default, dedup.Chain, dedup.Penalty}[w.chance.IntN(3)]
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
	if w.chance.IntN(3) == 0 { // what is merged of a few blocks is split by series
		p.MaxBlockBytes = fileBytes * int64(2+w.chance.IntN(20))
	}
	return w
}

// simulate is the life of a world.
func (w *simWorld) simulate(t *testing.T) {
	t.Helper()
	w.see(w.opts.Dedup.Func.String())
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
		if err := w.process(t.Context(), m).Run(t.Context()); err != nil && !w.onlyBroken(err) {
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
		at time.Time
		in *simBlock
	}
	var all []arrival
	start := time.UnixMilli(w.begin * slot)
	for stream := range 1 + w.chance.IntN(2) {
		punctual := w.chance.IntN(2) == 0
		for replica := range 1 + w.chance.IntN(3) {
			for hour := 0; hour < 36; hour += 2 {
				from, to := hour, hour+2
				due := start.Add(time.Duration(to)*time.Hour + time.Duration(w.chance.IntN(40))*time.Minute)
				odd := w.chance.IntN(16)
				switch {
				case odd == 0:
					continue
				case punctual:
				case odd == 1:
					due = due.Add(time.Duration(w.chance.IntN(20)) * time.Hour)
					w.see("a block came late")
				case odd == 2: // out of order, across others
					w.see("a block across others")
					from = w.chance.IntN(hour + 1)
					to = min(from+1+w.chance.IntN(4), hour+2)
				}
				in := w.input(len(all), int64(from), int64(to), stream, replica)
				w.about(in, punctual)
				all = append(all, arrival{due, in})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b arrival) int { return a.at.Compare(b.at) })
	for i, a := range all {
		<-time.After(time.Until(a.at))
		if len(a.in.content) == 0 {
			continue
		}
		if w.chance.IntN(30) == 0 {
			id := w.id(1000 + i)
			_ = w.bkt.Upload(ctx, block.IndexName(id), strings.NewReader("cut"))
		}
		w.arrive(ctx, a.in)
	}
	<-time.After(time.Duration(w.chance.IntN(20)) * time.Hour)
}

// about notes what a block that will arrive means for its stream.
func (w *simWorld) about(in *simBlock, punctual bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.untimely[in.stream] = !punctual
	if w.chance.IntN(40) == 0 {
		w.saw["a broken block"]++
		all := slices.Sorted(maps.Keys(reasons()))
		w.broken[in.meta.ULID] = all[w.chance.IntN(len(all))]
	}
}

func (w *simWorld) id(n int) ulid.ULID {
	var id ulid.ULID
	_ = id.SetTime(uint64(time.Now().UnixMilli()))
	id[15], id[14] = byte(n), byte(n>>8)
	return id
}

// input is a block of some hours, in which some samples are missing.
func (w *simWorld) input(n int, from, to int64, stream, replica int) *simBlock {
	slots := map[string][]int64{}
	gap := w.chance.Int64N(40)
	for _, name := range w.series {
		for at := w.begin + from*perHour; at < w.begin+to*perHour; at++ {
			if at%40 != gap && w.chance.IntN(20) > 0 {
				slots[name] = append(slots[name], at)
			}
		}
	}
	c, err := rawContent(w.series, slots, w.phase(replica))
	if err != nil {
		panic(err)
	}
	hour := time.Hour.Milliseconds()
	m := &block.Meta{ULID: w.id(n), MinTime: w.begin*slot + from*hour, MaxTime: w.begin*slot + to*hour, Version: 1}
	m.Compaction.Level = 1
	m.Compaction.Sources = []ulid.ULID{m.ULID}
	m.Stats.NumSamples = uint64(len(slots[w.series[0]]) + len(slots[w.series[1]]))
	m.Thanos.Labels = map[string]string{"c": strconv.Itoa(stream), "r": strconv.Itoa(replica)}
	m.Thanos.Source, m.Thanos.Version = block.SourceSidecar, 1
	in := w.newBlock(m, c)
	in.content = c
	return in
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
		blocks = slices.DeleteFunc(blocks, func(b *simBlock) bool { return w.broken[b.meta.ULID] != "" })
		for i := 1; i < len(blocks); i++ {
			if a, b := blocks[i-1].meta, blocks[i].meta; b.MinTime < a.MaxTime {
				w.fault("%s: %s and %s overlap", key, a.ULID, b.ULID)
			}
		}
		keep, all := w.opts.Policy.Retention[key.Resolution], w.truthOf(key.Stream)
		for _, b := range blocks {
			if keep > 0 && b.meta.MaxTime <= time.Now().Add(-keep).UnixMilli() {
				w.fault("%s: %s is past its retention", key, b.meta.ULID)
			}
			w.checkContent(t.Context(), key, b, all)
		}
	}
	for _, in := range w.inputs {
		if n := w.retired[in.meta.ULID]; n > 1 || n == 0 && w.blocks[in.meta.ULID] == nil {
			w.fault("input %s is retired %d times", in.meta.ULID, n)
		}
	}
	w.look()
}
