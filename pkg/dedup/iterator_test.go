package dedup

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
)

// step copies the sample that an iterator stands at; every other time into histograms that were used before.
func step(s *chunkcodec.Samples, it chunkenc.Iterator, typ chunkenc.ValueType) {
	switch typ {
	case chunkenc.ValFloat:
		t, v := it.At()
		s.AppendFloat(it.AtST(), t, v)
	case chunkenc.ValHistogram:
		var h *histogram.Histogram
		if s.Len()%2 == 0 {
			h = &histogram.Histogram{PositiveBuckets: []int64{1, 2, 3}, CustomValues: []float64{4}}
		}
		t, h := it.AtHistogram(h)
		s.AppendHistogram(it.AtST(), t, h)
	case chunkenc.ValFloatHistogram:
		var h *histogram.FloatHistogram
		if s.Len()%2 == 0 {
			h = &histogram.FloatHistogram{NegativeBuckets: []float64{1, 2, 3}}
		}
		t, h := it.AtFloatHistogram(h)
		s.AppendFloatHistogram(it.AtST(), t, h)
	case chunkenc.ValNone:
	}
}

// alike says where two runs of samples part, be they floats or histograms.
func alike(got, want *chunkcodec.Samples) string {
	if d := difference(got, want); d != "" {
		return d
	}
	for i := range want.T {
		switch {
		case got.Type(i) != want.Type(i):
			return "types differ"
		case want.Type(i) == chunkenc.ValHistogram && !sameInt(got.H[i], want.H[i]),
			want.Type(i) == chunkenc.ValFloatHistogram && !sameFloat(got.FH[i], want.FH[i]):
			return "histograms differ"
		}
	}
	return ""
}

func sameInt(a, b *histogram.Histogram) bool {
	return a.Equals(b) && a.CounterResetHint == b.CounterResetHint && math.Float64bits(a.Sum) == math.Float64bits(b.Sum)
}

func sameFloat(a, b *histogram.FloatHistogram) bool {
	return a.Equals(b) && a.CounterResetHint == b.CounterResetHint && math.Float64bits(a.Sum) == math.Float64bits(b.Sum)
}

// TestBothFacesGiveTheSame reads worlds through one iterator after the other, which passes its memory on, in random ranges and
// in stretches of one cell, of two and of all, and compares that with the deduplicated chunks.
func TestBothFacesGiveTheSame(t *testing.T) {
	for _, f := range []Func{Default, Chain, Penalty} {
		faces := []*Iterators{NewIterators(Options{Func: f}), NewIterators(Options{Func: f}), NewIterators(Options{Func: f})}
		faces[0].stretch, faces[1].stretch = Cell, 2*Cell
		var it chunkenc.Iterator
		for seed := range uint64(400) {
			w, r := simulate(seed), rand.New(rand.NewPCG(seed, 61))
			in := w.chunks(t, seed)
			if seed%5 == 0 {
				for i := range in {
					in[i] = w.asHistograms(t, &w.replicas[i])
				}
			}
			if seed%7 == 0 { // in no order
				r.Shuffle(len(in[0]), func(i, j int) { in[0][i], in[0][j] = in[0][j], in[0][i] })
			}
			g := &Group{replicas: in}
			if seed%3 == 0 {
				once, err := Chunks(in, Options{Func: f})
				if err != nil {
					t.Fatal(err)
				}
				g = &Group{replicas: append([][]series.Chunk{once}, in...), merged: true}
			}
			chunks, err := new(deduplicator).chunks(g, Options{Func: f})
			if err != nil {
				t.Fatal(err)
			}
			all := unpack(t, chunks)
			mint, maxt := int64(math.MinInt64), int64(math.MaxInt64)
			if seed%4 > 0 {
				mint = w.begin + r.Int64N(w.end-w.begin)
				maxt = mint + r.Int64N(w.end-mint)
			}
			want := cut(all, mint, saturate(maxt, 1))
			for i, p := range faces {
				it = p.Iterator(g, mint, maxt, it)
				var got chunkcodec.Samples
				for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
					step(&got, it, typ)
				}
				if err := it.Err(); err != nil {
					t.Fatal(err)
				}
				if d := alike(&got, want); d != "" {
					t.Fatalf("seed %d, %s, face %d: %s", seed, f, i, d)
				}
				it = p.Iterator(g, mint, maxt, it)
				seekAround(t, it, want, r)
			}
		}
	}
}

// seekAround mixes Seek and Next and compares where they lead.
func seekAround(t *testing.T, it chunkenc.Iterator, want *chunkcodec.Samples, r *rand.Rand) {
	t.Helper()
	at := -1
	for at < want.Len() {
		var typ chunkenc.ValueType
		var what int64
		if r.IntN(3) == 0 {
			typ = it.Next()
			at++
		} else {
			what = r.Int64N(Cell)
			switch {
			case at >= 0:
				what += want.T[at] - Cell/4
			case want.Len() > 0:
				what += want.T[0] - Cell/2
			}
			typ = it.Seek(what)
			n, _ := slices.BinarySearch(want.T, what)
			at = max(at, n)
		}
		if at == want.Len() {
			if typ != chunkenc.ValNone || it.Next() != chunkenc.ValNone || it.Seek(math.MaxInt64) != chunkenc.ValNone {
				t.Fatalf("behind the last sample stands %s", typ)
			}
			return
		}
		if typ != want.Type(at) || it.AtT() != want.T[at] || it.AtST() != want.Start(at) {
			t.Fatalf("a %s at %d since %d, want a %s at %d since %d (seek %d)", typ, it.AtT(), it.AtST(), want.Type(at), want.T[at], want.Start(at), what)
		}
		var got chunkcodec.Samples
		step(&got, it, typ)
		if d := alike(&got, cut(want, want.T[at], want.T[at]+1)); d != "" {
			t.Fatal(d)
		}
	}
}

func TestAnIteratorSaysWhatItCannotRead(t *testing.T) {
	good := split(t, regular(0, Cell, 15_000), 100)
	for name, bad := range map[string]series.Chunk{
		"floats":     {MaxTime: Cell, Encoding: chunkenc.EncXOR, Data: []byte{0, 9, 1}},
		"histograms": {MaxTime: Cell, Encoding: chunkenc.EncHistogram, Data: []byte{0, 9, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			it := NewIterators(Defaults()).Iterator(&Group{replicas: [][]series.Chunk{{bad}, good}}, 0, Cell, nil)
			if typ := it.Next(); typ != chunkenc.ValNone || it.Err() == nil {
				t.Errorf("got a %s and no error", typ)
			}
			if it.Next() != chunkenc.ValNone || it.Seek(5) != chunkenc.ValNone {
				t.Error("goes on after an error")
			}
		})
	}
}

func TestRawGroupsAreToldFromOthers(t *testing.T) {
	raw := split(t, regular(0, Cell, 15_000), 100)
	coarse := []series.Chunk{{MaxTime: 9, Resolution: 300_000, Encoding: aggrchunk.Encoding}}
	for name, tc := range map[string]struct {
		in   [][]series.Chunk
		want bool
	}{
		"nothing":         {nil, false},
		"raw replicas":    {[][]series.Chunk{raw, raw}, true},
		"aggregates":      {[][]series.Chunk{coarse}, false},
		"one downsampled": {[][]series.Chunk{raw, coarse}, false},
	} {
		if got := (&Group{replicas: tc.in}).Raw(); got != tc.want {
			t.Errorf("%s: %t, want %t", name, got, tc.want)
		}
	}
}
