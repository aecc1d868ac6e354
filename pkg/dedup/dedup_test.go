package dedup

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
)

// regular has a sample each step from start to end.
func regular(start, end, step int64) *chunkcodec.Samples {
	var s chunkcodec.Samples
	for at := start; at < end; at += step {
		s.AppendFloat(0, at, float64(at))
	}
	return &s
}

// split cuts samples into chunks of n.
func split(t testing.TB, s *chunkcodec.Samples, n int) (out []series.Chunk) {
	t.Helper()
	for from := 0; from < s.Len(); from += n {
		out = append(out, chunk(t, s, from, min(from+n, s.Len())))
	}
	return out
}

func TestAHealthyFirstReplicaPassesAsBytes(t *testing.T) {
	a := split(t, regular(0, 2*Cell, 15_000), 100)
	b := split(t, regular(7_000, 2*Cell, 15_000), 90)
	if got := dedupe(t, a, b); !sameBytes(got, a) {
		t.Errorf("got %d chunks, want the %d of the first replica", len(got), len(a))
	}
}

// decoded are the chunks of each replica that Chunks decodes.
func decoded(t testing.TB, replicas ...[]series.Chunk) (counts []int) {
	t.Helper()
	var d deduplicator
	if _, err := d.chunks(&Group{replicas: replicas}, Defaults()); err != nil {
		t.Fatal(err)
	}
	for _, r := range d.reps {
		counts = append(counts, r.decoded)
	}
	return counts
}

// TestOtherReplicasAreDecodedInHolesOnly cuts chunks as Prometheus does, which
// begins one at each edge of a cell. There are four of 120 samples in each.
func TestOtherReplicasAreDecodedInHolesOnly(t *testing.T) {
	const start, end = 20 * Cell, 24 * Cell
	jittered := func(phase int64, missed ...int64) []series.Chunk {
		r := rand.New(rand.NewPCG(41, uint64(phase)))
		var s chunkcodec.Samples
		for at := start + phase; at < end; at += 15_000 {
			at2 := at + r.Int64N(400)
			if !slices.Contains(missed, at/15_000-start/15_000) {
				s.AppendFloat(0, at2, float64(at2))
			}
		}
		var out []series.Chunk
		for from := start; from < end; from += Cell / 4 {
			part := cut(&s, from, from+Cell/4)
			out = append(out, chunk(t, part, 0, part.Len()))
		}
		return out
	}
	row := func(from, to int64) (out []int64) {
		for i := from; i < to; i++ {
			out = append(out, i)
		}
		return out
	}
	whole, other, third := jittered(1_000), jittered(7_000), jittered(12_000)
	for name, tc := range map[string]struct {
		in   [][]series.Chunk
		want []int
	}{
		"two replicas without holes":                  {[][]series.Chunk{whole, other}, []int{16, 0}},
		"three replicas without holes":                {[][]series.Chunk{whole, other, third}, []int{16, 0, 0}},
		"a hole inside a chunk":                       {[][]series.Chunk{jittered(1_000, row(30, 40)...), other, third}, []int{16, 1, 0}},
		"a missed scrape":                             {[][]series.Chunk{jittered(1_000, 31), other}, []int{16, 1}},
		"a hole over the border of two chunks":        {[][]series.Chunk{jittered(1_000, row(110, 130)...), other}, []int{16, 2}},
		"the first replica is down at a cell's start": {[][]series.Chunk{jittered(1_000, row(480, 500)...), other}, []int{16, 1}},
		"the first replica misses a whole cell, where the other is lone": {
			[][]series.Chunk{slices.Concat(whole[:4], whole[8:]), other}, []int{12, 2},
		},
		"a hole of the other replica, which could hide a higher density": {
			[][]series.Chunk{whole, jittered(7_000, row(30, 40)...)}, []int{16, 4},
		},
		"the other replica ends, and the first is only looked at beside edges": {[][]series.Chunk{whole, other[:6]}, []int{11, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := decoded(t, tc.in...); !slices.Equal(got, tc.want) {
				t.Errorf("decoded %v chunks, want %v", got, tc.want)
			}
		})
	}
}

func TestOnlyTheChunksAroundAHoleAreWrittenAnew(t *testing.T) {
	whole := regular(0, Cell, 15_000)
	var holed chunkcodec.Samples
	holed.Append(whole, 0, 250)
	holed.Append(whole, 260, whole.Len())
	a := split(t, &holed, 100)
	got := dedupe(t, a, split(t, regular(7_000, Cell, 15_000), 100))
	for _, i := range []int{0, 1, 3} {
		if !slices.ContainsFunc(got, func(c series.Chunk) bool { return bytes.Equal(c.Data, a[i].Data) }) {
			t.Errorf("chunk %d of the first replica, which has no hole, was written anew", i)
		}
	}
	if n := unpack(t, got).Len(); n != 470+10 {
		t.Errorf("got %d samples, want 480", n)
	}
}

