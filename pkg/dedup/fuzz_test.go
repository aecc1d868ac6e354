package dedup

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/value"

	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
)

// FuzzDedup draws two or three replicas from bytes, the first of which may be taken for a result, and compares
// one cell with the naive version.
func FuzzDedup(f *testing.F) {
	f.Add([]byte("aaaaaaaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbbbbbbbbb"), uint8(2))
	f.Add([]byte{15, 15, 15, 200, 15, 15, 15, 15, 3, 15, 15, 15, 15, 15, 255, 255, 15, 15}, uint8(3))
	f.Add([]byte{35, 193, 109, 86, 233, 184, 207, 213, 182, 34, 210, 144, 198, 58, 107, 115, 117, 66, 20, 103, 33, 198, 121}, uint8(0))
	r := rand.New(rand.NewPCG(21, 22))
	for range 20 {
		b := make([]byte, 200)
		for i := range b {
			if b[i] = 15; r.IntN(10) == 0 {
				b[i] = byte(r.IntN(256))
			}
		}
		f.Add(b, uint8(r.IntN(4)+2))
	}
	f.Fuzz(asNaive)
}

// TestAsNaive is FuzzDedup over what fuzzing seldom comes to: rows of few samples, whose rhythm is hard to tell.
func TestAsNaive(t *testing.T) {
	r := rand.New(rand.NewPCG(25, 26))
	for range 20_000 {
		distances, usual, rare := make([]byte, 4+r.IntN(30)), byte(r.IntN(256)), 1+r.IntN(6)
		for i := range distances {
			if distances[i] = usual; r.IntN(rare) == 0 {
				distances[i] = byte(r.IntN(256))
			}
			if r.IntN(12) == 0 {
				distances[i] = distances[i]/16*16 + 7 // a stale marker
			}
		}
		n := uint8(r.IntN(4))
		if asNaive(t, distances, n); t.Failed() {
			t.Fatalf("distances %v, n %d", distances, n)
		}
	}
}

// asNaive makes replicas whose samples stand at so many seconds' distance, and compares what is chosen of them.
func asNaive(t *testing.T, distances []byte, n uint8) {
	t.Helper()
	merged := n%4 > 1
	n = n%2 + 2
	distances = distances[:min(len(distances), 400)] // the naive version is slow
	reps := make([]*chunkcodec.Samples, n)
	for i := range reps {
		reps[i] = &chunkcodec.Samples{}
		at := int64(i) * 4_000
		for j := i; j < len(distances); j += int(n) {
			if at += 1 + int64(distances[j])*1000; at >= Cell {
				break
			}
			v := float64(at)
			if distances[j]%16 == 7 {
				v = stale()
			}
			reps[i].AppendFloat(0, at, v)
		}
	}
	var in [][]series.Chunk
	for _, s := range reps {
		in = append(in, split(t, s, 50))
	}
	chunks, err := new(deduplicator).chunks(&Group{replicas: in, merged: merged}, Defaults())
	if err != nil {
		t.Fatal(err)
	}
	source := func(s *chunkcodec.Samples) bool { return !merged || s != reps[0] }
	got, want := unpack(t, chunks), naive(reps, source)
	if d := difference(got, want); d != "" {
		t.Errorf("%s\n got %s\nwant %s", d, text(got), text(want))
	}
}

