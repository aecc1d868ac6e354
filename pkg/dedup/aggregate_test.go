package dedup

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
)

const fiveMin int64 = 300_000

// coarsen makes a 5m chunk of raw samples as wire.md §22 says.
func coarsen(t testing.TB, s *chunkcodec.Samples) series.Chunk {
	t.Helper()
	var columns [aggrchunk.NumKinds]chunkcodec.Samples
	lastT := s.T[s.Len()-1]
	counter := &columns[aggrchunk.Counter]
	counter.AppendFloat(0, s.T[0], s.V[0])
	total := s.V[0]
	for i := 0; i < s.Len(); {
		end := min(floor(s.T[i], fiveMin)+fiveMin-1, lastT)
		count, sum, low, high := 0.0, 0.0, math.Inf(1), math.Inf(-1)
		for ; i < s.Len() && s.T[i] <= end; i++ {
			v := s.V[i]
			if i > 0 {
				if total += v; v >= s.V[i-1] {
					total -= s.V[i-1]
				}
			}
			count, sum, low, high = count+1, sum+v, min(low, v), max(high, v)
		}
		for k, v := range []float64{count, sum, low, high, total} {
			columns[k].AppendFloat(0, end, v)
		}
	}
	counter.AppendFloat(0, lastT, s.V[s.Len()-1])
	var subs aggrchunk.Subs
	for k := range columns {
		data, err := chunkcodec.Encode(chunkenc.EncXOR, &columns[k], chunkenc.UnknownCounterReset)
		if err != nil {
			t.Fatal(err)
		}
		subs[k] = aggrchunk.Sub{Encoding: chunkenc.EncXOR, Data: data}
	}
	count := &columns[aggrchunk.Count]
	return series.Chunk{
		MinTime: count.T[0], MaxTime: lastT, Resolution: fiveMin,
		Encoding: aggrchunk.Encoding, Data: aggrchunk.Encode(subs),
	}
}

// scrapeCoarse is a counter of one a second, scraped each 15 s from start to end, as 5m
// chunks of two hours; it restarts at each of the resets.
func scrapeCoarse(t testing.TB, start, end int64, resets ...int64) (out []series.Chunk) {
	t.Helper()
	var s chunkcodec.Samples
	flush := func() {
		if s.Len() > 0 {
			out = append(out, coarsen(t, &s))
			s.Reset()
		}
	}
	for at := start; at < end; at += 15_000 {
		if s.Len() > 0 && cellStart(at) != cellStart(s.T[0]) {
			flush()
		}
		begin := int64(0)
		for _, r := range resets {
			if r <= at {
				begin = r
			}
		}
		s.AppendFloat(0, at, float64(at-begin)/1000)
	}
	flush()
	return out
}

func counterOf(t testing.TB, chunks []series.Chunk) (points []point, lastRaw float64) {
	t.Helper()
	var subs []aggrchunk.Sub
	for _, c := range chunks {
		s, err := aggrchunk.Decode(c.Data)
		if err != nil {
			t.Fatal(err)
		}
		subs = append(subs, s[aggrchunk.Counter])
	}
	r := aggrchunk.NewCounterReader(subs)
	for r.Next() != chunkenc.ValNone {
		at, v := r.At()
		points = append(points, point{at, v})
	}
	if r.Err() != nil {
		t.Fatal(r.Err())
	}
	return points, r.LastRaw()
}

// windowsOf lists "start:count" in minutes.
func windowsOf(t testing.TB, chunks []series.Chunk) string {
	t.Helper()
	var out []string
	for _, c := range chunks {
		a, err := decodeAggregates([]series.Chunk{c})
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range a.windows(0, fiveMin) {
			out = append(out, fmt.Sprintf("%d:%g", w.id/60_000, w.count))
		}
	}
	return strings.Join(out, " ")
}

func sameBytes(a, b []series.Chunk) bool {
	return slices.EqualFunc(a, b, func(x, y series.Chunk) bool {
		return x.MinTime == y.MinTime && x.MaxTime == y.MaxTime && string(x.Data) == string(y.Data)
	})
}