func TestChunksWrittenAnewEndAtTheEdgesOfCells(t *testing.T) {
	whole := regular(0, 2*Cell, 15_000)
	holed := cut(whole, 0, Cell-100_000)
	holed.Append(cut(whole, Cell+100_000, 2*Cell), 0, cut(whole, Cell+100_000, 2*Cell).Len())
	for _, c := range dedupe(t, stored(t, holed), stored(t, regular(7_000, 2*Cell, 15_000))) {
		if cellStart(c.MinTime) != cellStart(c.MaxTime) {
			t.Errorf("a chunk reaches from %d to %d, over an edge", c.MinTime, c.MaxTime)
		}
	}
}

// TestAnEdgeDependsOnTheCellBeforeAlone has a cell whose first sample goes for the sake of the cell before
// it. If it counted in the rhythm before the next edge, a query that does not reach back there would keep a sample more.
func TestAnEdgeDependsOnTheCellBeforeAlone(t *testing.T) {
	s := regular(Cell-600_000-10_000, Cell, 60_000)
	for _, at := range []int64{1_000, 60_000, 120_000, 180_000, Cell - 10_000} {
		s.AppendFloat(0, Cell+at, 0)
	}
	later := regular(2*Cell+19_750, 2*Cell+1_200_000, 60_000)
	s.Append(later, 0, later.Len())
	in := [][]series.Chunk{stored(t, s)}
	lo, hi := Widen(2*Cell, 3*Cell)
	part := cut(unpack(t, dedupe(t, within(in, lo, hi)...)), 2*Cell, 3*Cell)
	whole := unpack(t, dedupe(t, in...))
	if d := difference(part, cut(whole, 2*Cell, 3*Cell)); d != "" {
		t.Errorf("a query of the last cell: %s", d)
	}
	if slices.Contains(whole.T, Cell+1_000) || slices.Contains(whole.T, later.T[0]) {
		t.Error("a sample behind an edge was kept, so nothing was tested")
	}
}

func TestALoneReplicaIsOnlyDecodedWhereItHasTo(t *testing.T) {
	a := split(t, regular(0, 3*Cell, 15_000), 120)
	if got := dedupe(t, a); !sameBytes(got, a) {
		t.Error("a lone replica was changed")
	}
	if got := decoded(t, a); got[0] != 4 {
		t.Errorf("decoded %d chunks, want the 4 beside the two edges", got[0])
	}
}

