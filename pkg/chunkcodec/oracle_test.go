package chunkcodec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
)

func TestScrapedChunksAreReadAndWrittenLikePrometheus(t *testing.T) {
	var got Samples
	seen := map[chunkenc.Encoding]int{}
	for _, c := range scraped(t) {
		got.Reset()
		if err := Decode(c.enc, c.data, &got); err != nil {
			t.Fatal(err)
		}
		mustEqual(t, &got, decodeOracle(t, c.enc, c.data))
		data, err := Encode(c.enc, &got, ResetHeader(c.enc, c.data))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(data, c.data) {
			t.Fatalf("encoded as %s\n got %x\nwant %x", c.enc, data, c.data)
		}
		seen[c.enc]++
	}
	for _, enc := range encodings {
		if seen[enc] == 0 && os.Getenv("VARVE_CHUNKS") == "" {
			t.Errorf("no chunk of %s among those scraped", enc)
		}
	}
}

func TestEveryCutIsNoticed(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	for _, enc := range encodings {
		t.Run(enc.String(), func(t *testing.T) {
			rounds, most := 20, 60
			if family(enc) != chunkenc.ValFloat {
				rounds, most = 3, 8 // their samples are long
			}
			for range rounds {
				in := random(r, enc, 1+r.IntN(most))
				data := prometheus(t, enc, in)
				want := decodeOracle(t, enc, data)
				for n := range data {
					var got Samples
					if err := Decode(enc, data[:n], &got); !errors.Is(err, ErrInvalid) {
						t.Fatalf("%d of %d bytes, %d of %d samples: got %v, want ErrInvalid", n, len(data), got.Len(), in.Len(), err)
					}
					if diff := difference(&got, first(want, got.Len())); diff != "" {
						t.Fatalf("%d of %d bytes: %s", n, len(data), diff)
					}
				}
			}
		})
	}
}

// first returns the first n samples of s.
func first(s *Samples, n int) *Samples {
	var out Samples
	out.Append(s, 0, n)
	out.level()
	return &out
}

func TestWhatFollowsAChunkIsLeftAlone(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	for _, enc := range encodings {
		in := random(r, enc, 30)
		data := prometheus(t, enc, in)
		var got Samples
		if err := Decode(enc, append(bytes.Clone(data), 0xff, 0xff, 0xff), &got); err != nil {
			t.Fatal(err)
		}
		mustEqual(t, &got, decodeOracle(t, enc, data))
		dst, err := EncodeTo([]byte("before"), enc, in, ResetHeader(enc, data))
		if err != nil {
			t.Fatal(err)
		}
		if want := append([]byte("before"), data...); !bytes.Equal(dst, want) {
			t.Errorf("encoded behind other bytes\n got %x\nwant %x", dst, want)
		}
	}
}

func TestNothingIsAllocatedWhereTheCodecServesAgain(t *testing.T) {
	r := rand.New(rand.NewPCG(15, 16))
	var chunks []encoded
	for _, enc := range encodings {
		for range 3 {
			chunks = append(chunks, encoded{enc, prometheus(t, enc, random(r, enc, MaxSamples))})
		}
	}
	var ints, floats Samples // with custom bounds
	for i := range int64(MaxSamples) {
		ints.AppendHistogram(0, i, tsdbutil.GenerateTestCustomBucketsHistogram(i))
		floats.AppendFloatHistogram(0, i, tsdbutil.GenerateTestCustomBucketsFloatHistogram(i))
	}
	chunks = append(chunks,
		encoded{chunkenc.EncHistogram, prometheus(t, chunkenc.EncHistogram, &ints)},
		encoded{chunkenc.EncFloatHistogram, prometheus(t, chunkenc.EncFloatHistogram, &floats)})

	var out, sums Samples
	var buf []byte
	var d Decoder
	var e Encoder
	n := testing.AllocsPerRun(20, func() {
		d.Reset()
		for _, c := range chunks {
			out.Reset()
			sums.Reset()
			if err := errors.Join(d.Decode(c.enc, c.data, &out), d.Sums(c.enc, c.data, math.MaxInt, &sums)); err != nil {
				t.Fatal(err)
			}
			var err error
			if buf, err = e.EncodeTo(buf[:0], c.enc, &out, chunkenc.UnknownCounterReset); err != nil {
				t.Fatal(err)
			}
		}
	})
	if n != 0 {
		t.Errorf("got %v allocations for %d chunks, want none", n, len(chunks))
	}
}