func TestDownsampledHealthyReplicaPassesAsBytes(t *testing.T) {
	a, b := scrapeCoarse(t, 3_000, 3*Cell), scrapeCoarse(t, 11_000, 3*Cell)
	if got := dedupe(t, a, b); !sameBytes(got, a) {
		t.Errorf("got %d chunks that differ from the %d of the first replica", len(got), len(a))
	}
	if got := dedupe(t, a); !sameBytes(got, a) {
		t.Error("a lone replica was changed")
	}
}

func TestDownsampledWindowsComeFromTheReplicaWithMoreSamples(t *testing.T) {
	minute := int64(60_000)
	a := append(scrapeCoarse(t, 0, 17*minute), scrapeCoarse(t, 28*minute, 40*minute)...)
	b := scrapeCoarse(t, 7_000, 40*minute)
	got := dedupe(t, a, b)
	if w, want := windowsOf(t, got), "0:20 5:20 10:20 15:20 20:20 25:20 30:20 35:20"; w != want {
		t.Errorf("windows: got %s, want %s", w, want)
	}
	points, lastRaw := counterOf(t, got)
	for i, p := range points {
		// The counter counts one a second; scrapes are up to 15 s before a window's end.
		if off := p.v - float64(p.t)/1000; math.Abs(off) > 16 || i > 0 && p.v < points[i-1].v {
			t.Errorf("counter at %d: %g", p.t, p.v)
		}
	}
	if want := 2385.0; lastRaw != want {
		t.Errorf("last raw value: got %g, want %g", lastRaw, want)
	}
	if again := dedupe(t, got); !sameBytes(again, got) {
		t.Error("deduplicating the result changes it")
	}
	if beside := dedupe(t, got, a, b); !sameBytes(beside, got) {
		t.Error("deduplicating the result beside its sources changes it")
	}
}

func TestDownsampledReplicasThatTakeTurnsKeepTheIncrease(t *testing.T) {
	reset := 2*Cell + 1_000_000
	a := append(scrapeCoarse(t, 0, Cell/2, reset), scrapeCoarse(t, 3*Cell/2, 5*Cell/2, reset)...)
	b := append(scrapeCoarse(t, 7_000, 7*Cell/4, reset), scrapeCoarse(t, 9*Cell/4, 4*Cell, reset)...)
	got := dedupe(t, a, b)
	points, _ := counterOf(t, got)
	first, last := points[0], points[len(points)-1]
	increase, want := last.v-first.v, float64(4*Cell)/1000
	if math.Abs(increase-want) > 60 {
		t.Errorf("increase over everything: got %g, want about %g", increase, want)
	}
	for i := 1; i < len(points); i++ {
		if d := points[i].v - points[i-1].v; d < 0 || d > 330 {
			t.Errorf("increase of %g from %d to %d", d, points[i-1].t, points[i].t)
		}
	}
}

