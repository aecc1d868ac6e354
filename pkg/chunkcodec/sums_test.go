package chunkcodec

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// sumsOf are the first n samples of s as Sums gives them.
func sumsOf(s *Samples, n int) *Samples {
	var out Samples
	for i, t := range s.T[:min(n, s.Len())] {
		v := s.V[i]
		switch s.Type(i) {
		case chunkenc.ValHistogram:
			v = s.H[i].Sum
		case chunkenc.ValFloatHistogram:
			v = s.FH[i].Sum
		case chunkenc.ValFloat, chunkenc.ValNone:
		}
		out.AppendFloat(s.Start(i), t, v)
	}
	out.level()
	return &out
}

// mustSum compares Sums with Decode, whole or damaged.
func mustSum(t testing.TB, enc chunkenc.Encoding, data []byte) {
	t.Helper()
	mustSumWith(t, &Decoder{}, enc, data)
}

func mustSumWith(t testing.TB, d *Decoder, enc chunkenc.Encoding, data []byte) {
	t.Helper()
	var all Samples
	err := Decode(enc, data, &all)
	for _, n := range []int{0, 1, 2, 5, math.MaxInt} {
		var got Samples
		refused := d.Sums(enc, data, n, &got)
		if want := min(n, all.Len()); got.Len() < want || err == nil && (refused != nil || got.Len() > want) {
			t.Fatalf("first %d of %d samples of %s: got %d and %v, want %v", n, all.Len(), enc, got.Len(), refused, err)
		}
		if err != nil && n == math.MaxInt && refused == nil {
			t.Fatalf("sums of %d bytes of %s: no error, want %v", len(data), enc, err)
		}
		mustEqual(t, sumsOf(&got, min(n, all.Len())), sumsOf(&all, n))
	}
}

func TestSumsAreThoseOfTheSamples(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 22))
	for _, enc := range encodings {
		for range 30 {
			in := random(r, enc, 1+r.IntN(40))
			for i := range in.T {
				if r.IntN(8) > 0 {
					continue
				}
				switch in.Type(i) {
				case chunkenc.ValHistogram:
					in.H[i] = &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}
				case chunkenc.ValFloatHistogram:
					in.FH[i] = &histogram.FloatHistogram{Sum: math.Float64frombits(value.StaleNaN)}
				case chunkenc.ValFloat, chunkenc.ValNone:
				}
			}
			chunks, err := Append(nil, in)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range chunks {
				mustSum(t, c.Encoding, c.Data)
				for n := range c.Data {
					mustSum(t, c.Encoding, slices.Clip(c.Data[:n]))
				}
			}
		}
	}
}

// TestSumsPassOverLongFields has buckets of every width, and many of them.
func TestSumsPassOverLongFields(t *testing.T) {
	r := rand.New(rand.NewPCG(23, 24))
	for range 200 {
		data := randomChanges(r, 200)
		chunks, err := Append(nil, mixedSamples(data))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range chunks {
			mustSum(t, c.Encoding, c.Data)
		}
	}
	var s Samples
	h := &histogram.Histogram{Sum: 1, PositiveSpans: []histogram.Span{{Length: 130}}, PositiveBuckets: make([]int64, 130)}
	for i := range int64(60) {
		next := *h
		next.PositiveBuckets = slices.Clone(h.PositiveBuckets)
		for j := range next.PositiveBuckets {
			next.PositiveBuckets[j] = r.Int64() >> r.IntN(64)
		}
		next.CounterResetHint = histogram.GaugeType
		s.AppendHistogram(0, i*1000, &next)
	}
	chunks, err := Append(nil, &s)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range chunks {
		mustSum(t, c.Encoding, c.Data)
	}
}

func TestDecoderLendsItsMemoryUntilReset(t *testing.T) {
	r := rand.New(rand.NewPCG(25, 26))
	var d Decoder
	for range 3 {
		chunks, err := Append(nil, mixedSamples(randomChanges(r, 400)))
		if err != nil {
			t.Fatal(err)
		}
		var got, want Samples
		for _, c := range chunks {
			if err := d.Decode(c.Encoding, c.Data, &got); err != nil {
				t.Fatal(err)
			}
			if err := Decode(c.Encoding, c.Data, &want); err != nil {
				t.Fatal(err)
			}
			mustSumWith(t, &d, c.Encoding, c.Data)
		}
		mustEqual(t, &got, &want)
		d.Reset()
	}
}
