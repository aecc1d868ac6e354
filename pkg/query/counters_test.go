package query

import (
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	stale "github.com/prometheus/prometheus/model/value"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
)

func TestARawCounterOfHistogramsGoesOnThroughNaNSums(t *testing.T) {
	var s chunkcodec.Samples
	for i, sum := range []float64{4, math.NaN(), math.NaN(), math.Float64frombits(stale.StaleNaN), math.NaN()} {
		h := &histogram.FloatHistogram{Sum: sum}
		if !stale.IsStaleNaN(sum) {
			h.Count, h.PositiveSpans, h.PositiveBuckets = float64(i+1), []histogram.Span{{Length: 1}}, []float64{float64(i + 1)}
		}
		s.AppendFloatHistogram(0, int64(i)*15_000, h)
	}
	encoded, err := chunkcodec.Append(nil, &s)
	if err != nil {
		t.Fatal(err)
	}
	raw := segment{span: span{0, 60_000}, resolution: block.Raw}
	for _, c := range encoded {
		raw.chunks = append(raw.chunks, series.Chunk{MinTime: c.MinTime, MaxTime: c.MaxTime, Encoding: c.Encoding, Data: c.Data})
	}
	runs, err := counterRuns([]segment{raw}, rhythm{})
	if err != nil {
		t.Fatal(err)
	}
	var counts []float64
	for _, r := range runs {
		for _, p := range r.points {
			counts = append(counts, p.v.h.Count)
		}
	}
	if len(counts) != 4 || counts[2] != 3 || counts[3] != 5 {
		t.Errorf("counts: got %v, want 1, 2, 3 and 5", counts)
	}
}