func TestDownsampledHistogramsAreTakenWindowByWindow(t *testing.T) {
	build := func(counts ...float64) series.Chunk {
		var n, sum, counter chunkcodec.Samples
		counter.AppendFloatHistogram(0, 5_000, tsdbutil.GenerateTestFloatHistogram(0)) // the first one of all
		for i, count := range counts {
			at := int64(i+1)*fiveMin - 1
			n.AppendFloat(0, at, count)
			g := tsdbutil.GenerateTestFloatHistogram(int64(count))
			g.CounterResetHint = histogram.GaugeType
			sum.AppendFloatHistogram(0, at, g)
			counter.AppendFloatHistogram(0, at, tsdbutil.GenerateTestFloatHistogram(int64(i)))
		}
		var subs aggrchunk.Subs
		for k, s := range map[aggrchunk.Kind]*chunkcodec.Samples{aggrchunk.Count: &n, aggrchunk.Sum: &sum, aggrchunk.Counter: &counter} {
			enc := family(s)
			data, err := chunkcodec.Encode(enc, s, chunkenc.UnknownCounterReset)
			if err != nil {
				t.Fatal(err)
			}
			if k == aggrchunk.Sum {
				data[2] |= byte(chunkenc.GaugeType)
			}
			subs[k] = aggrchunk.Sub{Encoding: enc, Data: data}
		}
		return series.Chunk{MinTime: n.T[0], MaxTime: n.T[n.Len()-1], Resolution: fiveMin, Encoding: aggrchunk.Encoding, Data: aggrchunk.Encode(subs)}
	}
	a, b := build(20, 20, 3, 20), build(19, 20, 20, 20)
	got := dedupe(t, []series.Chunk{a}, []series.Chunk{b})
	if w, want := windowsOf(t, got), "0:20 5:20 10:20 15:20"; w != want {
		t.Errorf("windows: got %s, want %s", w, want)
	}
	if len(got) != 3 {
		t.Errorf("got %d chunks, want one for each turn", len(got))
	}
	for _, c := range got {
		subs, err := aggrchunk.Decode(c.Data)
		if err != nil {
			t.Fatal(err)
		}
		if subs.Kinds() != aggrchunk.KindsOf(aggrchunk.Count, aggrchunk.Sum, aggrchunk.Counter) {
			t.Errorf("aggregates: got %05b", subs.Kinds())
		}
		if s := subs[aggrchunk.Sum]; chunkcodec.ResetHeader(s.Encoding, s.Data) != chunkenc.GaugeType {
			t.Error("the sum is no gauge any more")
		}
	}
}

func family(s *chunkcodec.Samples) chunkenc.Encoding {
	return s.Type(0).ChunkEncoding(false, false)
}

func TestAggregatesThatWereNotAskedForAreNotMissed(t *testing.T) {
	only := func(chunks []series.Chunk, kinds aggrchunk.Kinds) (out []series.Chunk) {
		for _, c := range chunks {
			subs, err := aggrchunk.Decode(c.Data)
			if err != nil {
				t.Fatal(err)
			}
			for k := range subs {
				if !kinds.Has(aggrchunk.Kind(k)) {
					subs[k] = aggrchunk.Sub{}
				}
			}
			c.Data = aggrchunk.Encode(subs)
			out = append(out, c)
		}
		return out
	}
	a := append(scrapeCoarse(t, 0, Cell/4), scrapeCoarse(t, Cell/2, Cell)...)
	b := scrapeCoarse(t, 7_000, Cell)
	for kinds := aggrchunk.Kinds(1); kinds <= aggrchunk.AllKinds; kinds++ {
		got := dedupe(t, only(a, kinds), only(b, kinds))
		n := 0
		for _, c := range got {
			n += aggrchunk.NumSamples(c.Data)
			subs, err := aggrchunk.Decode(c.Data)
			if err != nil || subs.Kinds() != kinds {
				t.Fatalf("aggregates %05b: got %05b, error %v", kinds, subs.Kinds(), err)
			}
		}
		if n != 24 {
			t.Errorf("aggregates %05b: got %d windows, want 24", kinds, n)
		}
	}
}

func TestResolutionsAreDeduplicatedApart(t *testing.T) {
	raw := chunk(t, &chunkcodec.Samples{T: []int64{0, 15_000, 30_000}, V: []float64{1, 2, 3}}, 0, 3)
	old := raw // raw samples in a downsampled block
	old.Resolution = fiveMin
	coarse := scrapeCoarse(t, 0, Cell)
	got := dedupe(t, append([]series.Chunk{raw, old}, coarse...), append([]series.Chunk{raw, old}, coarse...))
	if len(got) != 3 || !slices.IsSortedFunc(got, series.CompareChunks) {
		t.Fatalf("got %d chunks, want 3 in order", len(got))
	}
	if got[0].Resolution != 0 || got[1].Resolution != fiveMin || got[1].Encoding != chunkenc.EncXOR || got[2].Encoding != aggrchunk.Encoding {
		t.Errorf("got %v", got)
	}
}
