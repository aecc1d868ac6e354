package dedup

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
)

// difference says where two runs of samples part.
func difference(got, want *chunkcodec.Samples) string {
	n := min(got.Len(), want.Len())
	for i := range n {
		if got.T[i] != want.T[i] || math.Float64bits(got.V[i]) != math.Float64bits(want.V[i]) || got.Start(i) != want.Start(i) {
			return fmt.Sprintf("sample %d: got %d=%g since %d, want %d=%g since %d",
				i, got.T[i], got.V[i], got.Start(i), want.T[i], want.V[i], want.Start(i))
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
			for seed := *first + part; seed < *first+cases; seed += parts {
				if broken := checkWorld(t, simulate(uint64(seed))); broken != "" {
					t.Fatalf("seed %d: %s", seed, broken)
				}
			}
		})
	}
}

// TestWorldsThatOnceBrokeALaw checks all laws in worlds of the long run that some rule did not withstand.
func TestWorldsThatOnceBrokeALaw(t *testing.T) {
	for _, seed := range []uint64{70079, 77880, 79757, 203670, 313284, 972897, 1299899} {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			broken, laws := checkLaws(t, simulate(seed))
			if broken != "" {
				t.Error(broken)
			}
			for _, law := range laws {
				if broken := law(); broken != "" {
					t.Error(broken)
				}
			}
		})
	}
}

// checkWorld checks one of the laws for results that were made in different ways.
func checkWorld(t *testing.T, w *world) string {
	t.Helper()
	broken, laws := checkLaws(t, w)
	if broken != "" {
		return broken
	}
	return laws[int(w.seed/4)%len(laws)]()
}

