package compact

import (
	"encoding/binary"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/dedup"
	"github.com/varve-io/varve/pkg/planner"
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

func TestABlockIsReadBackAsItWasWritten(t *testing.T) {
	bkt := replicas(t, 4)(t)
	e := executor(t, bkt)
	jobs := planner.Plan(fetch(t, bkt), e.opts.Policy, e.now())
	i := slices.IndexFunc(jobs, func(j planner.Job) bool { return kindOf(j) == kindCompact })
	o := e.merged(jobs[i].(planner.Compact), 0)
	o.into, o.beside = bkt, nil
	d, _, err := e.write(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.verify(t.Context(), d); err != nil {
		t.Errorf("as it was written: %v", err)
	}
	// Another last bit in the first chunk, with the checksum that belongs to it.
	name := block.SegmentName(o.meta.ULID, 1)
	data, _, err := bkt.GetVersion(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	size, n := binary.Uvarint(data[chunks.SegmentHeaderSize:])
	record := data[chunks.SegmentHeaderSize+n:][:1+size]
	record[size] ^= 1
	binary.BigEndian.PutUint32(data[chunks.SegmentHeaderSize+n+len(record):], crc32.Checksum(record, crc32.MakeTable(crc32.Castagnoli)))
	if err := bkt.Upload(t.Context(), name, strings.NewReader(string(data))); err != nil {
		t.Fatal(err)
	}
	if err := e.verify(t.Context(), d); err == nil || !strings.Contains(err.Error(), "not what was written") {
		t.Errorf("with another sample: got %v, want an error", err)
	}
}
