package chunkcodec

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
)

var encodings = []chunkenc.Encoding{
	chunkenc.EncXOR, chunkenc.EncHistogram, chunkenc.EncFloatHistogram,
	chunkenc.EncXOR2, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST,
}

// random fills n samples that all suit enc: awkward values, times and starts.
func random(r *rand.Rand, enc chunkenc.Encoding, n int) *Samples {
	var s Samples
	awkward := []float64{0, math.Copysign(0, -1), 1, 0.1, math.NaN(), math.Float64frombits(value.StaleNaN), math.Float64frombits(0x7ff8000000000001), math.Inf(1), math.Inf(-1), math.MaxFloat64}
	t, st, v := int64(r.IntN(1000)), int64(0), 0.0
	for range n {
		t += []int64{15000, 15000, 15001, 14999, 1, 1 << 40}[r.IntN(6)]
		if enc >= chunkenc.EncXOR2 && r.IntN(3) == 0 {
			st = t - int64(r.IntN(5))*7000
		}
		switch v += float64(r.IntN(3)); family(enc) {
		case chunkenc.ValFloat:
			if r.IntN(4) == 0 {
				s.AppendFloat(st, t, awkward[r.IntN(len(awkward))])
			} else {
				s.AppendFloat(st, t, v)
			}
		case chunkenc.ValHistogram:
			s.AppendHistogram(st, t, tsdbutil.GenerateTestHistogram(int64(v)))
		case chunkenc.ValFloatHistogram:
			s.AppendFloatHistogram(st, t, tsdbutil.GenerateTestFloatHistogram(int64(v)))
		case chunkenc.ValNone:
		}
	}
	return &s
}

// prometheus encodes with Prometheus' own appender.
func prometheus(t testing.TB, enc chunkenc.Encoding, s *Samples) []byte {
	t.Helper()
	c, err := chunkenc.NewEmptyChunk(enc)
	if err != nil {
		t.Fatal(err)
	}
	return appendAll(t, c, s).Bytes()
}