// naive is decision 5 inside the first cell, said again in another way: it asks
// for each sample of a later replica whether it may come in. What is no source was deduplicated before.
func naive(reps []*chunkcodec.Samples, source func(*chunkcodec.Samples) bool) *chunkcodec.Samples {
	type sample struct {
		t int64
		v float64
	}
	asked := reps // whose rhythm counts: all, or the first alone when the others keep step with it
	if lead := slices.IndexFunc(reps, func(s *chunkcodec.Samples) bool { return s.Len() > 0 }); lead >= 0 && len(scrapes(reps[lead])) > 3 && (source(reps[lead]) || even(scrapes(reps[lead]))) {
		if !slices.ContainsFunc(reps[lead+1:], func(s *chunkcodec.Samples) bool { return outOfStep(scrapes(reps[lead]), s.T) }) {
			asked = reps[lead : lead+1]
		}
	}
	near := func(t int64) int64 { // the scrape interval near t
		var few, best, own []int64
		longest := int64(300_000)
		for _, s := range asked {
			times := scrapes(s)
			d := deltas(times)
			if len(d) < 3 {
				few = append(few, d...)
				continue
			}
			if len(asked) > 1 && !source(s) {
				longest = min(longest, 2*typical(s))
				continue
			}
			i := 0
			for i+1 < len(d) && times[i+1] <= t {
				i++
			}
			median, silent := quantile(slices.Clone(d[max(0, i-8):min(len(d), i+9)]), 2), int64(math.MaxInt64)
			for _, at := range times {
				silent = min(silent, max(at-t, t-at))
			}
			own = append(own, median)
			best = append(best, max(median, silent))
		}
		switch {
		case len(best) > 0:
			return min(slices.Min(best), slices.Max(own))
		case len(few) > 0:
			return min(quantile(few, 2), longest)
		}
		return min(120_000, longest)
	}
	densest := int64(math.MaxInt64)
	for _, s := range asked {
		if len(scrapes(s)) > 3 && source(s) {
			densest = min(densest, typical(s))
		}
	}
	order := slices.Clone(reps)
	slices.SortStableFunc(order, func(a, b *chunkcodec.Samples) int {
		behind := func(s *chunkcodec.Samples) int {
			if len(asked) > 1 && densest < math.MaxInt64 && 2*typical(s) > 3*densest {
				return 1
			}
			return 0
		}
		return behind(a) - behind(b)
	})
	var out []sample
	for _, s := range order {
		if s.Len() == 0 {
			continue
		}
		if len(out) > 0 {
			out = slices.DeleteFunc(out, func(m sample) bool {
				if !value.IsStaleNaN(m.v) {
					return false
				}
				after := slices.IndexFunc(s.T, func(t int64) bool { return t > m.t })
				if after < 0 {
					after = s.Len()
				}
				left, right, limit := int64(0), Cell, 11*near(m.t)/10
				if after > 0 {
					left = s.T[after-1]
				}
				if after < s.Len() {
					right = s.T[after]
				}
				if after > 0 && after < s.Len() {
					limit = 3 * near(m.t) / 2
				}
				return !(after > 0 && value.IsStaleNaN(s.V[after-1])) && !(after < s.Len() && value.IsStaleNaN(s.V[after])) && right-left <= limit
			})
		}
		var have []int64
		for _, m := range out {
			if !value.IsStaleNaN(m.v) {
				have = append(have, m.t)
			}
		}
		for i, at := range s.T {
			k, _ := slices.BinarySearch(have, at)
			left, right := int64(-1), int64(-1)
			if k > 0 {
				left = have[k-1]
			}
			if k < len(have) {
				right = have[k]
			}
			open := left < 0 && right < 0
			switch {
			case left >= 0 && right >= 0:
				open = 2*(right-left) > 3*min(near(left), near(right)) && 2*(at-left) >= near(left) && 2*(right-at) >= near(right)
			case right >= 0:
				open = 10*right > 11*near(right) && 2*(right-at) >= near(right)
			case left >= 0:
				open = 10*(Cell-left) > 11*near(left) && 2*(at-left) >= near(left)
			}
			if open {
				out = append(out, sample{at, s.V[i]})
			}
		}
		slices.SortStableFunc(out, func(a, b sample) int {
			if a.t == b.t && value.IsStaleNaN(a.v) != value.IsStaleNaN(b.v) {
				if value.IsStaleNaN(a.v) {
					return 1
				}
				return -1
			}
			return int(a.t - b.t)
		})
		out = slices.CompactFunc(out, func(a, b sample) bool { return a.t == b.t })
	}
	var s chunkcodec.Samples
	for _, m := range out {
		s.AppendFloat(0, m.t, m.v)
	}
	return &s
}

