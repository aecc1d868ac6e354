package dedup

import (
	"cmp"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
)

// worlds is how many are simulated: a million in the long run, which may be cut into parts,
//
//	go test -count=1 -timeout 0 -run 'Guarantees|Histograms|Rates' ./pkg/dedup -worlds 1000000 -first 0
var (
	worlds = flag.Int("worlds", simulations, "how many worlds are simulated")
	first  = flag.Int("first", 0, "the seed of the first one")
)

// world is a process with a counter, and the replicas that scrape it.
type world struct {
	seed     uint64
	interval int64 // of most replicas at first; some take a multiple
	started  bool  // samples carry start timestamps
	wide     bool  // clocks differ by more than can be told from times alone
	shortest int64 // the shortest interval ever configured
	begin    int64
	end      int64
	resets   []int64   // of the counter, in true time
	risen    []float64 // what the counter rose by since origin, at each slot of a third of an interval
	replicas []chunkcodec.Samples
	rhythms  [][]rhythm        // of each replica
	truth    []map[int64]int64 // for each replica: timestamp → true time
}

// rhythm is an interval and the time from which it is used.
type rhythm struct{ from, step int64 }

func stale() float64 { return math.Float64frombits(value.StaleNaN) }

func (w *world) origin() int64 { return w.begin - 20*w.interval }

// rise is what the counter rose by since the origin. It rises in every
// moment, so that a value out of order cannot hide, and unevenly.
func (w *world) rise(t int64) float64 {
	slot := w.interval / 3
	i := min(int((t-w.origin())/slot), len(w.risen)-2)
	return w.risen[i] + (w.risen[i+1]-w.risen[i])*float64(t-w.origin()-int64(i)*slot)/float64(slot)
}

// began is when the process last began anew.
func (w *world) began(t int64) int64 {
	start := w.origin()
	for _, r := range w.resets {
		if r <= t {
			start = r
		}
	}
	return start
}

// counter is the true value.
func (w *world) counter(t int64) float64 { return w.rise(t) - w.rise(w.began(t)) }

// start is the start timestamp that the process shows, 0 where it shows none.
func (w *world) start(t int64) int64 {
	if !w.started {
		return 0
	}
	return w.began(t)
}

// simulate draws a world. Clocks differ by less than 0.4 intervals, in wide worlds, which have start timestamps, by less than 0.7.
func simulate(seed uint64) *world {
	r := rand.New(rand.NewPCG(seed, 11))
	w := &world{seed: seed, interval: []int64{30_000, 60_000, 60_000, 120_000}[r.IntN(4)]}
	w.begin = Cell*20 - 40*w.interval + r.Int64N(20*w.interval)
	w.end = w.begin + 60*w.interval + r.Int64N(2*Cell)
	w.started = r.IntN(4) == 0
	w.wide = w.started && seed%2 == 0
	w.run(r)
	missed := []float64{0, 0, 0.02, 0.1}[r.IntN(4)]
	changes := w.configure(r)
	for range 2 + r.IntN(4) {
		s, truth := w.scrape(r, missed, changes)
		w.replicas = append(w.replicas, s)
		w.truth = append(w.truth, truth)
	}
	return w
}

// run lets the process live.
func (w *world) run(r *rand.Rand) {
	for range r.IntN(3) {
		w.resets = append(w.resets, w.begin+r.Int64N(w.end-w.begin))
	}
	slices.Sort(w.resets)
	total, uneven := 0.0, []float64{0, 0.3, 1, 1}[r.IntN(4)]
	for at := w.origin(); at < w.end+20*w.interval; at += w.interval / 3 {
		w.risen = append(w.risen, total)
		total += float64(w.interval/3) * (0.2 + 0.8*(1-uneven) + 0.8*uneven*r.ExpFloat64())
	}
}

// configure draws changes of the interval, in tenths, which all replicas are meant to take.
func (w *world) configure(r *rand.Rand) (changes []rhythm) {
	w.shortest = w.interval
	for range []int{0, 0, 1, 2}[r.IntN(4)] {
		step := w.interval * []int64{5, 10, 20, 40}[r.IntN(4)] / 10
		w.shortest = min(w.shortest, step)
		changes = append(changes, rhythm{w.begin + r.Int64N(w.end-w.begin), step})
	}
	slices.SortFunc(changes, func(a, b rhythm) int { return cmp.Compare(a.from, b.from) })
	return changes
}

// skewed is how far clocks may differ, in hundredths of an interval, less the jitter.
func (w *world) skewed() int64 {
	if w.wide {
		return 68
	}
	return 38
}

// scrape is the life of one replica. It may come back from an outage at another phase.
func (w *world) scrape(r *rand.Rand, missed float64, changes []rhythm) (s chunkcodec.Samples, truth map[int64]int64) {
	truth = map[int64]int64{}
	phase, skew := r.Int64N(w.interval), r.Int64N(w.shortest*w.skewed()/100)
	jitter := int64(1 + r.IntN(3)*int(w.shortest)/200)
	down := w.outages(r)
	at := w.begin + phase
	rhythms := []rhythm{{at, w.interval * []int64{1, 1, 1, 1, 1, 1, 2, 3}[r.IntN(8)]}}
	for _, c := range changes {
		if r.IntN(8) == 0 {
			continue // this one keeps its configuration
		}
		c.from += r.Int64N(edgeReach) // takes it a little later than others
		rhythms = append(rhythms, c)
	}
	slices.SortFunc(rhythms, func(a, b rhythm) int { return cmp.Compare(a.from, b.from) })
	w.rhythms = append(w.rhythms, rhythms)
	moves, was := r.IntN(3) == 0, false
	for now := 0; at < w.end; at += rhythms[now].step {
		if moves && was && !down(at) {
			if at += r.Int64N(rhythms[now].step); at >= w.end {
				break
			}
		}
		was = down(at)
		for now+1 < len(rhythms) && rhythms[now+1].from <= at {
			now++
		}
		t := at + r.Int64N(jitter)
		switch {
		case down(at):
		case r.Float64() < missed:
			if n := s.Len(); n > 0 && !value.IsStaleNaN(s.V[n-1]) {
				s.AppendFloat(0, t, stale())
			}
		default:
			truth[t] = t - skew
			s.AppendFloat(w.start(t-skew), t, w.counter(t-skew))
		}
	}
	return s, truth
}

