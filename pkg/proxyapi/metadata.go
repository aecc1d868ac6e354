package proxyapi

import (
	"cmp"
	"maps"
	"slices"
)

// MetadataRequest selects metadata.
type MetadataRequest struct {
	// Metric restricts to one metric; empty means all.
	Metric string
	// Limit is the largest number of metrics; negative means all, 0 none.
	Limit int
	Abort Strategy
}

// Meta describes a metric as one group of targets does.
type Meta struct {
	Type string `json:"type"`
	Help string `json:"help"`
	Unit string `json:"unit"`
}

// MergeMetadata joins the answers of several endpoints. Equal descriptions become
// one; of more metrics than the limit those that come first by name stay.
func MergeMetadata(in []map[string][]Meta, limit int) map[string][]Meta {
	out := map[string][]Meta{}
	for _, m := range in {
		for name, metas := range m {
			out[name] = append(out[name], metas...)
		}
	}
	for name, metas := range out {
		slices.SortFunc(metas, func(a, b Meta) int {
			return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Help, b.Help), cmp.Compare(a.Unit, b.Unit))
		})
		out[name] = slices.Compact(metas)
	}
	if limit >= 0 && len(out) > limit {
		for _, name := range slices.Sorted(maps.Keys(out))[limit:] {
			delete(out, name)
		}
	}
	return out
}
