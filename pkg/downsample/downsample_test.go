package downsample

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"sort"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
)

const start = 1_760_000_400_000 // a full hour

type point struct {
	t int64
	v float64
}

// rawChunks cuts samples into XOR chunks of 120.
func rawChunks(t testing.TB, points []point) []series.Chunk {
	t.Helper()
	var out []series.Chunk
	for len(points) > 0 {
		n := min(120, len(points))
		chk := chunkenc.NewXORChunk()
		app, err := chk.Appender()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range points[:n] {
			app.Append(0, p.t, p.v)
		}
		out = append(out, series.Chunk{MinTime: points[0].t, MaxTime: points[n-1].t, Encoding: chunkenc.EncXOR, Data: chk.Bytes()})
		points = points[n:]
	}
	return out
}

// process is a counter with resets, or a gauge, scraped with misses.
func process(r *rand.Rand, n int, counter bool) []point {
	var out []point
	v := 0.0
	for i := range n {
		switch {
		case counter && r.IntN(200) == 0:
			v = float64(r.IntN(5))
		case counter:
			v += float64(r.IntN(10))
		default:
			v = float64(r.IntN(1000)) // its falls are resets to its counter
		}
		if r.IntN(20) != 0 {
			out = append(out, point{start + int64(i)*15_000 + 1234, v})
		}
	}
	return out
}

// window is what a reader sees of one window; the counter runs through all chunks.
type window struct {
	t                             int64
	count, sum, min, max, counter float64
}

// reading is what a reader sees of a series.
type reading struct {
	windows       []window
	firstV, lastV float64
}

// read goes through chunks with Prometheus' iterators and the counter reader of queries.
func read(t testing.TB, chunks []series.Chunk) (r reading) {
	t.Helper()
	var counters []aggrchunk.Sub
	for _, c := range chunks {
		subs := decode(t, c)
		counts, sums, lowest, highest := points(t, subs[aggrchunk.Count]), points(t, subs[aggrchunk.Sum]), points(t, subs[aggrchunk.Min]), points(t, subs[aggrchunk.Max])
		for i, p := range counts {
			if sums[i].t != p.t || lowest[i].t != p.t || highest[i].t != p.t {
				t.Fatalf("window %d of chunk at %d: times differ", i, c.MinTime)
			}
			r.windows = append(r.windows, window{t: p.t, count: p.v, sum: sums[i].v, min: lowest[i].v, max: highest[i].v})
		}
		if n := len(counts); c.MinTime != counts[0].t || c.MaxTime != counts[n-1].t {
			t.Fatalf("chunk from %d to %d holds windows from %d to %d", c.MinTime, c.MaxTime, counts[0].t, counts[n-1].t)
		}
		counters = append(counters, subs[aggrchunk.Counter])
	}
	it := aggrchunk.NewCounterReader(counters)
	for i := range r.windows {
		for it.AtT() < r.windows[i].t && it.Next() != chunkenc.ValNone {
			if len(counters) > 0 {
				_, r.firstV = it.At()
				counters = nil
			}
		}
		_, r.windows[i].counter = it.At()
	}
	if it.Next() != chunkenc.ValNone || it.Err() != nil {
		t.Fatalf("counter goes on after the last window, or ends in an error: %v", it.Err())
	}
	r.lastV = it.LastRaw()
	return r
}

func decode(t testing.TB, c series.Chunk) aggrchunk.Subs {
	t.Helper()
	subs, err := aggrchunk.Decode(c.Data)
	if err != nil {
		t.Fatal(err)
	}
	return subs
}

func points(t testing.TB, sub aggrchunk.Sub) (out []point) {
	t.Helper()
	chk, err := chunkenc.FromData(sub.Encoding, sub.Data)
	if err != nil {
		t.Fatal(err)
	}
	it := chk.Iterator(nil)
	for it.Next() == chunkenc.ValFloat {
		at, v := it.At()
		out = append(out, point{at, v})
	}
	if it.Err() != nil || len(out) != chk.NumSamples() {
		t.Fatalf("read %d of %d samples: %v", len(out), chk.NumSamples(), it.Err())
	}
	return out
}

