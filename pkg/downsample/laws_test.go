package downsample

import (
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
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

// near allows for another order of additions.
func near(a, b, scale float64) bool { return math.Abs(a-b) <= 1e-12*scale }

func TestAnHourFromFiveMinutesIsAnHourFromRaw(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 2))
		var samples []point
		at, v, tiny := int64(start), 0.0, math.Pow(10, float64(r.IntN(8))-4)
		for range r.IntN(8_000) {
			if at += 15_000 + r.Int64N(40); r.IntN(300) == 0 {
				at += r.Int64N(20_000_000)
			}
			if v += r.ExpFloat64() * tiny; r.IntN(400) == 0 {
				v = r.ExpFloat64()
			}
			samples = append(samples, point{at, v})
		}
		if len(samples) == 0 {
			continue
		}
		raw := rawChunks(t, samples)
		want := byEnd(read(t, chunksOf(t, raw, block.OneHour)), block.OneHour)
		got := byEnd(read(t, chunksOf(t, chunksOf(t, raw, block.FiveMin), block.OneHour)), block.OneHour)
		if len(got) != len(want) {
			t.Fatalf("seed %d: got %d windows, want %d", seed, len(got), len(want))
		}
		for end, w := range want {
			g := got[end]
			if g.count != w.count || g.min != w.min || g.max != w.max || !near(g.sum, w.sum, w.sum) || !near(g.counter, w.counter, max(w.counter, w.max)) {
				t.Fatalf("seed %d, window to %d:\n got %+v\nwant %+v", seed, end, g, w)
			}
		}
	}
}

// TestMemoryIsThatOfTheResult goes through series of hundreds and thousands of
// chunks: what is kept beside the result does not grow with them, and another
// series takes no memory at all but for it.
func TestMemoryIsThatOfTheResult(t *testing.T) {
	total := 0.0
	floats := scraped(t, 480_000, func(s *chunkcodec.Samples, i int, at int64) {
		total += float64(i % 50)
		s.AppendFloat(0, at, total)
	})
	h := tsdbutil.GenerateTestHistogram(1)
	histograms := scraped(t, 36_000, func(s *chunkcodec.Samples, _ int, at int64) {
		h = h.Copy()
		h.Count++
		h.ZeroCount++
		s.AppendHistogram(0, at, h)
	})
	for name, tc := range map[string]struct {
		in []series.Chunk
		to block.Resolution
	}{
		"floats":                   {floats, block.FiveMin},
		"histograms":               {histograms, block.FiveMin},
		"aggregates of floats":     {chunksOf(t, floats, block.FiveMin), block.OneHour},
		"aggregates of histograms": {chunksOf(t, histograms, block.FiveMin), block.OneHour},
	} {
		t.Run(name, func(t *testing.T) {
			before := heap()
			d := downsampler{to: tc.to}
			run := func() {
				if err := d.series(tc.in, Decoded{}); err != nil {
					t.Fatal(err)
				}
			}
			run()
			result := 0
			for _, c := range d.out {
				result += cap(c.Data) + 128 // itself, and rounding up
			}
			if kept := heap() - before - 2*int64(result); kept > 1<<20 {
				t.Errorf("kept after %d chunks beside a result of %d bytes: %d bytes, want at most 1 MiB", len(tc.in), result, kept)
			}
			if allocs := testing.AllocsPerRun(1, run); allocs > float64(len(d.out)) {
				t.Errorf("allocations for %d chunks out of %d: got %v, want one each", len(d.out), len(tc.in), allocs)
			}
			runtime.KeepAlive(&d)
		})
	}
}

// heap is what is reachable.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestSeriesLeaveNoTrace compares bytes after other series with those of a fresh start.
func TestSeriesLeaveNoTrace(t *testing.T) {
	d := downsampler{to: block.OneHour}
	for seed := range uint64(2) {
		for _, shape := range shapes() {
			raw := shape.series(t, seed, week)
			for _, in := range [][]series.Chunk{raw, chunksOf(t, raw, block.FiveMin)} {
				if err := d.series(in, Decoded{}); err != nil {
					t.Fatal(err)
				}
				if want := chunksOf(t, in, block.OneHour); !reflect.DeepEqual(d.out, want) {
					t.Fatalf("%s: other bytes than from a fresh start", shape.name)
				}
			}
		}
	}
}

