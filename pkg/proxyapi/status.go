package proxyapi

import (
	"cmp"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
)

// StatusRequest selects TSDB statistics.
type StatusRequest struct {
	// Limit is the length of each list of an answer; 0 leaves it to the other side.
	Limit int
	// Matchers restrict the statistics to matching series, where the other side can.
	Matchers []*labels.Matcher
	Abort    Strategy
}

// TSDBStatus is the size and cardinality of a TSDB's head.
type TSDBStatus struct {
	Head                        HeadStats `json:"headStats"`
	SeriesCountByMetricName     []Stat    `json:"seriesCountByMetricName"`
	LabelValueCountByLabelName  []Stat    `json:"labelValueCountByLabelName"`
	MemoryInBytesByLabelName    []Stat    `json:"memoryInBytesByLabelName"`
	SeriesCountByLabelValuePair []Stat    `json:"seriesCountByLabelValuePair"`
}

// HeadStats are totals; times are Unix milliseconds.
type HeadStats struct {
	NumSeries     uint64 `json:"numSeries"`
	NumLabelPairs uint64 `json:"numLabelPairs"`
	ChunkCount    uint64 `json:"chunkCount"`
	MinTime       int64  `json:"minTime"`
	MaxTime       int64  `json:"maxTime"`
}

// Stat is one row of a list.
type Stat struct {
	Name  string `json:"name"`
	Value uint64 `json:"value"`
}

// MergeStatus joins the answers of several endpoints, tenant by tenant. Everything
// is added up but the number of label values: those are mostly the same values
// everywhere, so the largest stands. Lists are cut to limit, 0 leaves them whole.
func MergeStatus(in []map[string]TSDBStatus, limit int) map[string]TSDBStatus {
	out := map[string]TSDBStatus{}
	for _, m := range in {
		for tenant, s := range m {
			sum, ok := out[tenant]
			if !ok {
				sum.Head.MinTime, sum.Head.MaxTime = s.Head.MinTime, s.Head.MaxTime
			}
			sum.Head = addHeads(sum.Head, s.Head)
			sum.SeriesCountByMetricName = slices.Concat(sum.SeriesCountByMetricName, s.SeriesCountByMetricName)
			sum.LabelValueCountByLabelName = slices.Concat(sum.LabelValueCountByLabelName, s.LabelValueCountByLabelName)
			sum.MemoryInBytesByLabelName = slices.Concat(sum.MemoryInBytesByLabelName, s.MemoryInBytesByLabelName)
			sum.SeriesCountByLabelValuePair = slices.Concat(sum.SeriesCountByLabelValuePair, s.SeriesCountByLabelValuePair)
			out[tenant] = sum
		}
	}
	add := func(a, b uint64) uint64 { return a + b }
	largest := func(a, b uint64) uint64 { return max(a, b) }
	for tenant, s := range out {
		s.SeriesCountByMetricName = fold(s.SeriesCountByMetricName, limit, add)
		s.LabelValueCountByLabelName = fold(s.LabelValueCountByLabelName, limit, largest)
		s.MemoryInBytesByLabelName = fold(s.MemoryInBytesByLabelName, limit, add)
		s.SeriesCountByLabelValuePair = fold(s.SeriesCountByLabelValuePair, limit, add)
		out[tenant] = s
	}
	return out
}

func addHeads(a, b HeadStats) HeadStats {
	return HeadStats{
		NumSeries: a.NumSeries + b.NumSeries, NumLabelPairs: a.NumLabelPairs + b.NumLabelPairs, ChunkCount: a.ChunkCount + b.ChunkCount,
		MinTime: min(a.MinTime, b.MinTime), MaxTime: max(a.MaxTime, b.MaxTime),
	}
}

// fold joins rows of one name and puts the largest first.
func fold(in []Stat, limit int, join func(a, b uint64) uint64) []Stat {
	slices.SortStableFunc(in, func(a, b Stat) int { return cmp.Compare(a.Name, b.Name) })
	out := []Stat{}
	for _, s := range in {
		if n := len(out); n > 0 && out[n-1].Name == s.Name {
			out[n-1].Value = join(out[n-1].Value, s.Value)
			continue
		}
		out = append(out, s)
	}
	slices.SortStableFunc(out, func(a, b Stat) int { return cmp.Compare(b.Value, a.Value) })
	if limit > 0 && len(out) > limit {
		out = out[:limit]
	}
	return out
}