// histograms reads a sub-chunk; the first one says whether the chunk begins with a reset.
func histograms(t testing.TB, sub aggrchunk.Sub) (out []*histogram.FloatHistogram) {
	t.Helper()
	chk, err := chunkenc.FromData(sub.Encoding, sub.Data)
	if err != nil {
		t.Fatal(err)
	}
	it := chk.Iterator(nil)
	for it.Next() != chunkenc.ValNone {
		_, h := it.AtFloatHistogram(nil)
		out = append(out, h)
	}
	if it.Err() != nil || len(out) != chk.NumSamples() {
		t.Fatalf("read %d of %d histograms: %v", len(out), chk.NumSamples(), it.Err())
	}
	if chunkcodec.ResetHeader(sub.Encoding, sub.Data) == chunkenc.CounterReset {
		out[0].CounterResetHint = histogram.CounterReset
	}
	return out
}

// truth aggregates the points of the window that ends at end.
func truth(samples []point, end int64, res block.Resolution) window {
	w := window{t: end, min: math.Inf(1), max: math.Inf(-1)}
	first := sort.Search(len(samples), func(i int) bool { return samples[i].t > end-int64(res) })
	for _, p := range samples[first:] {
		if p.t > end {
			break
		}
		w.count++
		w.sum += p.v
		w.min, w.max = min(w.min, p.v), max(w.max, p.v)
	}
	return w
}

// gained is what a counter has gained between its first sample and each of its samples.
func gained(samples []point) map[int64]float64 {
	at := map[int64]float64{samples[0].t: 0}
	total := 0.0
	for i := 1; i < len(samples); i++ {
		if d := samples[i].v - samples[i-1].v; d >= 0 {
			total += d
		} else {
			total += samples[i].v
		}
		at[samples[i].t] = total
	}
	return at
}

func TestEveryWindowHoldsWhatItsSamplesSay(t *testing.T) {
	for seed := range uint64(20) {
		for _, counter := range []bool{true, false} {
			r := rand.New(rand.NewPCG(seed, 1))
			points := process(r, 1+r.IntN(30_000), counter)
			if len(points) == 0 {
				continue
			}
			fine := chunksOf(t, rawChunks(t, points), block.FiveMin)
			check(t, points, fine, block.FiveMin)
			check(t, points, chunksOf(t, fine, block.OneHour), block.OneHour)
			check(t, points, chunksOf(t, rawChunks(t, points), block.OneHour), block.OneHour)
		}
	}
}