// TestChunksThatAreNotWhereTheySay checks that samples are sorted wherever they come from.
func TestChunksThatAreNotWhereTheySay(t *testing.T) {
	s := regular(0, 2*Cell, 15_000)
	other := split(t, regular(7_000, 2*Cell, 15_000), 60)
	for name, lie := range map[string]func(c []series.Chunk){
		"times that are too narrow": func(c []series.Chunk) { c[3].MaxTime -= 30_000 },
		"times of another chunk":    func(c []series.Chunk) { c[3].Data, c[5].Data = c[5].Data, c[3].Data },
		"times that are too wide":   func(c []series.Chunk) { c[15].MaxTime = math.MaxInt64 },
	} {
		a := split(t, s, 60)
		lie(a)
		if d := difference(unpack(t, dedupe(t, a, other)), s); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestOverlappingChunksOfOneReplicaBecomeOne(t *testing.T) {
	s := regular(0, Cell/2, 15_000)
	a := append(split(t, s, 70), split(t, s, 50)...)
	if d := difference(unpack(t, dedupe(t, a)), s); d != "" {
		t.Error(d)
	}
	if d := difference(unpack(t, dedupe(t, a, split(t, regular(5_000, Cell/2, 15_000), 60))), s); d != "" {
		t.Error(d)
	}
}

func TestWiden(t *testing.T) {
	for name, tc := range map[string]struct{ mint, maxt, lo, hi int64 }{
		"the inside of a cell":                    {Cell + edgeReach, Cell + edgeReach, Cell, 2*Cell - 1},
		"the beginning of a cell needs the last":  {Cell + 1, Cell + 1, 0, 2*Cell - 1},
		"times before 1970":                       {-1, -1, -Cell, -1},
		"a range that is open on both sides":      {math.MinInt64, math.MaxInt64, math.MinInt64, math.MaxInt64},
		"the first and the last moment of a cell": {Cell, 2*Cell - 1, 0, 2*Cell - 1},
	} {
		if lo, hi := Widen(tc.mint, tc.maxt); lo != tc.lo || hi != tc.hi {
			t.Errorf("%s: got %d to %d, want %d to %d", name, lo, hi, tc.lo, tc.hi)
		}
	}
}

func TestNothingGivesNothing(t *testing.T) {
	for _, in := range [][][]series.Chunk{nil, {nil}, {nil, nil}} {
		if got := dedupe(t, in...); len(got) != 0 {
			t.Errorf("got %v", got)
		}
	}
}

func TestDamageIsAnError(t *testing.T) {
	good := split(t, regular(0, Cell, 15_000), 100)
	for name, c := range map[string]series.Chunk{
		"a cut chunk":                      {MinTime: 5, MaxTime: 99, Encoding: chunkenc.EncXOR, Data: good[0].Data[:20]},
		"an unknown encoding":              {MinTime: 5, MaxTime: 99, Encoding: 42, Data: good[0].Data},
		"an aggregate chunk of raw series": {MinTime: 5, MaxTime: 99, Encoding: aggrchunk.Encoding, Data: make([]byte, 5)},
	} {
		if _, err := Chunks([][]series.Chunk{good, {c}}, Defaults()); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestChainTakesEverySample(t *testing.T) {
	a, b := regular(0, 100_000, 10_000), regular(5_000, 100_000, 5_000)
	b.V[1] = -1 // at 10 s, where the first replica has a sample, too
	got, err := Chunks([][]series.Chunk{split(t, a, 10), split(t, b, 10)}, Options{Func: Chain})
	if err != nil {
		t.Fatal(err)
	}
	if d := difference(unpack(t, got), regular(0, 100_000, 5_000)); d != "" {
		t.Error(d)
	}
}

func TestPenaltyStaysWithASideUntilItIsLate(t *testing.T) {
	for name, tc := range map[string]struct{ a, b, want []int64 }{
		"a regular side is kept":                              {[]int64{0, 15, 30, 45, 60}, []int64{4, 19, 34, 49}, []int64{0, 15, 30, 45, 60}},
		"the side that comes 5 s later is taken at the start": {[]int64{0, 15, 30, 45}, []int64{7, 22, 37, 52}, []int64{0, 7, 22, 37, 52}},
		"a hole is filled two distances late":                 {[]int64{0, 15, 30, 150, 165, 180}, []int64{4, 19, 34, 49, 64, 79, 94, 109, 124, 139}, []int64{0, 15, 30, 64, 79, 94, 109, 124, 139, 180}},
		"one empty side leaves the other alone":               {nil, []int64{1, 2, 3}, []int64{1, 2, 3}},
	} {
		t.Run(name, func(t *testing.T) {
			var reps []*replica
			for _, times := range [][]int64{tc.a, tc.b} {
				r := &replica{}
				for _, at := range times {
					r.s.AppendFloat(0, at*1000, 0)
				}
				reps = append(reps, r)
			}
			var got []int64
			for _, r := range penalty(reps) {
				got = append(got, reps[r.rep].s.T[r.i]/1000)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestParseFunc(t *testing.T) {
	for name, want := range map[string]Func{"": Default, "default": Default, "chain": Chain, "penalty": Penalty} {
		if got, err := ParseFunc(name); err != nil || got != want {
			t.Errorf("%q: got %s, %v", name, got, err)
		}
	}
	if _, err := ParseFunc("magic"); err == nil {
		t.Error("magic was accepted")
	}
	if (Options{Func: 9}).Validate() == nil || Defaults().Validate() != nil {
		t.Error("options are not checked")
	}
}

// TestStartTimestampsTellARestart has clocks that differ by 0.6 intervals, more than
// what can be told from times alone.
func TestStartTimestampsTellARestart(t *testing.T) {
	const step, skew = 15_000, 9_000
	scraped := func(phase, ahead, shown, restart int64, missed func(at int64) bool) *chunkcodec.Samples {
		var s chunkcodec.Samples
		for at := phase; at < 1_200_000; at += step {
			began := int64(1)
			if at >= restart {
				began = restart
			}
			if !missed(at) {
				s.AppendFloat(shown*began, at+ahead, float64(at-began))
			}
		}
		return &s
	}
	for name, tc := range map[string]struct {
		restart      int64
		phase, ahead int64  // of the second replica
		want         [2]int // restarts to be seen, without start timestamps and with them
	}{
		"none":                            {math.MaxInt64, 14_000, skew, [2]int{0, 0}},
		"in the hole":                     {610_000, 14_000, skew, [2]int{1, 1}},
		"just before the hole":            {584_500, 14_000, skew, [2]int{2, 1}},
		"just behind the end of the hole": {705_500, 1_000, -skew, [2]int{2, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			for shown, want := range tc.want {
				a := scraped(0, 0, int64(shown), tc.restart, func(at int64) bool { return at >= 600_000 && at < 705_000 })
				b := scraped(tc.phase, tc.ahead, int64(shown), tc.restart, func(int64) bool { return false })
				got := unpack(t, dedupe(t, split(t, a, 50), split(t, b, 50)))
				seen := 0
				for i := 1; i < got.Len(); i++ {
					if got.V[i] < got.V[i-1]-skew { // less is the clocks' doing
						seen++
					}
				}
				if seen != want {
					t.Errorf("start timestamps %d: the process begins anew %d times, want %d: %s", shown, seen, want, text(cut(got, 550_000, 750_000)))
				}
				if _, longest := extent(got.T); longest > 2*step {
					t.Errorf("start timestamps %d: a hole of %d ms is left", shown, longest)
				}
			}
		})
	}
}

// TestStartTimestampsLeaveNoHoles has what carries start timestamps and is no counter, and starts that each replica guessed.
func TestStartTimestampsLeaveNoHoles(t *testing.T) {
	const step = 15_000
	scraped := func(phase int64, value float64, start, from, to int64) *chunkcodec.Samples {
		var s chunkcodec.Samples
		for at := phase; at < 1_200_000; at += step {
			if at < from || at >= to {
				s.AppendFloat(start, at, value)
			}
		}
		return &s
	}
	for name, tc := range map[string]struct {
		values [2]float64
		starts [2]int64
		hole   int64
		tell   bool // whether the starts may change the choice
	}{
		"a gauge that falls":                {[2]float64{9, 1}, [2]int64{1, 1}, 75_000, false},
		"a gauge that rises":                {[2]float64{1, 9}, [2]int64{1, 1}, 75_000, false},
		"a gauge that misses a scrape":      {[2]float64{9, 1}, [2]int64{1, 1}, step, false},
		"a gauge of a young process":        {[2]float64{9, 1}, [2]int64{584_000, 584_000}, 75_000, false},
		"both guessed long before":          {[2]float64{9, 1}, [2]int64{400_000, 1}, 75_000, false},
		"the first replica guesses later":   {[2]float64{9, 1}, [2]int64{595_000, 1}, 75_000, true},
		"the second replica guesses later":  {[2]float64{9, 1}, [2]int64{1, 670_000}, 75_000, true},
		"a later guess and a missed scrape": {[2]float64{9, 1}, [2]int64{590_000, 1}, step, true},
	} {
		t.Run(name, func(t *testing.T) {
			for phase := int64(500); phase < step; phase += 1000 {
				a := scraped(0, tc.values[0], tc.starts[0], 600_000, 600_000+tc.hole)
				b := scraped(phase, tc.values[1], tc.starts[1], 0, 0)
				got := unpack(t, dedupe(t, split(t, a, 50), split(t, b, 50)))
				for _, at := range b.T {
					if near := nearest(got.T, at); 2*near > 3*step {
						t.Errorf("phase %d: a sample at %d, the nearest of the result is %d ms away", phase, at, near)
					}
				}
				if tc.tell {
					continue
				}
				plainA, plainB := scraped(0, tc.values[0], 0, 600_000, 600_000+tc.hole), scraped(phase, tc.values[1], 0, 0, 0)
				if want := unpack(t, dedupe(t, split(t, plainA, 50), split(t, plainB, 50))); !slices.Equal(got.T, want.T) {
					t.Errorf("phase %d: the choice is another one than without start timestamps", phase)
				}
			}
		})
	}
}

func TestPenaltyLosesNothingWhereABlockEnds(t *testing.T) {
	in := regular(0, 1_200_000, 30_000)
	var blocks []series.Series
	for _, part := range []struct {
		replica  string
		from, to int64
	}{{"", 0, 600_000}, {"a", 600_000, 900_000}, {"a", 900_000, 1_200_000}, {"b", 600_000, 900_000}} {
		blocks = append(blocks, series.Series{Labels: labels.FromStrings("n", "x"), Replica: part.replica, Chunks: split(t, cut(in, part.from, part.to), 100)})
	}
	set := NewSet(series.NewSet(blocks, nil), Options{Func: Penalty})
	if !set.Next() {
		t.Fatal(set.Err())
	}
	if d := difference(unpack(t, set.At().Chunks), in); d != "" {
		t.Error(d)
	}
}