func (w *world) outages(r *rand.Rand) (down func(t int64) bool) {
	type span struct{ from, to int64 }
	var outages []span
	for range r.IntN(4) {
		from := w.begin + r.Int64N(w.end-w.begin)
		if r.IntN(4) == 0 { // exactly at the edge of a cell
			from = Cell * 20
		}
		length := r.Int64N([]int64{3 * w.interval, 20 * w.interval, Cell}[r.IntN(3)])
		if r.IntN(4) == 0 { // back exactly at the edge
			from = Cell*20 - length
		}
		outages = append(outages, span{from, from + length})
	}
	return func(t int64) bool {
		return slices.ContainsFunc(outages, func(o span) bool { return o.from <= t && t < o.to })
	}
}

// step is the longest interval that replica r scraped with around t:
// how often it scrapes is visible only after a few scrapes.
func (w *world) step(r int, t int64) (longest int64) {
	rhythms := w.rhythms[r]
	for i, now := range rhythms {
		until := int64(math.MaxInt64)
		if i+1 < len(rhythms) {
			until = w.back(r, rhythms[i+1].from)
		}
		if around := (reach + 2) * now.step; now.from-around <= t && saturate(until, around) >= t {
			longest = max(longest, now.step)
		}
	}
	return longest
}

// back is when replica r first has a sample at t or later: what it was configured with while it was down shows then.
func (w *world) back(r int, t int64) int64 {
	s := &w.replicas[r]
	i, _ := slices.BinarySearch(s.T, t)
	for ; i < s.Len(); i++ {
		if !value.IsStaleNaN(s.V[i]) {
			return s.T[i]
		}
	}
	return math.MaxInt64
}

// stepAt is the interval that replica r is configured with at t.
func (w *world) stepAt(r int, t int64) (step int64) {
	for _, now := range w.rhythms[r] {
		if step == 0 || now.from <= t {
			step = now.step
		}
	}
	return step
}

// pack cuts samples into chunks of random lengths.
func pack(t testing.TB, s *chunkcodec.Samples, r *rand.Rand) (out []series.Chunk) {
	t.Helper()
	for from := 0; from < s.Len(); {
		to := min(s.Len(), from+1+r.IntN(120))
		out = append(out, chunk(t, s, from, to))
		from = to
	}
	return out
}

func chunk(t testing.TB, s *chunkcodec.Samples, from, to int) series.Chunk {
	t.Helper()
	var part chunkcodec.Samples
	part.Append(s, from, to)
	enc := chunkenc.EncXOR
	if len(part.ST) > 0 {
		enc = chunkenc.EncXOR2
	}
	data, err := chunkcodec.Encode(enc, &part, chunkenc.UnknownCounterReset)
	if err != nil {
		t.Fatal(err)
	}
	return series.Chunk{MinTime: part.T[0], MaxTime: part.T[part.Len()-1], Encoding: enc, Data: data}
}

func (w *world) chunks(t testing.TB, seed uint64) (out [][]series.Chunk) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 12))
	for i := range w.replicas {
		out = append(out, pack(t, &w.replicas[i], r))
	}
	return out
}

func unpack(t testing.TB, chunks []series.Chunk) *chunkcodec.Samples {
	t.Helper()
	var s chunkcodec.Samples
	for _, c := range chunks {
		if err := chunkcodec.Decode(c.Encoding, c.Data, &s); err != nil {
			t.Fatal(err)
		}
	}
	return &s
}

func dedupe(t testing.TB, replicas ...[]series.Chunk) []series.Chunk {
	t.Helper()
	out, err := Chunks(replicas, Defaults())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// besideSources is what comes of a result and of all that it was made from.
func besideSources(t testing.TB, once []series.Chunk, in [][]series.Chunk) []series.Chunk {
	t.Helper()
	g := &Group{replicas: append([][]series.Chunk{once}, in...), merged: true}
	out, err := new(deduplicator).chunks(g, Defaults())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// cut are the samples with from <= t < to.
func cut(s *chunkcodec.Samples, from, to int64) *chunkcodec.Samples {
	i, _ := slices.BinarySearch(s.T, from)
	j, _ := slices.BinarySearch(s.T, to)
	var out chunkcodec.Samples
	out.Append(s, i, max(i, j))
	return &out
}

// within are the chunks that overlap [mint, maxt].
func within(replicas [][]series.Chunk, mint, maxt int64) (out [][]series.Chunk) {
	for _, chunks := range replicas {
		var of []series.Chunk
		for _, c := range chunks {
			if c.MinTime <= maxt && c.MaxTime >= mint {
				of = append(of, c)
			}
		}
		out = append(out, of)
	}
	return out
}

// text writes samples as "t=v", for messages.
func text(s *chunkcodec.Samples) string {
	var out []string
	for i, t := range s.T {
		v := fmt.Sprintf("%g", s.V[i])
		if value.IsStaleNaN(s.V[i]) {
			v = "stale"
		}
		out = append(out, fmt.Sprintf("%g=%s", float64(t)/1000, v))
	}
	return strings.Join(out, " ")
}