// checkLaws checks what holds for a result, and returns what is left to be checked.
func checkLaws(t *testing.T, w *world) (broken string, left []func() string) {
	t.Helper()
	in := w.chunks(t, w.seed)
	once := dedupe(t, in...)
	got := unpack(t, once)
	return w.onlyInput(got) + w.noHoles(got) + w.inOrder(got), []func() string{
		func() string {
			return named("other chunk borders", difference(unpack(t, dedupe(t, w.chunks(t, w.seed+1)...)), got))
		},
		func() string { return named("a query in two parts", w.inParts(t, in, got)) },
		func() string { return named("compacted in part", w.compacted(t, in, got)) },
		func() string { return named("once more", difference(unpack(t, dedupe(t, once)), got)) },
		func() string {
			again := unpack(t, besideSources(t, once, in))
			return named("beside its sources", w.noHoles(again)+w.inOrder(again))
		},
	}
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
			known = known || found && math.Float64bits(s.V[j]) == math.Float64bits(got.V[i]) && s.Start(j) == got.Start(i)
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

// nearest is the distance from t to the nearest of times.
func nearest(times []int64, t int64) int64 {
	i, _ := slices.BinarySearch(times, t)
	near := int64(math.MaxInt64)
	if i < len(times) {
		near = times[i] - t
	}
	if i > 0 {
		near = min(near, t-times[i-1])
	}
	return near
}

func (w *world) noHoles(got *chunkcodec.Samples) string {
	have := scrapes(got)
	for r := range w.replicas {
		for _, at := range scrapes(&w.replicas[r]) {
			near, step := nearest(have, at), w.step(r, at)
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

// inOrder checks that samples stand in the order in which the process was read. So its
// counter falls where it was reset, once, and nowhere else. In wide worlds it may also fall beside a hole, but no
// sample from before a reset stands behind one from after it.
func (w *world) inOrder(got *chunkcodec.Samples) string {
	prev, last := -1, int64(math.MinInt64)
	for i, v := range got.V {
		if value.IsStaleNaN(v) {
			continue
		}
		now := w.trueTime(got, i)
		if w.wide {
			now = w.began(now)
		}
		if prev >= 0 && now < last {
			return fmt.Sprintf("%g at %d, read at %d, stands before %g at %d, read at %d (interval %d, resets %v)",
				got.V[prev], got.T[prev], last, v, got.T[i], now, w.interval, w.resets)
		}
		prev, last = i, now
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

// compacted deduplicates blocks of some cells, as the compactor does, leaves others
// as they are, and reads all of them together, in one query and in two.
func (w *world) compacted(t *testing.T, in [][]series.Chunk, want *chunkcodec.Samples) string {
	t.Helper()
	r := rand.New(rand.NewPCG(w.seed, 15))
	all := make([][]series.Chunk, 1+len(in)) // what is compacted comes first
	for start := cellStart(w.begin); start < w.end+w.interval; {
		end := start + Cell*(1+r.Int64N(3))
		var block [][]series.Chunk
		for _, chunks := range in {
			block = append(block, pack(t, cut(unpack(t, chunks), start, end), r))
		}
		if r.IntN(3) > 0 {
			all[0] = append(all[0], dedupe(t, block...)...)
		} else {
			for i, chunks := range block {
				all[1+i] = append(all[1+i], chunks...)
			}
		}
		start = end
	}
	if broken := difference(unpack(t, dedupe(t, all...)), want); broken != "" {
		return broken
	}
	return w.inParts(t, all, want)
}

// TestHistogramsObeyTheSameRules replays worlds with histograms in place of the counter's
// values, integer, float and mixed with floats, and expects the same choice. What a
// histogram says about the one before it has to be true.
func TestHistogramsObeyTheSameRules(t *testing.T) {
	for seed := uint64(*first); seed < uint64(*first+max(100, *worlds/20)); seed++ {
		w := simulate(seed)
		want := unpack(t, dedupe(t, w.chunks(t, seed)...))
		var in [][]series.Chunk
		for i := range w.replicas {
			in = append(in, w.asHistograms(t, &w.replicas[i]))
		}
		got := unpack(t, dedupe(t, in...))
		if !slices.Equal(got.T, want.T) {
			t.Fatalf("seed %d: got times %v, want %v", seed, got.T, want.T)
		}
		for i := range got.T {
			count, stale := countAt(got, i)
			if stale != value.IsStaleNaN(want.V[i]) || !stale && count != countOf(got, i, want.V[i]) || got.Start(i) != want.Start(i) {
				t.Fatalf("seed %d: count %g since %d at %d, want that of %g since %d", seed, count, got.Start(i), got.T[i], want.V[i], want.Start(i))
			}
			if i == 0 || stale {
				continue
			}
			before, _ := countAt(got, i-1)
			switch hint := hintAt(got, i); {
			case hint == histogram.NotCounterReset && (got.Type(i) != got.Type(i-1) || count < before):
				t.Fatalf("seed %d: after %g stands %g, which says that it is no reset", seed, before, count)
			case hint == histogram.CounterReset && count >= before:
				t.Fatalf("seed %d: after %g stands %g, which says that it is a reset", seed, before, count)
			}
		}
	}
}

// asHistograms are the samples of a replica with histograms in place of values, which kinds depends on the seed.
func (w *world) asHistograms(t *testing.T, s *chunkcodec.Samples) (list []series.Chunk) {
	t.Helper()
	var of chunkcodec.Samples
	for i, at := range s.T {
		gen := tsdbutil.GenerateTestHistogram
		if w.seed%4 == 3 {
			gen = tsdbutil.GenerateTestCustomBucketsHistogram
		}
		h := &histogram.Histogram{Sum: stale()}
		if !value.IsStaleNaN(s.V[i]) {
			h = gen(int64(s.V[i]))
		}
		switch {
		case w.seed%4 == 1:
			of.AppendFloatHistogram(s.Start(i), at, h.ToFloat(nil))
		case w.seed%4 == 2 && at%3 == 0:
			of.AppendFloat(s.Start(i), at, s.V[i])
		default:
			of.AppendHistogram(s.Start(i), at, h)
		}
	}
	chunks, err := chunkcodec.Append(nil, &of)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range chunks {
		list = append(list, series.Chunk{MinTime: c.MinTime, MaxTime: c.MaxTime, Encoding: c.Encoding, Data: c.Data})
	}
	return list
}

// countAt is the count of a histogram, or the value of a float.
func countAt(s *chunkcodec.Samples, i int) (count float64, stale bool) {
	switch s.Type(i) {
	case chunkenc.ValHistogram:
		return float64(s.H[i].Count), value.IsStaleNaN(s.H[i].Sum)
	case chunkenc.ValFloatHistogram:
		return s.FH[i].Count, value.IsStaleNaN(s.FH[i].Sum)
	case chunkenc.ValFloat, chunkenc.ValNone:
	}
	return s.V[i], value.IsStaleNaN(s.V[i])
}

// countOf is what countAt should give where asHistograms had a value.
func countOf(s *chunkcodec.Samples, i int, v float64) float64 {
	switch {
	case s.Type(i) == chunkenc.ValFloat:
		return v
	case s.Type(i) == chunkenc.ValHistogram && s.H[i].Schema == histogram.CustomBucketsSchema:
		return float64(tsdbutil.GenerateTestCustomBucketsHistogram(int64(v)).Count)
	}
	return float64(tsdbutil.GenerateTestHistogram(int64(v)).Count)
}

func hintAt(s *chunkcodec.Samples, i int) histogram.CounterResetHint {
	switch s.Type(i) {
	case chunkenc.ValHistogram:
		return s.H[i].CounterResetHint
	case chunkenc.ValFloatHistogram:
		return s.FH[i].CounterResetHint
	case chunkenc.ValFloat, chunkenc.ValNone:
	}
	return histogram.UnknownCounterReset
}
