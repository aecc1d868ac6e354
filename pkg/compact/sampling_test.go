package compact

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/dedup"
	"github.com/varve-io/varve/pkg/series"
)

// chunkOf has a sample at each time, whose value is a thousandth of it, plus off.
func chunkOf(t *testing.T, off float64, times ...int64) series.Chunk {
	t.Helper()
	var s chunkcodec.Samples
	for _, at := range times {
		s.AppendFloat(0, at, float64(at)/1000+off)
	}
	data, err := chunkcodec.Encode(chunkenc.EncXOR, &s, 0)
	if err != nil {
		t.Fatal(err)
	}
	return series.Chunk{MinTime: times[0], MaxTime: times[len(times)-1], Encoding: chunkenc.EncXOR, Data: data}
}

// histogramsOf has a histogram at each time, and one that is a stale marker.
func histogramsOf(t *testing.T, marker int64, times ...int64) (out []series.Chunk) {
	t.Helper()
	var s chunkcodec.Samples
	for _, at := range times {
		h := &histogram.FloatHistogram{Count: 1, ZeroCount: 1, Sum: float64(at)}
		if at == marker {
			h = &histogram.FloatHistogram{Sum: math.Float64frombits(value.StaleNaN)}
		}
		s.AppendFloatHistogram(0, at, h)
	}
	encoded, err := chunkcodec.Append(nil, &s)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range encoded {
		out = append(out, series.Chunk{MinTime: c.MinTime, MaxTime: c.MaxTime, Encoding: c.Encoding, Data: c.Data})
	}
	return out
}

// every are times up to n seconds.
func every(from, n int) (times []int64) {
	for i := range n {
		times = append(times, int64(from+i*1000))
	}
	return times
}

func TestASeriesIsComparedWithItsSources(t *testing.T) {
	a, b := chunkOf(t, 0, every(0, 100)...), chunkOf(t, 1, every(400, 100)...)
	lset := labels.FromStrings("a", "b")
	for name, tc := range map[string]struct {
		chunks []series.Chunk
		f      dedup.Func
		want   string // a part of the error; empty means none
	}{
		"one replica":                       {chunks: []series.Chunk{a}},
		"some of either":                    {chunks: []series.Chunk{chunkOf(t, 0, every(0, 50)...), chunkOf(t, 1, every(50_400, 50)...)}},
		"a value of the other":              {chunks: []series.Chunk{chunkOf(t, 1, every(0, 100)...)}, want: "the sample at 0 is in none"},
		"a time of neither":                 {chunks: []series.Chunk{chunkOf(t, 0, every(100, 100)...)}, want: "the sample at 100 is in none"},
		"a chunk twice":                     {chunks: []series.Chunk{a, a}, want: "a sample at 0 after one at 99000"},
		"next to nothing":                   {chunks: []series.Chunk{chunkOf(t, 0, every(0, 10)...)}, want: "it has 10 samples, one of them has 100"},
		"next to nothing, which may happen": {chunks: []series.Chunk{chunkOf(t, 0, every(0, 10)...)}, f: dedup.Penalty},
	} {
		t.Run(name, func(t *testing.T) {
			in := &inputs{stride: 2, Set: series.NewSet([]series.Series{
				{Labels: lset, Replica: "a", Chunks: []series.Chunk{a}},
				{Labels: lset, Replica: "b", Chunks: []series.Chunk{b}},
				{Labels: labels.FromStrings("a", "c"), Chunks: []series.Chunk{b}},
			}, nil)}
			for in.Next() {
			}
			err := in.check(&series.Series{Labels: lset, Chunks: tc.chunks}, tc.f)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got error %v, want one that says %q", err, tc.want)
			}
			// The next series is none of those that are compared, but for the number of samples.
			if err := in.check(&series.Series{Labels: labels.FromStrings("a", "c"), Chunks: []series.Chunk{a}}, tc.f); err != nil {
				t.Errorf("a series that is only counted: %v", err)
			}
		})
	}
	mixed := [][]series.Chunk{{{Encoding: aggrchunk.Encoding}}}
	if err := compare(mixed, []series.Chunk{a}, dedup.Default); err != nil {
		t.Errorf("beside aggregates: %v", err)
	}
}