// appendAll returns the chunk that holds the samples in the end.
func appendAll(t testing.TB, c chunkenc.Chunk, s *Samples) chunkenc.Chunk {
	t.Helper()
	app, err := c.Appender()
	if err != nil {
		t.Fatal(err)
	}
	var h histogram.Histogram // the appender widens what it is given
	var fh histogram.FloatHistogram
	for i := range s.T {
		switch s.Type(i) {
		case chunkenc.ValFloat:
			app.Append(s.Start(i), s.T[i], s.V[i])
		case chunkenc.ValHistogram:
			h = *s.H[i]
			_, _, _, err = app.AppendHistogram(nil, s.Start(i), s.T[i], &h, true)
		case chunkenc.ValFloatHistogram:
			fh = *s.FH[i]
			_, _, _, err = app.AppendFloatHistogram(nil, s.Start(i), s.T[i], &fh, true)
		case chunkenc.ValNone:
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func bitsOf(v []float64) (out []uint64) {
	for _, f := range v {
		out = append(out, math.Float64bits(f))
	}
	return out
}

func TestRoundTripsKeepEveryBit(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, enc := range encodings {
		t.Run(enc.String(), func(t *testing.T) {
			for range 200 {
				in := random(r, enc, r.IntN(150))
				data := prometheus(t, enc, in)
				var out Samples
				if err := Decode(enc, data, &out); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(out.T, in.T) || !slices.Equal(bitsOf(out.V), bitsOf(in.V)) {
					t.Fatalf("decoded\n got %v %v\nwant %v %v", out.T, out.V, in.T, in.V)
				}
				for i := range in.T {
					if out.Start(i) != in.Start(i) && enc >= chunkenc.EncXOR2 {
						t.Fatalf("start %d: got %d, want %d", i, out.Start(i), in.Start(i))
					}
				}
				again, err := Encode(enc, &out, ResetHeader(enc, data))
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(again, data) {
					t.Fatalf("encoded\n got %x\nwant %x", again, data)
				}
			}
		})
	}
}

func TestHistogramsOfEveryKindRoundTrip(t *testing.T) {
	for name, h := range map[string]*histogram.Histogram{
		"exponential":    tsdbutil.GenerateTestHistogram(3),
		"gauge":          tsdbutil.GenerateTestGaugeHistogram(3),
		"custom buckets": tsdbutil.GenerateTestCustomBucketsHistogram(3),
		"stale marker":   {Sum: math.Float64frombits(value.StaleNaN)},
		"empty":          {},
	} {
		t.Run(name, func(t *testing.T) {
			var in Samples
			in.AppendHistogram(0, 1, h)
			in.AppendHistogram(0, 2, h)
			for _, reset := range []chunkenc.CounterResetHeader{chunkenc.UnknownCounterReset, chunkenc.CounterReset, chunkenc.NotCounterReset} {
				if h.CounterResetHint == histogram.GaugeType {
					reset = chunkenc.GaugeType
				}
				data, err := Encode(chunkenc.EncHistogram, &in, reset)
				if err != nil {
					t.Fatal(err)
				}
				if got := ResetHeader(chunkenc.EncHistogram, data); got != reset {
					t.Errorf("reset header: got %v, want %v", got, reset)
				}
				var out Samples
				if err := Decode(chunkenc.EncHistogram, data, &out); err != nil {
					t.Fatal(err)
				}
				if out.Len() != 2 || !out.H[1].Equals(h) && !value.IsStaleNaN(h.Sum) {
					t.Errorf("got %v, want %v", out.H, h)
				}
			}
		})
	}
}

func TestTranscode(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	want := map[chunkenc.Encoding]chunkenc.Encoding{
		chunkenc.EncXOR: chunkenc.EncXOR, chunkenc.EncHistogram: chunkenc.EncHistogram, chunkenc.EncFloatHistogram: chunkenc.EncFloatHistogram,
		chunkenc.EncXOR2: chunkenc.EncXOR, chunkenc.EncHistogramST: chunkenc.EncHistogram, chunkenc.EncFloatHistogramST: chunkenc.EncFloatHistogram,
	}
	for _, enc := range encodings {
		in := random(r, enc, 100)
		data := prometheus(t, enc, in)
		in.ST = nil
		to, got, err := Transcode(enc, data)
		if err != nil || to != want[enc] {
			t.Fatalf("%s: got %s, %v", enc, to, err)
		}
		if !bytes.Equal(got, prometheus(t, to, in)) {
			t.Errorf("%s: the bytes differ from what Prometheus writes as %s", enc, to)
		}
	}
	if _, _, err := Transcode(chunkenc.EncXOR2, []byte{0, 9, 0, 1}); !errors.Is(err, ErrInvalid) {
		t.Errorf("damage: got %v, want ErrInvalid", err)
	}
}

func TestAppendCutsLikePrometheus(t *testing.T) {
	floats := func(s *Samples, n int, st int64) {
		for range n {
			s.AppendFloat(st, int64(s.Len()), 1)
		}
	}
	histograms := func(s *Samples, counts ...int64) {
		for _, c := range counts {
			s.AppendHistogram(0, int64(s.Len()), tsdbutil.GenerateTestHistogram(c))
		}
	}
	type cut struct {
		enc        chunkenc.Encoding
		mint, maxt int64
	}
	for name, tc := range map[string]struct {
		build func(*Samples)
		want  []cut
	}{
		"nothing gives no chunk": {func(*Samples) {}, nil},
		"120 samples are full":   {func(s *Samples) { floats(s, 250, 0) }, []cut{{chunkenc.EncXOR, 0, 119}, {chunkenc.EncXOR, 120, 239}, {chunkenc.EncXOR, 240, 249}}},
		"floats and histograms part": {
			func(s *Samples) { floats(s, 2, 0); histograms(s, 1, 2); floats(s, 1, 0) },
			[]cut{{chunkenc.EncXOR, 0, 1}, {chunkenc.EncHistogram, 2, 3}, {chunkenc.EncXOR, 4, 4}},
		},
		"a start timestamp begins XOR2, which then stays": {
			func(s *Samples) { floats(s, 2, 0); floats(s, 2, 7); floats(s, 2, 0) },
			[]cut{{chunkenc.EncXOR, 0, 1}, {chunkenc.EncXOR2, 2, 5}},
		},
		"a histogram that was reset begins a chunk": {
			func(s *Samples) { histograms(s, 1, 5, 2, 3) },
			[]cut{{chunkenc.EncHistogram, 0, 1}, {chunkenc.EncHistogram, 2, 3}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var s Samples
			tc.build(&s)
			chunks, err := Append(nil, &s)
			if err != nil {
				t.Fatal(err)
			}
			var got []cut
			var back Samples
			for _, c := range chunks {
				got = append(got, cut{c.Encoding, c.MinTime, c.MaxTime})
				if err := Decode(c.Encoding, c.Data, &back); err != nil {
					t.Fatal(err)
				}
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
			if !slices.Equal(back.T, s.T) || !slices.Equal(back.V, s.V) {
				t.Errorf("decoded %v %v, want %v %v", back.T, back.V, s.T, s.V)
			}
		})
	}
}

func TestAppendLeavesHistogramsAlone(t *testing.T) {
	wide, narrow := tsdbutil.GenerateTestHistogram(5), tsdbutil.GenerateTestHistogram(9)
	narrow.PositiveSpans, narrow.PositiveBuckets = nil, nil
	want := narrow.Copy()
	var s Samples
	wide.CounterResetHint, narrow.CounterResetHint, want.CounterResetHint = histogram.GaugeType, histogram.GaugeType, histogram.GaugeType
	s.AppendHistogram(0, 1, wide)
	s.AppendHistogram(0, 2, narrow)
	if _, err := Append(nil, &s); err != nil {
		t.Fatal(err)
	}
	if len(narrow.PositiveSpans) != len(want.PositiveSpans) || len(narrow.PositiveBuckets) != 0 {
		t.Errorf("the caller's histogram was widened: %v", narrow)
	}
}

func TestEncodeRefusesWhatDoesNotFit(t *testing.T) {
	var mixed, reset, many Samples
	mixed.AppendFloat(0, 1, 1)
	mixed.AppendHistogram(0, 2, tsdbutil.GenerateTestHistogram(1))
	reset.AppendHistogram(0, 1, tsdbutil.GenerateTestHistogram(5))
	reset.AppendHistogram(0, 2, tsdbutil.GenerateTestHistogram(1))
	for i := range math.MaxUint16 + 1 {
		many.AppendFloat(0, int64(i), 0)
	}
	for name, tc := range map[string]struct {
		enc chunkenc.Encoding
		s   *Samples
	}{
		"floats among histograms":        {chunkenc.EncXOR, &mixed},
		"a reset inside":                 {chunkenc.EncHistogram, &reset},
		"more samples than can be count": {chunkenc.EncXOR, &many},
	} {
		if _, err := Encode(tc.enc, tc.s, chunkenc.UnknownCounterReset); !errors.Is(err, ErrUnfit) {
			t.Errorf("%s: got %v, want ErrUnfit", name, err)
		}
	}
}

func TestSamplesKeepTheirColumnsAligned(t *testing.T) {
	var a, b Samples
	a.AppendFloat(0, 1, 1)
	b.AppendFloat(9, 2, 2)
	b.AppendFloatHistogram(0, 3, tsdbutil.GenerateTestFloatHistogram(1))
	b.AppendHistogram(0, 4, tsdbutil.GenerateTestHistogram(1))
	a.Append(&b, 0, 3)
	a.Append(&Samples{T: []int64{5}, V: []float64{5}}, 0, 1)
	if a.Len() != 5 || len(a.V) != 5 || len(a.ST) != 5 || len(a.H) != 5 || len(a.FH) != 5 {
		t.Fatalf("columns of different lengths: %+v", a)
	}
	var types []chunkenc.ValueType
	for i := range a.T {
		types = append(types, a.Type(i))
	}
	if want := []chunkenc.ValueType{1, 1, 3, 2, 1}; !slices.Equal(types, want) {
		t.Errorf("types: got %v, want %v", types, want)
	}
	if a.Start(0) != 0 || a.Start(1) != 9 || a.Start(4) != 0 {
		t.Errorf("starts: got %v", a.ST)
	}
	if a.Reset(); a.Len() != 0 || len(a.H) != 0 {
		t.Errorf("after a reset: %+v", a)
	}
}

func TestOpenRefusesDamage(t *testing.T) {
	var s Samples
	s.AppendHistogram(0, 1, tsdbutil.GenerateTestHistogram(1))
	h := prometheus(t, chunkenc.EncHistogram, &s)
	for name, tc := range map[string]struct {
		enc  chunkenc.Encoding
		data []byte
	}{
		"no bytes":                          {chunkenc.EncXOR, nil},
		"half a sample count":               {chunkenc.EncXOR, []byte{0}},
		"more floats than fit":              {chunkenc.EncXOR, append([]byte{0, 50}, make([]byte, 20)...)},
		"more floats than fit in XOR2":      {chunkenc.EncXOR2, append([]byte{1, 50, 0}, make([]byte, 20)...)},
		"more histograms than fit":          {chunkenc.EncHistogram, append([]byte{99}, h[1:]...)},
		"no start-timestamp byte":           {chunkenc.EncXOR2, []byte{0, 1}},
		"no flags":                          {chunkenc.EncHistogram, []byte{0, 1}},
		"a histogram without a layout":      {chunkenc.EncHistogram, []byte{0, 1, 0}},
		"a layout that is cut off":          {chunkenc.EncHistogram, h[:6]},
		"a span of four billion buckets":    {chunkenc.EncHistogram, []byte{0, 1, 0, 0, 0x5f, 0xe0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}},
		"no encoding":                       {chunkenc.EncNone, []byte{0, 0, 0}},
		"an encoding that nobody has heard": {99, []byte{0, 0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Open(tc.enc, tc.data); !errors.Is(err, ErrInvalid) {
				t.Errorf("got %v, want ErrInvalid", err)
			}
		})
	}
}