// typical is the median distance, 0 when there is none.
func typical(s *chunkcodec.Samples) int64 {
	if d := deltas(scrapes(s)); len(d) > 0 {
		return quantile(d, 2)
	}
	return 0
}

// even reports whether all distances are within an eighth of one length.
func even(times []int64) bool {
	d := deltas(times)
	return 7*slices.Max(d) <= 9*slices.Min(d)
}

// outOfStep reports whether lead changes its interval, or other has, between its ends, half a sample more or
// fewer than scrapes at the rhythm of lead would give, or begins with a short distance. Between
// two samples of lead time runs in proportion: over one scrape, or in a hole over as many as it is long.
func outOfStep(lead, other []int64) bool {
	d := deltas(lead)
	local := func(i int) int64 {
		i = min(i, len(d)-1)
		return quantile(slices.Clone(d[max(0, i-8):min(len(d), i+9)]), 2)
	}
	least := slices.Sorted(slices.Values(d))[(min(len(d), 9)-1)/2] // no local interval is shorter
	for i := range d {
		if 2*d[i] > 3*least && 2*local(i) > 3*least {
			return true
		}
	}
	if len(other) <= 3 {
		return false
	}
	position := func(t int64) (thousandths int64) {
		if t < lead[0] {
			return 1000 * (t - lead[0]) / local(0)
		}
		for i, left := range lead {
			if i == len(d) {
				return thousandths + 1000*(t-left)/local(i)
			}
			step := int64(1000)
			if interval := min(local(i), local(i+1)); 2*d[i] > 3*interval {
				step = 1000 * d[i] / interval
			}
			if t < lead[i+1] {
				return thousandths + step*(t-left)/d[i]
			}
			thousandths += step
		}
		return thousandths
	}
	off := 1000*int64(len(other)-1) - position(other[len(other)-1]) + position(other[0])
	at := 0
	for at+1 < len(lead) && lead[at+1] <= other[0] {
		at++
	}
	return off > 500 || off < -500 || 2*local(at) > 3*slices.Min(deltas(other[:4]))
}

// FuzzBorders draws replicas from bytes, over several cells, and checks the guarantees that
// hold whatever clocks and scrapes do: the result depends neither on chunks nor on the range
// asked for nor on what was compacted before, and does not change any more.
func FuzzBorders(f *testing.F) {
	r := rand.New(rand.NewPCG(23, 24))
	for range 20 {
		b := make([]byte, 300)
		for i := range b {
			if b[i] = 15; r.IntN(20) == 0 {
				b[i] = byte(r.IntN(256))
			}
		}
		f.Add(b, r.Uint64())
	}
	f.Fuzz(func(t *testing.T, distances []byte, seed uint64) {
		n := int(2 + seed%2)
		w := &world{seed: seed, interval: 60_000, begin: 19*Cell + int64(seed%uint64(Cell)), end: 19*Cell + int64(seed%uint64(Cell)) + 1}
		for i := range n {
			var s chunkcodec.Samples
			at := w.begin + int64(i)*4_000
			for j := i; j < min(len(distances), 1000); j += n {
				d := int64(distances[j])
				if at += 1 + d*1000; d > 240 {
					at += (d - 240) * 300_000 // up to 75 minutes
				}
				v := float64(at)
				if d%16 == 7 {
					v = stale()
				}
				s.AppendFloat(0, at, v)
				w.end = max(w.end, at+1)
			}
			w.replicas = append(w.replicas, s)
		}
		in := w.chunks(t, seed)
		once := dedupe(t, in...)
		got := unpack(t, once)
		if broken := w.onlyInput(got) +
			named("other chunk borders", difference(unpack(t, dedupe(t, w.chunks(t, seed+1)...)), got)) +
			named("a query in two parts", w.inParts(t, in, got)) +
			named("compacted in part", w.compacted(t, in, got)) +
			named("as samples", difference(asSamples(t, in), got)) +
			named("once more", difference(unpack(t, dedupe(t, once)), got)); broken != "" {
			t.Error(broken)
		}
	})
}