func TestStaleMarkersAndResetsAtChunkBorders(t *testing.T) {
	stale := math.Float64frombits(value.StaleNaN)
	samples := []point{{start, 5}, {start + 15_000, 9}, {start + 30_000, stale}, {start + 45_000, 2}, {start + 60_000, stale}, {start + 400_000, 1}, {start + 415_000, 4}}
	want := reading{
		windows: []window{{start + 299_999, 3, 16, 2, 9, 11}, {start + 415_000, 2, 5, 1, 4, 15}},
		firstV:  5, lastV: 4,
	}
	for cut := 1; cut < len(samples); cut++ {
		in := append(rawChunks(t, samples[:cut]), rawChunks(t, samples[cut:])...)
		if got := read(t, chunksOf(t, in, block.FiveMin)); !reflect.DeepEqual(got, want) {
			t.Errorf("cut after %d samples:\n got %+v\nwant %+v", cut, got, want)
		}
	}
}

// Zeros of either sign are equal, but their bytes are not.
func TestCutsLeaveNoTraceInZeros(t *testing.T) {
	minus := math.Copysign(0, -1)
	for _, vs := range [][]float64{{0, minus}, {minus, 0}, {minus, minus}, {-1, 0, minus}, {minus, 0, 1}, {1, minus, 0}} {
		var samples []point
		for i, v := range vs {
			samples = append(samples, point{start + int64(i)*15_000, v})
		}
		want := chunksOf(t, rawChunks(t, samples), block.FiveMin)
		for cut := 1; cut < len(vs); cut++ {
			in := append(rawChunks(t, samples[:cut]), rawChunks(t, samples[cut:])...)
			if got := chunksOf(t, in, block.FiveMin); !reflect.DeepEqual(got, want) {
				t.Errorf("%v, cut after %d samples: got %x, want %x", vs, cut, got[0].Data, want[0].Data)
			}
		}
	}
}

func TestTheLastWindowEndsWithTheLastSample(t *testing.T) {
	stale := math.Float64frombits(value.StaleNaN)
	in := rawChunks(t, []point{{start, 1}, {start + 15_000, 2}, {start + 300_000, stale}, {start + 900_000, math.NaN()}})
	if got := chunksOf(t, in, block.FiveMin)[0].MaxTime; got != start+15_000 {
		t.Errorf("got %d, want the last number's time %d", got, start+15_000)
	}
}

func TestChunksWithoutSamplesChangeNothing(t *testing.T) {
	in := rawChunks(t, process(rand.New(rand.NewPCG(4, 4)), 500, true))
	want := chunksOf(t, in, block.FiveMin)
	empty := series.Chunk{MinTime: in[0].MaxTime, MaxTime: in[1].MinTime, Encoding: chunkenc.EncHistogram, Data: []byte{0, 0, 0}}
	if got := chunksOf(t, []series.Chunk{in[0], empty, in[1], in[2], in[3]}, block.FiveMin); !reflect.DeepEqual(got, want) {
		t.Error("an empty chunk of histograms among floats changes the result")
	}
	nothing := series.Chunk{Encoding: aggrchunk.Encoding, Resolution: int64(block.FiveMin), Data: aggrchunk.Encode(aggrchunk.Subs{})}
	if got := chunksOf(t, []series.Chunk{nothing}, block.OneHour); len(got) != 0 {
		t.Errorf("nothing downsampled: got %d chunks", len(got))
	}
}

// TestStartTimestampsDoNotChangeTheResult: the header of such chunks of histograms holds more than their number of samples.
func TestStartTimestampsDoNotChangeTheResult(t *testing.T) {
	var plain, started chunkcodec.Samples
	for i := range 3000 {
		h := tsdbutil.GenerateTestHistogram(int64(i % 700))
		plain.AppendHistogram(0, start+int64(i)*60_000, h)
		started.AppendHistogram(start-1, start+int64(i)*60_000, h)
	}
	got, want := chunksOf(t, encoded(t, nil, &started), block.FiveMin), chunksOf(t, encoded(t, nil, &plain), block.FiveMin)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("with start timestamps: got %d other chunks, want %d", len(got), len(want))
	}
}

func TestHistogramsWhoseSumIsNoNumberKeepTheirBuckets(t *testing.T) {
	var hs []*histogram.FloatHistogram
	for i := range 10 {
		h := tsdbutil.GenerateTestFloatHistogram(int64(i))
		h.Sum = math.NaN() // once observed, it stays until the process restarts
		hs = append(hs, h)
	}
	chunks := chunksOf(t, histogramChunks(t, hs), block.FiveMin)
	if len(chunks) != 1 {
		t.Fatalf("got %d chunks, want 1", len(chunks))
	}
	subs := decode(t, chunks[0])
	counters := histograms(t, subs[aggrchunk.Counter])
	if last := counters[len(counters)-1]; len(counters) != 2 || last.Count != hs[9].Count || !math.IsNaN(last.Sum) {
		t.Errorf("got %d windows that end with %v, want 2 that end with %v", len(counters), last, hs[9])
	}
}

