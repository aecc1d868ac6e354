package blocktest

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"go.uber.org/goleak"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/bucket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const text = `
load 30s
	up{job="a"} 1 1 _ 0 stale
	up{job="b"} 0+1x300

load 1m
	lat{job="a"} {{schema:0 sum:5 count:4 buckets:[1 2 1]}} {{schema:0 sum:6 count:5 buckets:[1 3 1]}}
`

func TestABlockHoldsWhatWasLoaded(t *testing.T) {
	dir, meta := Dir(t, Spec{Load: text, Labels: map[string]string{"cluster": "eu", "replica": "a"}, Offset: 2 * time.Hour})

	h := int64(2 * time.Hour / time.Millisecond)
	if want := (block.TimeRange{MinTime: h, MaxTime: h + 300*30_000 + 1}); meta.TimeRange() != want {
		t.Errorf("time range: got %v, want %v", meta.TimeRange(), want)
	}
	if meta.Stats.NumSeries != 3 || meta.Stats.NumSamples != 4+301+2 {
		t.Errorf("got %d series and %d samples, want 3 and 307", meta.Stats.NumSeries, meta.Stats.NumSamples)
	}
	data, err := os.ReadFile(filepath.Join(dir, block.MetaFile))
	if err != nil {
		t.Fatal(err)
	}
	onDisk, err := block.ParseMeta(data)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(onDisk, meta) || filepath.Base(dir) != meta.ULID.String() {
		t.Errorf("in %s: got %+v, want %+v", dir, onDisk, meta)
	}

	got := Read(t, dir)
	if len(got) != 3 {
		t.Fatalf("read %d series, want 3", len(got))
	}
	var times []int64
	for _, p := range got[1].Samples {
		times = append(times, p.T-h)
	}
	if want := labels.FromStrings("__name__", "up", "job", "a"); !labels.Equal(got[1].Labels, want) || !reflect.DeepEqual(times, []int64{0, 30_000, 90_000, 120_000}) {
		t.Errorf("got %s at %v, want %s at 0s, 30s, 90s, 120s", got[1].Labels, times, want)
	}
	if fh := got[0].Samples[1].FH; fh == nil || fh.Count != 5 {
		t.Errorf("second histogram: got %v, want one of count 5", fh)
	}
}

func TestTheSameSpecGivesTheSameBlock(t *testing.T) {
	spec := Spec{Load: text, Labels: map[string]string{"cluster": "eu"}}
	_, first := Dir(t, spec)
	_, second := Dir(t, spec)
	if !reflect.DeepEqual(first, second) {
		t.Errorf("got %+v, then %+v", first, second)
	}
	spec.Labels = map[string]string{"cluster": "us"}
	if _, other := Dir(t, spec); other.ULID == first.ULID {
		t.Error("another producer's block has the same ULID")
	}
}

func TestEveryEncodingCanBeWritten(t *testing.T) {
	ih := &histogram.Histogram{Schema: 0, Count: 3, Sum: 4, PositiveSpans: []histogram.Span{{Length: 2}}, PositiveBuckets: []int64{1, 1}}
	series := []Series{
		{labels.FromStrings("__name__", "f"), []Sample{{ST: 500, T: 1000, V: 1}, {ST: 500, T: 2000, V: 2}}},
		{labels.FromStrings("__name__", "h"), []Sample{{ST: 500, T: 1000, H: ih}}},
		{labels.FromStrings("__name__", "hf"), []Sample{{ST: 500, T: 1000, FH: ih.ToFloat(nil)}}},
	}
	for name, tc := range map[string]struct {
		chunks Chunks
		want   []chunkenc.Encoding
		start  int64
	}{
		"classic":    {Classic, []chunkenc.Encoding{chunkenc.EncXOR, chunkenc.EncHistogram, chunkenc.EncFloatHistogram}, 0},
		"xor2":       {XOR2, []chunkenc.Encoding{chunkenc.EncXOR2, chunkenc.EncHistogram, chunkenc.EncFloatHistogram}, 0},
		"with start": {WithStart, []chunkenc.Encoding{chunkenc.EncXOR2, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST}, 500},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _ := Dir(t, Spec{Series: series, Chunks: tc.chunks})
			if got := encodings(t, dir); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("encodings: got %v, want %v", got, tc.want)
			}
			for _, s := range Read(t, dir) {
				if got := s.Samples[0].ST; got != tc.start {
					t.Errorf("start timestamp of %s: got %d, want %d", s.Labels, got, tc.start)
				}
			}
		})
	}
}

func TestABlockTravelsThroughABucket(t *testing.T) {
	spec := Spec{Load: text, Labels: map[string]string{"cluster": "eu"}}
	b := bucket.NewMemory()
	meta := InBucket(t, b, spec)
	dir, _ := Dir(t, spec)
	if got, want := Text(Read(t, Download(t, b, meta.ULID))), Text(Read(t, dir)); got != want || !strings.Contains(got, "120000@stale") {
		t.Errorf("got %s, want %s", got, want)
	}
}

// encodings gives the encoding of the first chunk of each series.
func encodings(t *testing.T, dir string) []chunkenc.Encoding {
	t.Helper()
	b, err := tsdb.OpenBlock(nil, dir, nil, nil)
	check(t, err)
	defer func() { check(t, b.Close()) }()
	ir, err := b.Index()
	check(t, err)
	defer func() { check(t, ir.Close()) }()
	cr, err := b.Chunks()
	check(t, err)
	defer func() { check(t, cr.Close()) }()
	name, value := index.AllPostingsKey()
	all, err := ir.Postings(t.Context(), name, value)
	check(t, err)
	var got []chunkenc.Encoding
	for all.Next() {
		var lset labels.ScratchBuilder
		var metas []chunks.Meta
		check(t, ir.Series(all.At(), &lset, &metas))
		c, _, err := cr.ChunkOrIterable(metas[0])
		check(t, err)
		got = append(got, c.Encoding())
	}
	check(t, all.Err())
	return got
}
