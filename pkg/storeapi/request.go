package storeapi

import (
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/storeapi/storepb"
)

// Validate returns an ErrBadRequest that names what no store can answer. A
// range that ends before it begins is not an error; it selects nothing.
func (r *Request) Validate() error {
	switch {
	case len(r.Matchers) == 0:
		return fmt.Errorf("%w: no matchers; at least one is needed", ErrBadRequest)
	case r.MaxResolution < 0:
		return fmt.Errorf("%w: maximum resolution is %d ms; 0 means raw samples only", ErrBadRequest, r.MaxResolution)
	case r.Limit < 0:
		return fmt.Errorf("%w: limit is %d; 0 means no limit", ErrBadRequest, r.Limit)
	case r.Shard != nil && (r.Shard.Total < 1 || r.Shard.Index < 0 || r.Shard.Index >= r.Shard.Total):
		return fmt.Errorf("%w: no shard %d of %d; the first is 0", ErrBadRequest, r.Shard.Index, r.Shard.Total)
	}
	return nil
}

// Validate returns an ErrBadRequest that names what no store can answer.
func (r *LabelsRequest) Validate() error {
	if r.Limit < 0 {
		return fmt.Errorf("%w: limit is %d; 0 means no limit", ErrBadRequest, r.Limit)
	}
	return nil
}

// requestFromWire also says which hints of the caller nobody here honours.
func requestFromWire(in *storepb.SeriesRequest) (req *Request, ignored string, err error) {
	var hints storepb.SeriesRequestHints
	if err := unpackHints(in.Hints, &hints); err != nil {
		return nil, "", err
	}
	matchers, err := matchersFromWire(in.Matchers)
	if err != nil {
		return nil, "", err
	}
	partial, err := partialFromWire(in.PartialResponseDisabled, in.PartialResponseStrategy)
	if err != nil {
		return nil, "", err
	}
	req = &Request{
		MinTime:       in.MinTime,
		MaxTime:       in.MaxTime,
		Matchers:      matchers,
		MaxResolution: knownResolution(in.MaxResolutionWindow),
		Fallback:      knownResolution(in.VarveFallbackResolution),
		WithoutLabels: in.WithoutReplicaLabels,
		SkipChunks:    in.SkipChunks,
		Limit:         int(in.Limit),
		Partial:       partial,
		stats:         hints.EnableQueryStats,
	}
	for _, a := range in.Aggregates {
		if a > storepb.Aggr_RAW && a <= storepb.Aggr_COUNTER {
			req.Aggregates |= aggrchunk.KindsOf(aggrchunk.Kind(a - storepb.Aggr_COUNT))
		}
	}
	if s := in.ShardInfo; s != nil && s.TotalShards >= 1 {
		req.Shard = &Shard{Index: s.ShardIndex, Total: s.TotalShards, By: s.By, Labels: s.Labels}
	}
	return req, ignoredHints(hints.BlockMatchers), req.Validate()
}

func (r *Request) toWire() *storepb.SeriesRequest {
	out := &storepb.SeriesRequest{
		MinTime:                 r.MinTime,
		MaxTime:                 r.MaxTime,
		Matchers:                matchersToWire(r.Matchers),
		MaxResolutionWindow:     int64(r.MaxResolution),
		PartialResponseStrategy: partialToWire(r.Partial),
		SkipChunks:              r.SkipChunks,
		WithoutReplicaLabels:    r.WithoutLabels,
		Limit:                   int64(r.Limit),
		VarveNative:             true,
		VarveFallbackResolution: int64(r.Fallback),
	}
	for k := range aggrchunk.Kind(aggrchunk.NumKinds) {
		if r.Aggregates.Has(k) {
			out.Aggregates = append(out.Aggregates, storepb.Aggr_COUNT+storepb.Aggr(k))
		}
	}
	if s := r.Shard; s != nil {
		out.ShardInfo = &storepb.ShardInfo{ShardIndex: s.Index, TotalShards: s.Total, By: s.By, Labels: s.Labels}
	}
	return out
}