// TestACounterBesideItsWindowsIsRead: merging replicas apart from each other
// leaves counters with other times than the other aggregates.
func TestACounterBesideItsWindowsIsRead(t *testing.T) {
	good := chunksOf(t, rawChunks(t, []point{{start, 1}, {start + 200_000, 5}, {start + 500_000, 9}, {start + 700_000, 2}, {start + 800_000, 4}}), block.FiveMin)[0]
	subs := decode(t, good)
	var counter chunkcodec.Samples
	for _, p := range []point{{start, 1}, {start + 250_000, 5}, {start + 599_998, 9}, {start + 799_990, 13}, {start + 799_990, 4}} {
		counter.AppendFloat(0, p.t, p.v)
	}
	data, err := chunkcodec.Encode(chunkenc.EncXOR, &counter, chunkenc.UnknownCounterReset)
	if err != nil {
		t.Fatal(err)
	}
	subs[aggrchunk.Counter].Data = data
	moved := good
	moved.Data = aggrchunk.Encode(subs)
	if got, want := chunksOf(t, []series.Chunk{moved}, block.OneHour), chunksOf(t, []series.Chunk{good}, block.OneHour); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", read(t, got), read(t, want))
	}
}

func TestRunReusesItsMemoryOnlyBetweenCalls(t *testing.T) {
	var in []series.Series
	for i := range 50 {
		in = append(in, series.Series{
			Labels: labels.FromStrings("n", string(rune('A'+i))),
			Chunks: rawChunks(t, process(rand.New(rand.NewPCG(uint64(i), 9)), 3000, i%2 == 0)),
		})
	}
	var w collector
	if err := Run(t.Context(), series.NewSet(in, nil), &w, block.FiveMin); err != nil {
		t.Fatal(err)
	}
	for i, got := range w {
		if want := chunksOf(t, in[i].Chunks, block.FiveMin); !reflect.DeepEqual(got, want) {
			t.Fatalf("series %d: other chunks than alone", i)
		}
	}
}

// TestWhatIsKnownIsNotDecoded takes everything but the numbers of samples from raw chunks of floats, and hands on what came of them.
func TestWhatIsKnownIsNotDecoded(t *testing.T) {
	var hours collector
	hour := New(block.OneHour, &hours)
	minutes := &handedOn{to: hour}
	d := New(block.FiveMin, minutes)
	for seed := range uint64(3) {
		for _, shape := range shapes() {
			raw := shape.series(t, seed, week)
			want := chunksOf(t, raw, block.FiveMin)
			floats := raw[0].Encoding == chunkenc.EncXOR
			var known []chunkcodec.Samples
			if floats {
				known = make([]chunkcodec.Samples, 1+len(raw)/7)
				for i := range raw {
					if err := chunkcodec.Decode(raw[i].Encoding, raw[i].Data, &known[i/7]); err != nil {
						t.Fatal(err)
					}
					raw[i].Data = raw[i].Data[:2]
				}
			}
			hours = nil
			if err := d.AddDecoded(&series.Series{Chunks: raw}, Floats(known)); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(minutes.chunks, want) {
				t.Errorf("%s: other bytes for five minutes where samples are known", shape.name)
			}
			if want := chunksOf(t, want, block.OneHour); !reflect.DeepEqual(hours[0], want) {
				t.Errorf("%s: other bytes for an hour where samples are known", shape.name)
			}
			if rows := len(minutes.known.rows); floats != (rows > 0) || floats && rows != len(want) {
				t.Errorf("%s: rows of %d chunks were handed on, want those of %d if they are floats", shape.name, rows, len(want))
			}
		}
	}
	if n := hour.columns[aggrchunk.Min].Len(); n > 0 {
		t.Errorf("%d windows were decoded that were known", n) // only floats have a minimum
	}
}

// handedOn keeps what it hands to the next resolution.
type handedOn struct {
	to     *Downsampler
	chunks []series.Chunk
	known  Decoded
}

func (w *handedOn) AddSeries(*series.Series) error { return errors.New("the samples were known") }

func (w *handedOn) AddDecoded(s *series.Series, known Decoded) error {
	w.chunks, w.known = slices.Clone(s.Chunks), known
	return w.to.AddDecoded(s, known)
}

// collector keeps the bytes of chunks, but not the slice they came in.
type collector [][]series.Chunk

func (w *collector) AddSeries(s *series.Series) error {
	*w = append(*w, append([]series.Chunk(nil), s.Chunks...))
	return nil
}
