package storeapi

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/storeapi/storepb"
)

func infoToWire(in Info, version string) *storepb.InfoResponse {
	out := &storepb.InfoResponse{
		ComponentType: in.Component,
		LabelSets:     make([]*storepb.LabelSet, 0, len(in.LabelSets)),
		Varve:         &storepb.VarveInfo{Native: true, Version: version},
	}
	for _, lset := range in.LabelSets {
		if !lset.IsEmpty() {
			out.LabelSets = append(out.LabelSets, labelSetToWire(lset))
		}
	}
	if in.APIs.Has(StoreAPI) {
		out.Store = &storepb.StoreInfo{
			MinTime:                      in.MinTime,
			MaxTime:                      in.MaxTime,
			SupportsSharding:             in.SupportsSharding,
			SupportsWithoutReplicaLabels: in.DropsLabels,
		}
		for _, s := range in.Streams {
			out.Store.TsdbInfos = append(out.Store.TsdbInfos, &storepb.TSDBInfo{
				Labels: labelSetToWire(s.Labels), MinTime: s.MinTime, MaxTime: s.MaxTime,
			})
		}
	}
	if in.APIs.Has(RulesAPI) {
		out.Rules = &storepb.RulesInfo{}
	}
	if in.APIs.Has(TargetsAPI) {
		out.Targets = &storepb.TargetsInfo{}
	}
	if in.APIs.Has(MetadataAPI) {
		out.MetricMetadata = &storepb.MetricMetadataInfo{}
	}
	if in.APIs.Has(ExemplarsAPI) {
		out.Exemplars = &storepb.ExemplarsInfo{MinTime: in.MinTime, MaxTime: in.MaxTime}
	}
	if in.APIs.Has(QueryAPI) {
		out.Query = &storepb.QueryAPIInfo{}
	}
	if in.APIs.Has(StatusAPI) {
		out.Status = &storepb.StatusInfo{}
	}
	return out
}

func infoFromWire(in *storepb.InfoResponse) Info {
	out := Info{Component: in.ComponentType, Native: in.GetVarve().GetNative()}
	for _, s := range in.LabelSets {
		lset := labelSetFromWire(s)
		if lset.Has(block.ShardLabel) {
			out.sharded = true
			if lset = withoutShard(lset); slices.ContainsFunc(out.LabelSets, func(o labels.Labels) bool { return labels.Equal(o, lset) }) {
				continue
			}
		}
		if !lset.IsEmpty() {
			out.LabelSets = append(out.LabelSets, lset)
		}
	}
	if s := in.Store; s != nil {
		out.APIs |= StoreAPI
		out.MinTime, out.MaxTime = s.MinTime, s.MaxTime
		out.DropsLabels, out.SupportsSharding = s.SupportsWithoutReplicaLabels, s.SupportsSharding
		for _, t := range s.TsdbInfos {
			out.Streams = append(out.Streams, Stream{
				Labels: withoutShard(labelSetFromWire(t.GetLabels())), MinTime: t.GetMinTime(), MaxTime: t.GetMaxTime(),
			})
		}
	}
	if in.Rules != nil {
		out.APIs |= RulesAPI
	}
	if in.Targets != nil {
		out.APIs |= TargetsAPI
	}
	if in.MetricMetadata != nil {
		out.APIs |= MetadataAPI
	}
	if in.Exemplars != nil {
		out.APIs |= ExemplarsAPI
	}
	if in.Query != nil {
		out.APIs |= QueryAPI
	}
	if in.Status != nil {
		out.APIs |= StatusAPI
	}
	return out
}

func labelSetToWire(in labels.Labels) *storepb.LabelSet {
	out := &storepb.LabelSet{}
	in.Range(func(l labels.Label) {
		out.Labels = append(out.Labels, &storepb.Label{Name: l.Name, Value: l.Value})
	})
	return out
}

// withoutShard takes the label of a block's shard out.
func withoutShard(lset labels.Labels) labels.Labels {
	return labels.NewBuilder(lset).Del(block.ShardLabel).Labels()
}

// labelSetFromWire sorts; of a label that comes twice the last one holds.
func labelSetFromWire(in *storepb.LabelSet) labels.Labels {
	b := labels.NewBuilder(labels.EmptyLabels())
	for _, l := range in.GetLabels() {
		b.Set(l.GetName(), l.GetValue())
	}
	return b.Labels()
}