func TestStartsAreWrittenLikePrometheusWherever(t *testing.T) {
	for _, enc := range []chunkenc.Encoding{chunkenc.EncXOR2, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST} {
		for _, first := range []int64{0, 1000, -5} {
			for _, change := range []int{1, 2, 3, lastChange - 1, lastChange, lastChange + 1, 150, 1000} {
				var in Samples
				for i := range 200 {
					start, at := first, int64(2000+i*15_000)
					if i >= change {
						start = at - int64(i%7)
					}
					switch family(enc) {
					case chunkenc.ValFloat:
						in.AppendFloat(start, at, float64(i/3))
					case chunkenc.ValHistogram:
						in.AppendHistogram(start, at, tsdbutil.GenerateTestHistogram(int64(i/3)))
					case chunkenc.ValFloatHistogram:
						in.AppendFloatHistogram(start, at, tsdbutil.GenerateTestFloatHistogram(int64(i/3)))
					case chunkenc.ValNone:
					}
				}
				data := prometheus(t, enc, &in)
				got, err := Encode(enc, &in, ResetHeader(enc, data))
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, data) {
					t.Errorf("%s, start %d until sample %d: encoded\n got %x\nwant %x", enc, first, change, got, data)
				}
				var out Samples
				if err := Decode(enc, data, &out); err != nil {
					t.Fatal(err)
				}
				mustEqual(t, &out, decodeOracle(t, enc, data))
			}
		}
	}
}

func TestColumnsStayAlignedWhateverIsAppended(t *testing.T) {
	r := rand.New(rand.NewPCG(17, 18))
	var got, want Samples
	for _, enc := range append(slices.Clone(encodings), encodings...) {
		data := prometheus(t, enc, random(r, enc, 5))
		if err := Decode(enc, data, &got); err != nil {
			t.Fatal(err)
		}
		s := decodeOracle(t, enc, data)
		want.Append(s, 0, s.Len())
		mustEqual(t, &got, &want)
	}
}

// TestPrometheusReadsOn shows the three differences between the decoders: what
// is an error here, and samples there.
func TestPrometheusReadsOn(t *testing.T) {
	float := make([]byte, 8)
	for name, tc := range map[string]struct {
		enc  chunkenc.Encoding
		data []byte
	}{
		"a sample beyond the end":                {chunkenc.EncXOR, slices.Concat([]byte{0, 12}, []byte{0xcc, 0x81, 0x80, 0x80, 0x80, 0x40}, float[1:])},
		"a change of more bits than a float has": {chunkenc.EncXOR, slices.Concat([]byte{0, 2, 2}, float, []byte{1, 0b11_11111_1, 0b11111_000}, float, float)},
		"a time of more than 64 bits":            {chunkenc.EncXOR2, slices.Concat([]byte{0, 1, 0}, bytes.Repeat([]byte{0x80}, 9), []byte{0x7e}, float)},
	} {
		t.Run(name, func(t *testing.T) {
			var s Samples
			if err := Decode(tc.enc, tc.data, &s); !errors.Is(err, ErrInvalid) {
				t.Errorf("got %v, want ErrInvalid", err)
			}
			if theirs, err := tryOracle(tc.enc, tc.data); err != nil || theirs.Len() <= s.Len() {
				t.Errorf("Prometheus reads %d samples, %v, we %d: if that is no difference any more it can leave docs/design/0012", theirs.Len(), err, s.Len())
			}
		})
	}
}

func TestHostileChunksTakeMemoryInProportion(t *testing.T) {
	r := rand.New(rand.NewPCG(29, 30))
	random := make([]byte, 4096)
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	for _, enc := range encodings {
		for name, data := range map[string][]byte{
			"zeros": make([]byte, 4096), "ones": bytes.Repeat([]byte{0xff}, 4096), "random": random,
			"one histogram, then zeros": append(prometheus(t, enc, random1(enc)), make([]byte, 4096)...),
		} {
			data = slices.Clone(data)
			binary.BigEndian.PutUint16(data, 0x3fff) // samples
			var s Samples
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := Decode(enc, data, &s)
			runtime.ReadMemStats(&after)
			if got, limit := after.TotalAlloc-before.TotalAlloc, uint64(1<<10*len(data)); got > limit {
				t.Errorf("%s of %s: %d bytes allocated for %d samples (%v), want at most %d", name, enc, got, s.Len(), err, limit)
			}
		}
	}
}

// random1 is one sample of what enc holds.
func random1(enc chunkenc.Encoding) *Samples {
	return random(rand.New(rand.NewPCG(31, 32)), enc, 1)
}

// FuzzDecode compares with Prometheus' iterators. Both give the same samples,
// or ours an error where Prometheus reads on: beyond the end of the data,
// through changes of more bits than a float has, and through times and starts
// of more than 64 bits.
func FuzzDecode(f *testing.F) {
	r := rand.New(rand.NewPCG(9, 10))
	for _, enc := range encodings {
		f.Add(uint8(enc-1), prometheus(f, enc, random(r, enc, 7)))
		f.Add(uint8(enc-1), prometheus(f, enc, random(r, enc, 40)))
	}
	var custom Samples
	custom.AppendHistogram(0, 1, tsdbutil.GenerateTestCustomBucketsHistogram(2))
	f.Add(uint8(chunkenc.EncHistogram-1), prometheus(f, chunkenc.EncHistogram, &custom))
	f.Fuzz(func(t *testing.T, enc uint8, data []byte) {
		e := chunkenc.Encoding(enc%6 + 1)
		var s Samples
		err := Decode(e, data, &s)
		if err != nil && !errors.Is(err, ErrInvalid) {
			t.Fatalf("got %v, want ErrInvalid", err)
		}
		mustSum(t, e, data)
		if _, refused := Open(e, data); refused == nil { // else Prometheus may panic
			want, theirs := tryOracle(e, data)
			if err == nil && theirs != nil {
				t.Fatalf("decoded what Prometheus refuses: %v", theirs)
			}
			if want.Len() < s.Len() {
				t.Fatalf("decoded %d samples, Prometheus %d", s.Len(), want.Len())
			}
			if err != nil {
				want = first(want, s.Len())
			}
			mustEqual(t, &s, want)
		} else if err == nil {
			t.Fatalf("decoded what is not opened: %v", refused)
		}
		if err == nil {
			reencode(t, e, data, &s)
		}
	})
}

