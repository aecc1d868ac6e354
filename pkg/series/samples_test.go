package series

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/varve-io/varve/pkg/aggrchunk"
)

type sample struct {
	st, t int64
	v     float64
	h     *histogram.Histogram
}

func encode(t testing.TB, enc chunkenc.Encoding, all ...sample) Chunk {
	t.Helper()
	c, err := chunkenc.NewEmptyChunk(enc)
	if err != nil {
		t.Fatal(err)
	}
	app, err := c.Appender()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.h == nil {
			app.Append(s.st, s.t, s.v)
			continue
		}
		if _, _, _, err := app.AppendHistogram(nil, s.st, s.t, s.h.Copy(), true); err != nil {
			t.Fatal(err)
		}
	}
	return Chunk{MinTime: all[0].t, MaxTime: all[len(all)-1].t, Encoding: enc, Data: c.Bytes()}
}

func floats(t testing.TB, text string) Chunk {
	t.Helper()
	var all []sample
	for field := range strings.FieldsSeq(text) {
		var s sample
		if _, err := fmt.Sscanf(field, "%d=%f", &s.t, &s.v); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return encode(t, chunkenc.EncXOR, all...)
}

func format(t testing.TB, it chunkenc.Iterator) string {
	t.Helper()
	var out []string
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		out = append(out, formatAt(it, typ))
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, " ")
}

func formatAt(it chunkenc.Iterator, typ chunkenc.ValueType) string {
	if typ == chunkenc.ValNone {
		return "none"
	}
	s := ""
	if st := it.AtST(); st != 0 {
		s = fmt.Sprintf("%d>", st)
	}
	switch typ {
	case chunkenc.ValFloat:
		t, v := it.At()
		return s + fmt.Sprintf("%d=%g", t, v)
	case chunkenc.ValHistogram:
		t, h := it.AtHistogram(nil)
		return s + fmt.Sprintf("%d=h%d/%d", t, h.Count, h.CounterResetHint)
	case chunkenc.ValNone, chunkenc.ValFloatHistogram:
	}
	t, h := it.AtFloatHistogram(nil)
	return s + fmt.Sprintf("%d=fh%g/%d", t, h.Count, h.CounterResetHint)
}

