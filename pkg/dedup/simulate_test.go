package dedup

import (
	"cmp"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
)

// worlds is how many are simulated: a million and more in the long run,
//
//	go test -run Guarantees -timeout 0 ./pkg/dedup -worlds 1000000
var worlds = flag.Int("worlds", simulations, "how many worlds TestGuarantees draws")

// world is a process with a counter, and the replicas that scrape it.
type world struct {
	seed     uint64
	interval int64 // of most replicas at first; some take a multiple
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

// counter is the true value.
func (w *world) counter(t int64) float64 {
	start := w.origin()
	for _, r := range w.resets {
		if r <= t {
			start = r
		}
	}
	return w.rise(t) - w.rise(start)
}

// simulate draws a world. Clocks differ by less than 0.4 intervals.
func simulate(seed uint64) *world {
	r := rand.New(rand.NewPCG(seed, 11))
	w := &world{seed: seed, interval: []int64{30_000, 60_000, 60_000, 120_000}[r.IntN(4)]}
	w.begin = Cell*20 - 40*w.interval + r.Int64N(20*w.interval)
	w.end = w.begin + 60*w.interval + r.Int64N(2*Cell)
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

// scrape is the life of one replica.
func (w *world) scrape(r *rand.Rand, missed float64, changes []rhythm) (s chunkcodec.Samples, truth map[int64]int64) {
	truth = map[int64]int64{}
	phase, skew := r.Int64N(w.interval), r.Int64N(w.shortest*38/100)
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
	for now := 0; at < w.end; at += rhythms[now].step {
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
			s.AppendFloat(0, t, w.counter(t-skew))
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

// step is the longest interval that replica r was configured with around t:
// how often it scrapes is visible only after a few scrapes.
func (w *world) step(r int, t int64) (longest int64) {
	rhythms := w.rhythms[r]
	for i, now := range rhythms {
		until := int64(math.MaxInt64)
		if i+1 < len(rhythms) {
			until = rhythms[i+1].from
		}
		if around := (reach + 2) * now.step; now.from-around <= t && saturate(until, around) >= t {
			longest = max(longest, now.step)
		}
	}
	return longest
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
	data, err := chunkcodec.Encode(chunkenc.EncXOR, &part, chunkenc.UnknownCounterReset)
	if err != nil {
		t.Fatal(err)
	}
	return series.Chunk{MinTime: part.T[0], MaxTime: part.T[part.Len()-1], Encoding: chunkenc.EncXOR, Data: data}
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

// difference says where two runs of samples part.
func difference(got, want *chunkcodec.Samples) string {
	n := min(got.Len(), want.Len())
	for i := range n {
		if got.T[i] != want.T[i] || math.Float64bits(got.V[i]) != math.Float64bits(want.V[i]) {
			return fmt.Sprintf("sample %d: got %d=%g, want %d=%g", i, got.T[i], got.V[i], want.T[i], want.V[i])
		}
	}
	if got.Len() != want.Len() {
		return fmt.Sprintf("got %d samples, want %d", got.Len(), want.Len())
	}
	return ""
}

// TestGuarantees draws worlds and checks everything that the package promises.
func TestGuarantees(t *testing.T) {
	cases := *worlds
	if testing.Short() {
		cases /= 10
	}
	const parts = 4
	for part := range parts {
		t.Run(strconv.Itoa(part), func(t *testing.T) {
			t.Parallel()
			for seed := part; seed < cases; seed += parts {
				if broken := checkWorld(t, simulate(uint64(seed))); broken != "" {
					t.Fatalf("seed %d: %s", seed, broken)
				}
			}
		})
	}
}

func checkWorld(t *testing.T, w *world) string {
	t.Helper()
	in := w.chunks(t, w.seed)
	once := dedupe(t, in...)
	got := unpack(t, once)
	if broken := w.onlyInput(got) + w.noHoles(got) + w.noFalseResets(got); broken != "" {
		return broken
	}
	laws := []func() string{
		func() string {
			return named("other chunk borders", difference(unpack(t, dedupe(t, w.chunks(t, w.seed+1)...)), got))
		},
		func() string { return named("a query in two parts", w.inParts(t, in, got)) },
		func() string { return named("compacted cell by cell", w.cellByCell(t, in, got)) },
		func() string { return named("once more", difference(unpack(t, dedupe(t, once)), got)) },
		func() string {
			again := unpack(t, dedupe(t, append([][]series.Chunk{once}, in...)...))
			return named("beside its sources", w.noHoles(again)+w.noFalseResets(again))
		},
	}
	return laws[int(w.seed/4)%len(laws)]()
}

func named(what, broken string) string {
	if broken == "" {
		return ""
	}
	return what + ": " + broken
}

func (w *world) onlyInput(got *chunkcodec.Samples) string {
	for i, at := range got.T {
		if i > 0 && at <= got.T[i-1] {
			return fmt.Sprintf("%d after %d", at, got.T[i-1])
		}
		known := false
		for _, s := range w.replicas {
			j, found := slices.BinarySearch(s.T, at)
			known = known || found && math.Float64bits(s.V[j]) == math.Float64bits(got.V[i])
		}
		if !known {
			return fmt.Sprintf("sample %d=%g is nobody's", at, got.V[i])
		}
	}
	return ""
}

// scrapes are the times of samples that are no stale markers.
func scrapes(s *chunkcodec.Samples) (out []int64) {
	for i, t := range s.T {
		if !value.IsStaleNaN(s.V[i]) {
			out = append(out, t)
		}
	}
	return out
}

func (w *world) noHoles(got *chunkcodec.Samples) string {
	have := scrapes(got)
	for r := range w.replicas {
		for _, at := range scrapes(&w.replicas[r]) {
			i, _ := slices.BinarySearch(have, at)
			near := int64(math.MaxInt64)
			if i < len(have) {
				near = have[i] - at
			}
			if i > 0 {
				near = min(near, at-have[i-1])
			}
			step := w.step(r, at)
			if 2*near <= 3*step {
				continue
			}
			if w.few(r, at) { // the rhythm of another one counts
				for other := range w.replicas {
					step = max(step, w.step(other, at))
				}
			}
			if 2*near > 3*step && (2*near > 3*edgeReach || !w.sparse(at)) {
				return fmt.Sprintf("replica %d has a sample at %d, the nearest of the result is %d ms away (interval %d)", r, at, near, step)
			}
		}
	}
	return ""
}

// few reports whether replica r has too few samples in the cell of t to show an interval.
func (w *world) few(r int, t int64) bool {
	return len(scrapes(cut(&w.replicas[r], cellStart(t), cellStart(t)+Cell))) <= minDeltas
}

// sparse reports whether all replicas do, which
// leaves the interval to a guess of five minutes or less.
func (w *world) sparse(t int64) bool {
	for r := range w.replicas {
		if !w.few(r, t) {
			return false
		}
	}
	return true
}

// noFalseResets checks that no value is lower than the one before unless the process was reset between the two.
func (w *world) noFalseResets(got *chunkcodec.Samples) string {
	prev := -1
	for i, v := range got.V {
		if value.IsStaleNaN(v) {
			continue
		}
		if prev >= 0 && v < got.V[prev] {
			from, to := w.trueTime(got, prev), w.trueTime(got, i)
			if !slices.ContainsFunc(w.resets, func(at int64) bool { return from < at && at <= to }) {
				return fmt.Sprintf("the counter falls from %g at %d to %g at %d (interval %d), true times %d and %d, resets %v",
					got.V[prev], got.T[prev], v, got.T[i], w.interval, from, to, w.resets)
			}
		}
		prev = i
	}
	return ""
}

func (w *world) trueTime(got *chunkcodec.Samples, i int) int64 {
	for r := range w.replicas {
		if at, ok := w.truth[r][got.T[i]]; ok && w.counter(at) == got.V[i] {
			return at
		}
	}
	return math.MinInt64
}

// inParts queries [a, b) and [b, c) apart, each with what Widen asks for.
func (w *world) inParts(t *testing.T, in [][]series.Chunk, want *chunkcodec.Samples) string {
	t.Helper()
	r := rand.New(rand.NewPCG(w.seed, 13))
	b := w.begin + r.Int64N(w.end-w.begin)
	if r.IntN(4) == 0 {
		b = Cell * 20
	}
	var got chunkcodec.Samples
	for _, part := range [][2]int64{{w.begin, b}, {b, w.end + w.interval}} {
		lo, hi := Widen(part[0], part[1]-1)
		s := cut(unpack(t, dedupe(t, within(in, lo, hi)...)), part[0], part[1])
		got.Append(s, 0, s.Len())
	}
	return difference(&got, want)
}

// cellByCell deduplicates blocks of one cell, as the compactor does, and reads the results together.
func (w *world) cellByCell(t *testing.T, in [][]series.Chunk, want *chunkcodec.Samples) string {
	t.Helper()
	var blocks []series.Chunk
	for start := cellStart(w.begin); start < w.end+w.interval; start += Cell {
		var block [][]series.Chunk
		for _, chunks := range in {
			if s := cut(unpack(t, chunks), start, start+Cell); s.Len() > 0 {
				block = append(block, []series.Chunk{chunk(t, s, 0, s.Len())})
			}
		}
		blocks = append(blocks, dedupe(t, block...)...)
	}
	return difference(unpack(t, dedupe(t, blocks)), want)
}

// TestHistogramsObeyTheSameRules replays worlds with histograms in place of the counter's
// values, integer, float and mixed with floats, and expects the same times.
func TestHistogramsObeyTheSameRules(t *testing.T) {
	for seed := range uint64(100) {
		w := simulate(seed)
		w.resets = nil
		want := unpack(t, dedupe(t, w.chunks(t, seed)...))
		var in [][]series.Chunk
		for _, s := range w.replicas {
			var of chunkcodec.Samples
			for i, at := range s.T {
				h := tsdbutil.GenerateTestHistogram((at - w.begin) / 1000)
				if seed%4 == 3 {
					h = tsdbutil.GenerateTestCustomBucketsHistogram((at - w.begin) / 1000)
				}
				switch {
				case value.IsStaleNaN(s.V[i]):
					h.Sum = stale()
					of.AppendHistogram(0, at, h)
				case seed%4 == 1:
					of.AppendFloatHistogram(0, at, h.ToFloat(nil))
				case seed%4 == 2 && at%3 == 0:
					of.AppendFloat(0, at, s.V[i])
				default:
					of.AppendHistogram(0, at, h)
				}
			}
			chunks, err := chunkcodec.Append(nil, &of)
			if err != nil {
				t.Fatal(err)
			}
			var list []series.Chunk
			for _, c := range chunks {
				list = append(list, series.Chunk{MinTime: c.MinTime, MaxTime: c.MaxTime, Encoding: c.Encoding, Data: c.Data})
			}
			in = append(in, list)
		}
		got := unpack(t, dedupe(t, in...))
		if !slices.Equal(got.T, want.T) {
			t.Fatalf("seed %d: got times %v, want %v", seed, got.T, want.T)
		}
		for i, h := range got.H {
			if h != nil && !value.IsStaleNaN(h.Sum) && h.Count != tsdbutil.GenerateTestHistogram((got.T[i]-w.begin)/1000).Count && seed%4 != 3 {
				t.Fatalf("seed %d: histogram at %d has count %d", seed, got.T[i], h.Count)
			}
		}
	}
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