func namesRequestFromWire(in *storepb.LabelNamesRequest) (req *LabelsRequest, ignored string, err error) {
	var hints storepb.LabelNamesRequestHints
	if err := unpackHints(in.Hints, &hints); err != nil {
		return nil, "", err
	}
	req = &LabelsRequest{MinTime: in.Start, MaxTime: in.End, WithoutLabels: in.WithoutReplicaLabels, Limit: int(in.Limit)}
	err = req.fill(in.Matchers, in.PartialResponseDisabled, in.PartialResponseStrategy)
	return req, ignoredHints(hints.BlockMatchers), err
}

func valuesRequestFromWire(in *storepb.LabelValuesRequest) (req *LabelsRequest, ignored string, err error) {
	var hints storepb.LabelValuesRequestHints
	if err := unpackHints(in.Hints, &hints); err != nil {
		return nil, "", err
	}
	req = &LabelsRequest{MinTime: in.Start, MaxTime: in.End, WithoutLabels: in.WithoutReplicaLabels, Limit: int(in.Limit)}
	if in.Label == "" {
		return nil, "", errNoLabel
	}
	err = req.fill(in.Matchers, in.PartialResponseDisabled, in.PartialResponseStrategy)
	return req, ignoredHints(hints.BlockMatchers), err
}

// fill converts what needs a check, and checks the whole.
func (r *LabelsRequest) fill(ms []*storepb.LabelMatcher, disabled bool, strategy storepb.PartialResponseStrategy) (err error) {
	if r.Matchers, err = matchersFromWire(ms); err != nil {
		return err
	}
	if r.Partial, err = partialFromWire(disabled, strategy); err != nil {
		return err
	}
	return r.Validate()
}

func matchersFromWire(in []*storepb.LabelMatcher) ([]*labels.Matcher, error) {
	out := make([]*labels.Matcher, 0, len(in))
	for _, m := range in {
		// The values of both enumerations agree.
		if m.Type < storepb.LabelMatcher_EQ || m.Type > storepb.LabelMatcher_NRE {
			return nil, fmt.Errorf("%w: matcher on label %q has unknown type %d", ErrBadRequest, m.Name, m.Type)
		}
		lm, err := labels.NewMatcher(labels.MatchType(m.Type), m.Name, m.Value)
		if err != nil {
			return nil, fmt.Errorf("%w: matcher on label %q: %w", ErrBadRequest, m.Name, err)
		}
		out = append(out, lm)
	}
	return out, nil
}

func matchersToWire(in []*labels.Matcher) []*storepb.LabelMatcher {
	out := make([]*storepb.LabelMatcher, 0, len(in))
	for _, m := range in {
		out = append(out, &storepb.LabelMatcher{Type: storepb.LabelMatcher_Type(m.Type), Name: m.Name, Value: m.Value})
	}
	return out
}

func partialFromWire(disabled bool, strategy storepb.PartialResponseStrategy) (PartialResponse, error) {
	switch {
	case disabled || strategy == storepb.PartialResponseStrategy_ABORT:
		return Abort, nil
	case strategy == storepb.PartialResponseStrategy_WARN:
		return Warn, nil
	}
	return Abort, fmt.Errorf("%w: partial response strategy %d is unknown", ErrBadRequest, strategy)
}

func partialToWire(p PartialResponse) storepb.PartialResponseStrategy {
	if p == Abort {
		return storepb.PartialResponseStrategy_ABORT
	}
	return storepb.PartialResponseStrategy_WARN
}

// knownResolution is the coarsest resolution that exists and is not above ms,
// which callers derive from a query's step. A negative one stays, to be refused.
func knownResolution(ms int64) block.Resolution {
	r := block.Resolution(ms)
	switch {
	case r >= block.OneHour:
		return block.OneHour
	case r >= block.FiveMin:
		return block.FiveMin
	case r >= block.Raw:
		return block.Raw
	}
	return r
}

func unpackHints(in *anypb.Any, into proto.Message) error {
	if in == nil {
		return nil
	}
	if err := in.UnmarshalTo(into); err != nil {
		return fmt.Errorf("%w: hints: %w", ErrBadRequest, err)
	}
	return nil
}

// ignoredHints is the warning for block matchers: a debugging aid of one kind of
// store, which the contract between packages leaves out.
func ignoredHints(blockMatchers []*storepb.LabelMatcher) string {
	if len(blockMatchers) == 0 {
		return ""
	}
	return "block matchers in hints have no effect here: the answer is from all blocks"
}