func chunksOf(t testing.TB, in []series.Chunk, to block.Resolution) []series.Chunk {
	t.Helper()
	out, err := Chunks(in, to)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func check(t *testing.T, points []point, chunks []series.Chunk, res block.Resolution) {
	t.Helper()
	rows := read(t, chunks)
	total := 0.0
	gains := gained(points)
	sample := 0
	for _, w := range rows.windows {
		for sample+1 < len(points) && points[sample+1].t <= w.t {
			sample++
		}
		end := windowEnd(w.t, res)
		want := truth(points, end, res)
		got := w
		got.t, got.counter = end, 0
		if got != want {
			t.Fatalf("window to %d at %s: got %+v, want %+v", end, res, got, want)
		}
		if gain := gains[points[sample].t]; w.counter-rows.firstV != gain {
			t.Fatalf("counter gained by %d at %s: got %v, want %v", w.t, res, w.counter-rows.firstV, gain)
		}
		total += w.count
	}
	if total != float64(len(points)) {
		t.Fatalf("samples at %s: got %v, want %d", res, total, len(points))
	}
	if last := points[len(points)-1]; rows.lastV != last.v || rows.windows[len(rows.windows)-1].t != last.t {
		t.Fatalf("end at %s: got %v at %d, want %v at %d", res, rows.lastV, rows.windows[len(rows.windows)-1].t, last.v, last.t)
	}
	for i, c := range chunks {
		if c.Resolution != int64(res) || c.Encoding != aggrchunk.Encoding {
			t.Fatalf("chunk %d: got resolution %d and encoding %d", i, c.Resolution, c.Encoding)
		}
		if i > 0 && c.MinTime <= chunks[i-1].MaxTime {
			t.Fatalf("chunk %d begins at %d, before the end of the one before at %d", i, c.MinTime, chunks[i-1].MaxTime)
		}
	}
}

func TestChunksAreFilledSensibly(t *testing.T) {
	points := process(rand.New(rand.NewPCG(1, 1)), 14*24*240, true) // 14 days at 15 s
	for res, limit := range map[block.Resolution]int{block.FiveMin: 60, block.OneHour: 4} {
		if got := len(chunksOf(t, rawChunks(t, points), res)); got == 0 || got > limit {
			t.Errorf("chunks at %s for 14 days: got %d, want at most %d", res, got, limit)
		}
	}
}

func TestNumbersThatAreNoneAreLeftOut(t *testing.T) {
	stale := math.Float64frombits(value.StaleNaN)
	in := rawChunks(t, []point{
		{start, stale}, {start + 1000, 2}, {start + 2000, math.NaN()}, {start + 3000, stale}, {start + 4000, 3},
	})
	rows := read(t, chunksOf(t, in, block.FiveMin))
	want := []window{{t: start + 4000, count: 2, sum: 5, min: 2, max: 3, counter: 3}}
	if !reflect.DeepEqual(rows.windows, want) {
		t.Errorf("got %+v, want %+v", rows.windows, want)
	}
	if got := chunksOf(t, rawChunks(t, []point{{start, stale}}), block.FiveMin); len(got) != 0 {
		t.Errorf("a series of stale markers: got %d chunks, want none", len(got))
	}
}

func TestInfinitiesSurvive(t *testing.T) {
	in := rawChunks(t, []point{{start, 1}, {start + 1000, math.Inf(1)}, {start + 2000, 5}})
	rows := read(t, chunksOf(t, in, block.FiveMin))
	if w := rows.windows[0]; w.count != 3 || !math.IsInf(w.max, 1) || w.min != 1 {
		t.Errorf("got %+v, want count 3, min 1, max +Inf", w)
	}
}

func TestTheCoarserResolutionIsRefused(t *testing.T) {
	fine := chunksOf(t, rawChunks(t, []point{{start, 1}}), block.OneHour)
	if _, err := Chunks(fine, block.FiveMin); err == nil {
		t.Error("from 1h to 5m: got no error")
	}
}

func TestARawChunkAmongAggregatesIsBroughtToTheirResolution(t *testing.T) {
	points := process(rand.New(rand.NewPCG(3, 3)), 960, true) // 4 h
	mixed := append(chunksOf(t, rawChunks(t, points[:400]), block.FiveMin), rawChunks(t, points[400:])...)
	total := 0.0
	for _, c := range chunksOf(t, mixed, block.OneHour) {
		for _, w := range read(t, []series.Chunk{c}).windows {
			total += w.count
		}
	}
	if total != float64(len(points)) {
		t.Errorf("samples: got %v, want %d", total, len(points))
	}
}

// histogramChunks encodes histograms one minute apart as float histogram chunks.
func histogramChunks(t testing.TB, hs []*histogram.FloatHistogram) []series.Chunk {
	t.Helper()
	var out []series.Chunk
	var chk chunkenc.Chunk
	var app chunkenc.Appender
	from := 0
	flush := func(end int) {
		if end > from {
			out = append(out, series.Chunk{
				MinTime: start + int64(from)*60_000, MaxTime: start + int64(end-1)*60_000,
				Encoding: chunkenc.EncFloatHistogram, Data: chk.Bytes(),
			})
		}
		from = end
	}
	for i, h := range hs {
		if chk == nil {
			chk = chunkenc.NewFloatHistogramChunk()
			var err error
			if app, err = chk.Appender(); err != nil {
				t.Fatal(err)
			}
		}
		next, recoded, a, err := app.AppendFloatHistogram(nil, 0, start+int64(i)*60_000, h.Copy(), false)
		if err != nil {
			t.Fatal(err)
		}
		if next != nil {
			if !recoded {
				flush(i)
			}
			chk = next
		}
		app = a
	}
	flush(len(hs))
	return out
}

func TestHistogramsAreSummedAndCounted(t *testing.T) {
	for name, make := range map[string]func(i int) *histogram.FloatHistogram{
		"counters": func(i int) *histogram.FloatHistogram { return tsdbutil.GenerateTestFloatHistogram(int64(i % 100)) },
		"gauges":   func(i int) *histogram.FloatHistogram { return tsdbutil.GenerateTestGaugeFloatHistogram(int64(i % 7)) },
		"custom buckets": func(i int) *histogram.FloatHistogram {
			return tsdbutil.GenerateTestCustomBucketsFloatHistogram(int64(i % 50))
		},
		"changing schema": func(i int) *histogram.FloatHistogram {
			h := tsdbutil.GenerateTestFloatHistogram(int64(i))
			if i >= 200 {
				if err := h.ReduceResolution(h.Schema - 1); err != nil {
					t.Fatal(err)
				}
			}
			return h
		},
		"changing bounds": func(i int) *histogram.FloatHistogram {
			h := tsdbutil.GenerateTestCustomBucketsFloatHistogram(int64(i))
			if i >= 33 {
				h.CustomValues = append([]float64{}, h.CustomValues...)
				h.CustomValues[len(h.CustomValues)-1]++
			}
			return h
		},
	} {
		t.Run(name, func(t *testing.T) {
			var hs []*histogram.FloatHistogram
			count, sum := 0.0, 0.0
			for i := range 600 {
				h := make(i)
				hs = append(hs, h)
				count++
				sum += h.Sum
			}
			fine := chunksOf(t, histogramChunks(t, hs), block.FiveMin)
			for res, chunks := range map[block.Resolution][]series.Chunk{
				block.FiveMin: fine, block.OneHour: chunksOf(t, fine, block.OneHour),
			} {
				gotCount, gotSum := 0.0, 0.0
				for _, c := range chunks {
					subs := decode(t, c)
					if subs[aggrchunk.Min].Present() || subs[aggrchunk.Max].Present() || !subs[aggrchunk.Counter].Present() {
						t.Fatalf("aggregates: got %b, want count, sum and counter", subs.Kinds())
					}
					for _, p := range points(t, subs[aggrchunk.Count]) {
						gotCount += p.v
					}
					for _, h := range histograms(t, subs[aggrchunk.Sum]) {
						gotSum += h.Sum
					}
				}
				if gotCount != count || math.Abs(gotSum-sum) > 1e-9*math.Abs(sum) {
					t.Errorf("at %s: got count %v and sum %v, want %v and %v", res, gotCount, gotSum, count, sum)
				}
			}
		})
	}
}

func TestHistogramChunksEndAtResets(t *testing.T) {
	var hs []*histogram.FloatHistogram
	gained := 0.0
	for i := range 600 {
		h := tsdbutil.GenerateTestFloatHistogram(int64(i % 50)) // resets every 50 minutes
		if i%50 != 0 {
			gained -= hs[i-1].Count
		}
		if gained += h.Count; i == 0 {
			gained = 0
		}
		hs = append(hs, h)
	}
	fine := chunksOf(t, histogramChunks(t, hs), block.FiveMin)
	for res, chunks := range map[block.Resolution][]series.Chunk{
		block.FiveMin: fine, block.OneHour: chunksOf(t, fine, block.OneHour),
	} {
		if len(chunks) != 12 {
			t.Fatalf("at %s: got %d chunks, want one for each life of the counter", res, len(chunks))
		}
		total, last := 0.0, hs[0].Count
		for i, c := range chunks {
			subs := decode(t, c)
			counters := histograms(t, subs[aggrchunk.Counter])
			if got := counters[0].CounterResetHint == histogram.CounterReset; got != (i > 0) {
				t.Errorf("at %s, chunk %d: says that a reset precedes it: got %t, want %t", res, i, got, i > 0)
			}
			if got, want := counters[0].Count, hs[i*50].Count; i > 0 && got != want {
				t.Errorf("at %s, chunk %d begins with a count of %v, want the first one scraped, %v", res, i, got, want)
			}
			if got, want := counters[len(counters)-1].Count, hs[i*50+49].Count; got != want {
				t.Errorf("at %s, chunk %d ends with a count of %v, want the last one scraped, %v", res, i, got, want)
			}
			if i > 0 {
				last = 0
			}
			total += counters[len(counters)-1].Count - last
		}
		if total != gained {
			t.Errorf("at %s: the counter gained %v, want %v", res, total, gained)
		}
	}
}

// TestResetsAreSeenAsFalls reads counters like Thanos, which does not know the headers of chunks: a
// process that restarts more often than a window has counted less in each life's first histogram than in the last one before.
func TestResetsAreSeenAsFalls(t *testing.T) {
	var hs []*histogram.FloatHistogram
	gained := 0.0
	for i := range 600 {
		hs = append(hs, tsdbutil.GenerateTestFloatHistogram(int64(i%20*i)))
		switch {
		case i%20 > 0:
			gained += hs[i].Count - hs[i-1].Count
		case i > 0:
			gained += hs[i].Count
		}
	}
	fine := chunksOf(t, histogramChunks(t, hs), block.FiveMin)
	for res, chunks := range map[block.Resolution][]series.Chunk{
		block.FiveMin: fine, block.OneHour: chunksOf(t, fine, block.OneHour),
	} {
		c := tally{last: hs[0]}
		for _, chunk := range chunks {
			counters := histograms(t, decode(t, chunk)[aggrchunk.Counter])
			counters[0].CounterResetHint = histogram.UnknownCounterReset
			for _, h := range counters {
				c.take(h)
			}
		}
		if c.gained != gained {
			t.Errorf("at %s: a reader that knows no headers sees a gain of %v, want %v", res, c.gained, gained)
		}
	}
}

func TestAResetBetweenHistogramsWithoutASumIsKept(t *testing.T) {
	hs := make([]*histogram.FloatHistogram, 20)
	for i := range hs {
		hs[i] = tsdbutil.GenerateTestFloatHistogram(int64(20 + i))
		if i >= 10 {
			hs[i] = tsdbutil.GenerateTestFloatHistogram(int64(i - 10))
		}
	}
	hs[10].Sum = math.NaN() // the first after the reset
	chunks := chunksOf(t, histogramChunks(t, hs), block.FiveMin)
	if len(chunks) != 2 {
		t.Fatalf("got %d chunks, want 2", len(chunks))
	}
	if counters := histograms(t, decode(t, chunks[1])[aggrchunk.Counter]); counters[0].CounterResetHint != histogram.CounterReset {
		t.Error("the chunk after a reset does not say so")
	}
}

func TestTheSameInputGivesTheSameBytes(t *testing.T) {
	points := process(rand.New(rand.NewPCG(9, 9)), 20_000, true)
	a := chunksOf(t, rawChunks(t, points), block.FiveMin)
	b := chunksOf(t, rawChunks(t, points), block.FiveMin)
	if !reflect.DeepEqual(a, b) {
		t.Error("two runs over the same samples differ")
	}
}

type writer struct{ got []string }

func (w *writer) AddSeries(s *series.Series) error {
	w.got = append(w.got, fmt.Sprintf("%s %d", s.Labels, len(s.Chunks)))
	return nil
}

func TestRunLeavesOutSeriesWithoutSamples(t *testing.T) {
	stale := math.Float64frombits(value.StaleNaN)
	set := series.NewSet([]series.Series{
		{Labels: labels.FromStrings("a", "1"), Chunks: rawChunks(t, []point{{start, 1}})},
		{Labels: labels.FromStrings("a", "2"), Chunks: rawChunks(t, []point{{start, stale}})},
		{Labels: labels.FromStrings("a", "3"), Chunks: rawChunks(t, []point{{start, 1}})},
	}, nil)
	var w writer
	if err := Run(t.Context(), set, &w, block.FiveMin); err != nil {
		t.Fatal(err)
	}
	if want := []string{`{a="1"} 1`, `{a="3"} 1`}; !reflect.DeepEqual(w.got, want) {
		t.Errorf("got %q, want %q", w.got, want)
	}
}

func TestDamagedAggregatesAreAnError(t *testing.T) {
	good := chunksOf(t, rawChunks(t, []point{{start, 1}, {start + 400_000, 2}}), block.FiveMin)[0]
	for n := range good.Data {
		c := good
		c.Data = good.Data[:n]
		if _, err := Chunks([]series.Chunk{c}, block.OneHour); err == nil {
			t.Errorf("%d of %d bytes: got no error", n, len(good.Data))
		}
	}
}
