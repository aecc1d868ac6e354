package compact

import (
	"maps"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/bucket"
)

// withStarts is the counter of twoHours in the encodings that Thanos does not
// know, with a series of histograms of either kind. Gauges begin nowhere, so
// they have no start timestamps.
func withStarts(replica string, without ...int) blocktest.Spec {
	spec := twoHours(replica, hour, without...)
	spec.Chunks = blocktest.WithStart
	h := &histogram.Histogram{Count: 3, Sum: 4, PositiveSpans: []histogram.Span{{Length: 2}}, PositiveBuckets: []int64{1, 1}}
	ints := blocktest.Series{Labels: labels.FromStrings(labels.MetricName, "h")}
	floats := blocktest.Series{Labels: labels.FromStrings(labels.MetricName, "i")}
	for _, s := range spec.Series[0].Samples {
		ints.Samples = append(ints.Samples, blocktest.Sample{T: s.T, H: h})
		floats.Samples = append(floats.Samples, blocktest.Sample{T: s.T, FH: h.ToFloat(nil)})
	}
	spec.Series = append(spec.Series[:1], ints, floats)
	for _, s := range spec.Series {
		for i := range s.Samples {
			s.Samples[i].ST = spec.MinTime
		}
	}
	return spec
}

func TestMergedBlocksAreReadableByAllUnlessToldOtherwise(t *testing.T) {
	for name, tc := range map[string]struct {
		native bool
		want   []chunkenc.Encoding
		start  int64
	}{
		"a bucket that others may read": {false, []chunkenc.Encoding{chunkenc.EncXOR, chunkenc.EncHistogram, chunkenc.EncFloatHistogram}, 0},
		"a bucket of our own":           {true, []chunkenc.Encoding{chunkenc.EncXOR2, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST}, hour * 3_600_000},
	} {
		t.Run(name, func(t *testing.T) {
			bkt := bucket.NewMemory()
			for _, spec := range []blocktest.Spec{withStarts("a", 10, 11, 12, 13), withStarts("b", 40, 41, 42)} {
				blocktest.InBucket(t, bkt, spec)
			}
			e := executor(t, bkt)
			e.opts.NativeEncodings = tc.native
			e.opts.Policy.NoDownsampling = true
			if err := e.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			var merged *block.Meta
			for _, b := range fetch(t, bkt).Blocks {
				if b.Deletion == nil {
					merged = b.Meta
				}
			}
			dir := blocktest.Download(t, bkt, merged.ULID)
			if got := encodingsOf(t, bkt, merged); !slices.Equal(got, tc.want) {
				t.Errorf("encodings: got %v, want %v", got, tc.want)
			}
			for _, s := range blocktest.Read(t, dir) {
				if got, want := len(s.Samples), 120; got != want {
					t.Errorf("samples of %s: got %d, want %d", s.Labels, got, want)
				}
				if got := s.Samples[0].ST; got != tc.start {
					t.Errorf("start timestamp of %s: got %d, want %d", s.Labels, got, tc.start)
				}
			}
		})
	}
}

// encodingsOf lists the encodings of all chunks of a block, each once.
func encodingsOf(t *testing.T, bkt bucket.Reader, m *block.Meta) []chunkenc.Encoding {
	t.Helper()
	sources, err := openSources(t.Context(), bkt, []*block.Meta{m}, newReaders(1, 1), newSymbolTable())
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(sources)
	found := map[chunkenc.Encoding]bool{}
	set := sources[0].set(t.Context(), nil)
	for set.Next() {
		for _, c := range set.At().Chunks {
			found[c.Encoding] = true
		}
	}
	if err := set.Err(); err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(found))
}