// reencode checks that what was decoded from data survives being encoded.
func reencode(t *testing.T, enc chunkenc.Encoding, data []byte, s *Samples) {
	t.Helper()
	chunks, err := Append(nil, s)
	if err != nil {
		t.Fatal(err)
	}
	var back Samples
	for _, c := range chunks {
		if err := Decode(c.Encoding, c.Data, &back); err != nil {
			t.Fatalf("decode what was encoded: %v", err)
		}
	}
	if !slices.Equal(back.T, s.T) || !slices.Equal(bitsOf(back.V), bitsOf(s.V)) {
		t.Fatalf("encoded and decoded\n got %v %v\nwant %v %v", back.T, back.V, s.T, s.V)
	}
	again, err := Encode(enc, s, ResetHeader(enc, data))
	switch {
	case err == nil:
		back.Reset()
		if err := Decode(enc, again, &back); err != nil {
			t.Fatalf("decode what was encoded: %v", err)
		}
		mustEqual(t, positiveZeros(&back), positiveZeros(s))
	case !errors.Is(err, ErrUnfit): // resets inside the chunk, which no writer leaves there
		t.Fatal(err)
	}
	if _, _, err := Transcode(enc, data); err != nil && !errors.Is(err, ErrUnfit) {
		t.Fatal(err)
	}
}

// positiveZeros copies samples whose thresholds and bounds are no negative
// zeros: Prometheus' appender writes positive ones for these.
func positiveZeros(s *Samples) *Samples {
	out := &Samples{T: s.T, V: s.V, ST: s.ST}
	bounds := func(v []float64) (out []float64) {
		for _, b := range v {
			out = append(out, b+0)
		}
		return out
	}
	for _, h := range s.H {
		c := *h
		c.ZeroThreshold, c.CustomValues = h.ZeroThreshold+0, bounds(h.CustomValues)
		out.H = append(out.H, &c)
	}
	for _, h := range s.FH {
		c := *h
		c.ZeroThreshold, c.CustomValues = h.ZeroThreshold+0, bounds(h.CustomValues)
		out.FH = append(out.FH, &c)
	}
	return out
}

// FuzzEncode compares the bytes with those of Prometheus' appenders. Each
// sample is made of a byte that says how it differs from the one before, and
// of as many bytes more as that takes.
func FuzzEncode(f *testing.F) {
	r := rand.New(rand.NewPCG(19, 20))
	for _, n := range []int{0, 1, 9, 400, 2000} {
		data := make([]byte, n)
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := fromBytes(data)
		for _, enc := range []chunkenc.Encoding{chunkenc.EncXOR, chunkenc.EncXOR2} {
			got, err := Encode(enc, s, chunkenc.UnknownCounterReset)
			if err != nil {
				t.Fatal(err)
			}
			if want := prometheus(t, enc, s); !bytes.Equal(got, want) {
				t.Fatalf("encoded as %s\n got %x\nwant %x", enc, got, want)
			}
			var back Samples
			if err := Decode(enc, got, &back); err != nil {
				t.Fatal(err)
			}
			mustEqual(t, &back, decodeOracle(t, enc, got))
		}
	})
}

func fromBytes(data []byte) *Samples {
	s := &Samples{}
	st, t, delta, v := int64(0), int64(0), int64(15_000), uint64(0)
	take := func(n int) uint64 { // the next n bytes as a signed number
		var b [8]byte
		n = copy(b[:n], data)
		data = data[n:]
		u := binary.LittleEndian.Uint64(b[:])
		if n > 0 && n < 8 && b[n-1] >= 0x80 {
			u |= math.MaxUint64 << (8 * n)
		}
		return u
	}
	widths := [8]int{0, 0, 0, 1, 2, 3, 4, 8}
	for len(data) > 0 && s.Len() < 1000 {
		how := take(1)
		delta += int64(take(widths[how&7]))
		t += delta
		switch n := widths[how>>3&7]; how >> 6 & 3 {
		case 0:
			v += take(n)
		case 1:
			v ^= take(n) << (8 * (8 - n))
		case 2:
			v = math.Float64bits(float64(int64(take(n))))
		case 3:
			if n == 3 {
				v = 0x7ff0000000000002 // stale
			}
			st = t - int64(take(n))
		}
		s.AppendFloat(st, t, math.Float64frombits(v))
	}
	return s
}
