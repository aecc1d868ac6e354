package dedup

import (
	"errors"
	"fmt"
	"strconv"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
)

func TestSetJoinsReplicasOfEqualLabels(t *testing.T) {
	a, b := regular(0, Cell, 15_000), regular(7_000, Cell, 15_000)
	one, two := labels.FromStrings("s", "1"), labels.FromStrings("s", "2")
	pieces := split(t, a, 100)
	var w annotations.Annotations
	w.Add(errors.New("careful"))
	in := []series.Series{
		{Labels: one, Replica: "a", Chunks: pieces[:2]},
		{Labels: one, Replica: "a", Chunks: pieces[2:]}, // the same replica, from another store
		{Labels: one, Replica: "b", Chunks: split(t, b, 100)},
		{Labels: two, Replica: "b", Chunks: split(t, b, 100)},
	}
	got, warnings, err := series.Collect(NewSet(series.NewSet(in, w), Defaults()))
	if err != nil || len(warnings) != 1 || len(got) != 2 {
		t.Fatalf("got %d series, warnings %v, error %v", len(got), warnings, err)
	}
	for i, want := range []*chunkcodec.Samples{a, b} {
		if got[i].Replica != "" || got[i].Labels.Get("s") != strconv.Itoa(i+1) {
			t.Errorf("series %d: labels %s, replica %q", i, got[i].Labels, got[i].Replica)
		}
		if d := difference(unpack(t, got[i].Chunks), want); d != "" {
			t.Errorf("series %d: %s", i, d)
		}
	}
	if len(in[0].Chunks) != 2 {
		t.Error("the input was changed")
	}
}

func TestSetEndsWithAnError(t *testing.T) {
	boom := errors.New("boom")
	if got, _, err := series.Collect(NewSet(series.ErrSet(boom), Defaults())); !errors.Is(err, boom) || len(got) != 0 {
		t.Errorf("got %d series and %v, want %v", len(got), err, boom)
	}
	bad := []series.Series{{Labels: labels.FromStrings("s", "1"), Chunks: []series.Chunk{{Encoding: 42}, {Encoding: 42}}}}
	if got, _, err := series.Collect(NewSet(series.NewSet(bad, nil), Defaults())); !errors.Is(err, chunkcodec.ErrInvalid) || len(got) != 0 {
		t.Errorf("got %d series and %v, want ErrInvalid", len(got), err)
	}
}

// setOf is a set with a series for each of the given replicas of it.
func setOf(f Func, all ...[][]series.Chunk) *Set {
	var in []series.Series
	for i, replicas := range all {
		for r, chunks := range replicas {
			in = append(in, series.Series{Labels: labels.FromStrings("s", fmt.Sprintf("%04d", i)), Replica: fmt.Sprintf("r%d", r), Chunks: chunks})
		}
	}
	return NewSet(series.NewSet(in, nil), Options{Func: f})
}

// TestFloatsAreTheSamplesOfTheChunks decodes what was written anew, filled, joined or passed on as bytes.
func TestFloatsAreTheSamplesOfTheChunks(t *testing.T) {
	var all [][][]series.Chunk
	for seed := range uint64(200) {
		all = append(all, simulate(seed).chunks(t, seed))
	}
	for _, f := range []Func{Default, Chain, Penalty} {
		known := 0
		set := setOf(f, all...)
		for n := 0; set.Next(); n++ {
			floats := set.Floats()
			if len(floats) == 0 {
				continue
			}
			known++
			var got chunkcodec.Samples
			for i := range floats {
				got.T, got.V = append(got.T, floats[i].T...), append(got.V, floats[i].V...)
			}
			want := unpack(t, set.At().Chunks)
			want.ST = nil // are not said
			if d := difference(&got, want); d != "" {
				t.Fatalf("%s, seed %d: %s", f, n, d)
			}
		}
		if err := set.Err(); err != nil || known < len(all)/2 {
			t.Errorf("%s: the samples of %d series of %d are known, want most; error %v", f, known, len(all), err)
		}
	}
}

func TestFloatsAreThoseThatWereDecoded(t *testing.T) {
	var h, other chunkcodec.Samples
	for i := range 1920 {
		h.AppendHistogram(0, int64(i)*15_000, tsdbutil.GenerateTestHistogram(int64(i)))
		other.AppendHistogram(0, int64(i)*15_000+5_000, tsdbutil.GenerateTestHistogram(int64(i)))
	}
	a, b := regular(0, 4*Cell, 15_000), regular(7_000, 4*Cell, 15_000)
	for name, tc := range map[string]struct {
		replicas [][]series.Chunk
		want     int
	}{
		"replicas in step":   {[][]series.Chunk{split(t, a, 100), split(t, b, 100)}, a.Len()},
		"a lone replica":     {[][]series.Chunk{split(t, a, 100)}, 0},
		"histograms":         {[][]series.Chunk{encoded(t, &h), encoded(t, &other)}, 0},
		"floats, histograms": {[][]series.Chunk{split(t, a, 100), encoded(t, &h)}, a.Len()},
	} {
		set := setOf(Default, tc.replicas)
		if !set.Next() {
			t.Fatal(name, set.Err())
		}
		got := 0
		for _, s := range set.Floats() {
			got += s.Len()
		}
		if got != tc.want {
			t.Errorf("%s: got %d samples, want %d", name, got, tc.want)
		}
	}
}

// encoded are the samples in chunks as their types need them.
func encoded(t *testing.T, s *chunkcodec.Samples) (out []series.Chunk) {
	t.Helper()
	chunks, err := new(chunkcodec.Encoder).Append(nil, s)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range chunks {
		out = append(out, series.Chunk{MinTime: c.MinTime, MaxTime: c.MaxTime, Encoding: c.Encoding, Data: c.Data})
	}
	return out
}
