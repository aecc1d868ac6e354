package compact

import (
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
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
			// The next series is none of those that are compared.
			if err := in.check(&series.Series{Labels: labels.FromStrings("a", "c"), Chunks: []series.Chunk{a}}, tc.f); err != nil {
				t.Errorf("a series that is not kept: %v", err)
			}
		})
	}
	mixed := [][]series.Chunk{{{Encoding: aggrchunk.Encoding}}}
	if err := compare(mixed, []series.Chunk{a}, dedup.Default); err != nil {
		t.Errorf("beside aggregates: %v", err)
	}
}

// However many series a merge has, all their samples are counted.
func TestSamplesAreCountedOnBothSides(t *testing.T) {
	one, two, across := chunkOf(t, 0, every(0, 100)...), chunkOf(t, 0, every(200_000, 50)...), chunkOf(t, 0, every(90_000, 100)...)
	lset := labels.FromStrings("a", "b")
	for name, tc := range map[string]struct {
		in   []series.Series
		out  []series.Chunk
		want string // a part of the error; empty means none
	}{
		"all of one replica": {
			in: []series.Series{{Labels: lset, Replica: "a", Chunks: []series.Chunk{one}}, {Labels: lset, Replica: "a", Chunks: []series.Chunk{two}}}, out: []series.Chunk{one, two},
		},
		"a chunk is gone": {
			in: []series.Series{{Labels: lset, Replica: "a", Chunks: []series.Chunk{one, two}}}, out: []series.Chunk{one}, want: "100 samples came of 150",
		},
		"a block is gone": {
			in: []series.Series{{Labels: lset, Chunks: []series.Chunk{one}}, {Labels: lset, Chunks: []series.Chunk{two}}}, out: []series.Chunk{two}, want: "50 samples came of 150",
		},
		"a series is gone": {
			in: []series.Series{{Labels: lset, Chunks: []series.Chunk{one}}, {Labels: labels.FromStrings("a", "c"), Chunks: []series.Chunk{one}}}, out: []series.Chunk{one}, want: "100 samples came of 200",
		},
		"more than there were": {
			in: []series.Series{{Labels: lset, Replica: "a", Chunks: []series.Chunk{one}}, {Labels: lset, Replica: "b", Chunks: []series.Chunk{two}}}, out: []series.Chunk{one, one}, want: "200 samples came of 150",
		},
		"one of two replicas": {
			in: []series.Series{{Labels: lset, Replica: "a", Chunks: []series.Chunk{one}}, {Labels: lset, Replica: "b", Chunks: []series.Chunk{one}}}, out: []series.Chunk{one},
		},
		"chunks that overlap": {
			in: []series.Series{{Labels: lset, Chunks: []series.Chunk{one, across}}}, out: []series.Chunk{one, two},
		},
		"other series at the same time": {
			in: []series.Series{{Labels: lset, Chunks: []series.Chunk{one}}, {Labels: labels.FromStrings("a", "c"), Chunks: []series.Chunk{one}}}, out: []series.Chunk{one, one},
		},
		"aggregates": {
			in: []series.Series{{Labels: lset, Chunks: []series.Chunk{{Encoding: aggrchunk.Encoding, Data: []byte{3}}}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := &inputs{stride: 1000, Set: series.NewSet(tc.in, nil)}
			for in.Next() {
			}
			in.tally.went(&series.Series{Chunks: tc.out})
			err := in.tally.check()
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got error %v, want one that says %q", err, tc.want)
			}
		})
	}
}