// However many series a merge has, all their samples are counted.
func TestSamplesOfEachSeriesAreCountedOnBothSides(t *testing.T) {
	one, two, across := chunkOf(t, 0, every(0, 100)...), chunkOf(t, 0, every(200_000, 50)...), chunkOf(t, 0, every(90_000, 100)...)
	edge := int(dedup.Cell)
	// around has a sample half a second too early behind the edge, and without it all are a second apart.
	around := func(edge int) (with, without series.Chunk) {
		before, after := every(edge-49_500, 50), every(edge+500, 50)
		return chunkOf(t, 0, slices.Concat(before, []int64{int64(edge)}, after)...), chunkOf(t, 0, slices.Concat(before, after)...)
	}
	with, without := around(edge)
	atEdge := int64(edge)
	early, cutEarly := around(edge - 60_000)
	late, cutLate := around(edge + 60_000)
	lset, next := labels.FromStrings("a", "b"), labels.FromStrings("a", "c")
	of := func(l labels.Labels, replica string, chunks ...series.Chunk) series.Series {
		return series.Series{Labels: l, Replica: replica, Chunks: chunks}
	}
	for name, tc := range map[string]struct {
		in, out []series.Series
		f       dedup.Func
		want    string // a part of the error; empty means none
	}{
		"all of one replica":   {in: []series.Series{of(lset, "a", one), of(lset, "a", two)}, out: []series.Series{of(lset, "", one, two)}},
		"a chunk is gone":      {in: []series.Series{of(lset, "a", one, two)}, out: []series.Series{of(lset, "", one)}, want: "the sample at 200000 is gone"},
		"a block is gone":      {in: []series.Series{of(lset, "", one), of(lset, "", two)}, out: []series.Series{of(lset, "", two)}, f: dedup.Chain, want: "50 samples came of 150"},
		"a series is gone":     {in: []series.Series{of(lset, "", one), of(next, "", one)}, out: []series.Series{of(next, "", one)}, want: `{a="c"} is not the next`},
		"the last series is":   {in: []series.Series{of(lset, "", one), of(next, "", one)}, out: []series.Series{of(lset, "", one)}, want: `nothing came of series {a="c"}`},
		"a series of nothing":  {in: []series.Series{of(lset, "", one)}, out: []series.Series{of(lset, "", one), of(next, "", one)}, want: `{a="c"} is not the next`},
		"more than there were": {in: []series.Series{of(lset, "a", one), of(lset, "b", two)}, out: []series.Series{of(lset, "", one, one)}, want: "200 samples came of 150"},
		"one of two replicas":  {in: []series.Series{of(lset, "a", one), of(lset, "b", one)}, out: []series.Series{of(lset, "", one)}},
		"chunks that overlap":  {in: []series.Series{of(lset, "", one, across)}, out: []series.Series{of(lset, "", one, two)}},
		"of one series as many as another lost": {
			in: []series.Series{of(lset, "", one), of(next, "a", one), of(next, "b", one)}, out: []series.Series{of(lset, "", chunkOf(t, 0, every(0, 99)...)), of(next, "", one, two)},
			want: "the sample at 99000 is gone",
		},
		"aggregates": {in: []series.Series{of(lset, "", series.Chunk{Encoding: aggrchunk.Encoding, Data: []byte{3}})}, out: []series.Series{of(lset, "")}},
		"the first sample behind an edge, where it breaks the rhythm": {in: []series.Series{of(lset, "", with)}, out: []series.Series{of(lset, "", without)}},
		"the same of histograms, behind a stale marker": {
			in:  []series.Series{of(lset, "", histogramsOf(t, atEdge, slices.Concat(every(edge-49_500, 50), []int64{atEdge, atEdge + 1}, every(edge+500, 50))...)...)},
			out: []series.Series{of(lset, "", histogramsOf(t, atEdge, slices.Concat(every(edge-49_500, 50), []int64{atEdge}, every(edge+500, 50))...)...)},
		},
		"the same, though nothing is left out": {
			in: []series.Series{of(lset, "", with)}, out: []series.Series{of(lset, "", without)}, f: dedup.Chain, want: "100 samples came of 101",
		},
		"a sample before an edge": {in: []series.Series{of(lset, "", early)}, out: []series.Series{of(lset, "", cutEarly)}, want: "the sample at 7140000 is gone"},
		"a sample behind the first of a cell": {
			in: []series.Series{of(lset, "", late)}, out: []series.Series{of(lset, "", cutLate)}, want: "the sample at 7260000 is gone",
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := &inputs{stride: 1000, Set: series.NewSet(append([]series.Series{of(labels.FromStrings("a", "a"), "", one)}, tc.in...), nil)}
			for in.Next() {
			}
			err := in.check(&series.Series{Labels: labels.FromStrings("a", "a"), Chunks: []series.Chunk{one}}, tc.f) // the one that is compared
			for i := range tc.out {
				err = errors.Join(err, in.check(&tc.out[i], tc.f))
			}
			err = errors.Join(err, in.done())
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got error %v, want one that says %q", err, tc.want)
			}
		})
	}
}