func TestSamples(t *testing.T) {
	h := tsdbutil.GenerateTestHistograms(4) // counts 12, 21, 30, 39
	for name, tc := range map[string]struct {
		chunks []Chunk
		want   string
	}{
		"no chunks give nothing":    {nil, ""},
		"chunks follow one another": {[]Chunk{floats(t, "1=1 2=2"), floats(t, "3=3")}, "1=1 2=2 3=3"},
		"overlapping chunks interleave": {
			[]Chunk{floats(t, "1=1 4=4 9=9"), floats(t, "2=2 4=40 6=6"), floats(t, "3=3 5=5")}, "1=1 2=2 3=3 4=4 5=5 6=6 9=9",
		},
		"of equal times the first chunk's sample counts": {[]Chunk{floats(t, "1=1 2=2"), floats(t, "1=10 2=20 3=30")}, "1=1 2=2 3=30"},
		"start timestamps are kept": {
			[]Chunk{encode(t, chunkenc.EncXOR2, sample{st: 5, t: 10, v: 1}, sample{st: 5, t: 20, v: 2}), floats(t, "30=3")}, "5>10=1 5>20=2 30=3",
		},
		"a histogram that follows its predecessor keeps its hint, another does not": {
			[]Chunk{
				encode(t, chunkenc.EncHistogram, sample{t: 1, h: h[0]}, sample{t: 2, h: h[1]}, sample{t: 4, h: h[2]}, sample{t: 5, h: h[3]}),
				floats(t, "3=3"),
			},
			"1=h12/0 2=h21/2 3=3 4=h30/0 5=h39/2",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := format(t, Samples(tc.chunks, math.MinInt64, math.MaxInt64, nil)); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestSamplesKeepsToItsRange(t *testing.T) {
	chunks := []Chunk{floats(t, "1=1 2=2 3=3"), floats(t, "4=4 5=5"), floats(t, "6=6")}
	var it chunkenc.Iterator
	for name, tc := range map[string]struct {
		mint, maxt int64
		want       string
	}{
		"bounds are inclusive":      {2, 5, "2=2 3=3 4=4 5=5"},
		"a range inside one chunk":  {2, 2, "2=2"},
		"a range before everything": {-5, 0, ""},
		"a range after everything":  {7, 9, ""},
	} {
		it = Samples(chunks, tc.mint, tc.maxt, it) // one iterator used again and again
		if got := format(t, it); got != tc.want {
			t.Errorf("%s: got %s, want %s", name, got, tc.want)
		}
	}
}

func TestSeek(t *testing.T) {
	it := Samples([]Chunk{floats(t, "1=1 2=2 8=8"), floats(t, "3=3 4=4"), floats(t, "10=10")}, 0, 100, nil)
	for _, step := range []struct {
		seek int64
		want string
	}{{0, "1=1"}, {1, "1=1"}, {3, "3=3"}, {2, "3=3"}, {5, "8=8"}, {9, "10=10"}, {11, "none"}, {1, "none"}} {
		if got := formatAt(it, it.Seek(step.seek)); got != step.want {
			t.Errorf("seek to %d: got %s, want %s", step.seek, got, step.want)
		}
	}
}

func TestDamageIsAnError(t *testing.T) {
	whole := floats(t, "1=1 2=2 3=3")
	for name, c := range map[string]Chunk{
		"no bytes":            {Encoding: chunkenc.EncXOR},
		"an unknown encoding": {Encoding: 77, Data: whole.Data},
		"a cut chunk":         {Encoding: chunkenc.EncXOR, Data: whole.Data[:len(whole.Data)-2], MaxTime: 3},
		"an aggregate chunk":  {Encoding: aggrchunk.Encoding, Data: aggrchunk.Encode(aggrchunk.Subs{})},
	} {
		c.MaxTime = 3
		it := Samples([]Chunk{c}, 0, 10, nil)
		for it.Next() != chunkenc.ValNone {
		}
		if it.Err() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestSamplesAgainstSorting deals random samples over overlapping chunks.
func TestSamplesAgainstSorting(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for round := range 2000 {
		var chunks []Chunk
		for range r.IntN(5) {
			var all []sample
			for at := int64(r.IntN(30)); len(all) == 0 || r.IntN(6) > 0; at += 1 + int64(r.IntN(8)) {
				all = append(all, sample{t: at, v: float64(r.IntN(1000))})
			}
			chunks = append(chunks, encode(t, chunkenc.EncXOR, all...))
		}
		slices.SortStableFunc(chunks, CompareChunks)
		mint, maxt := int64(r.IntN(20)), int64(20+r.IntN(40))
		if got, want := format(t, Samples(chunks, mint, maxt, nil)), naive(t, chunks, mint, maxt); got != want {
			t.Fatalf("round %d from %d to %d:\ngot  %s\nwant %s", round, mint, maxt, got, want)
		}
	}
}

func naive(t *testing.T, chunks []Chunk, mint, maxt int64) string {
	t.Helper()
	var all []sample
	for _, c := range chunks {
		opened, err := c.Open()
		if err != nil {
			t.Fatal(err)
		}
		for it := opened.Iterator(nil); it.Next() != chunkenc.ValNone; {
			if at, v := it.At(); at >= mint && at <= maxt {
				all = append(all, sample{t: at, v: v})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b sample) int { return cmp.Compare(a.t, b.t) })
	all = slices.CompactFunc(all, func(a, b sample) bool { return a.t == b.t })
	var out []string
	for _, s := range all {
		out = append(out, fmt.Sprintf("%d=%g", s.t, s.v))
	}
	return strings.Join(out, " ")
}

func TestStorageSets(t *testing.T) {
	in := []Series{
		{Labels: labels.FromStrings("a", "1"), Chunks: []Chunk{floats(t, "1=1 2=2"), floats(t, "3=3")}},
		{Labels: labels.FromStrings("a", "2"), Chunks: []Chunk{{Encoding: aggrchunk.Encoding, Data: aggrchunk.Encode(aggrchunk.Subs{})}}},
	}
	set := ToStorageSet(NewSet(in[:1], nil), 2, 3)
	if !set.Next() {
		t.Fatal("no series")
	}
	if got := format(t, set.At().Iterator(nil)); got != "2=2 3=3" || set.At().Labels().Get("a") != "1" {
		t.Errorf("got %s of %s", got, set.At().Labels())
	}
	chunkSet := ToChunkSeriesSet(NewSet(in, nil))
	n := 0
	for chunkSet.Next() {
		it := chunkSet.At().Iterator(nil)
		for it.Next() {
			n++
			if back := FromMeta(it.At(), 0); back.Encoding != it.At().Chunk.Encoding() || back.MinTime != it.At().MinTime {
				t.Errorf("got %v back from %v", back, it.At())
			}
		}
		if it.Err() != nil {
			t.Error(it.Err())
		}
	}
	if n != 3 {
		t.Errorf("got %d chunks, want 3", n)
	}
}
