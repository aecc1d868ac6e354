// Package storeapi is the Store API: the contract to select series, its gRPC
// client and server, and the conversion between wire messages and the series
// currency.
//
// It stands on floor 5. Sidecar, store gateway, fan-out and client all
// implement Store, so queriers stack and one acceptance suite (storeapitest)
// covers all. The messages are wire-compatible with thanos.Store and
// thanos.info.Info; what Varve adds travels in extra fields that a Thanos peer
// skips (docs/format/wire.md).
package storeapi

import (
	"context"
	"errors"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/series"
)

// Store selects series. Implementations are safe for concurrent use.
type Store interface {
	// Info says what the store can answer; an error means it is not ready.
	Info(ctx context.Context) (Info, error)
	// Series returns the matching series, sorted by their final labels. Errors and warnings are on the set.
	// The set, its chunks and its label strings stay valid until ctx ends, and
	// the caller must end ctx once it is done. Series without chunks in the range are left out
	// unless the request skips chunks.
	Series(ctx context.Context, req *Request) series.Set
	// LabelNames returns the sorted names of the labels of matching series.
	LabelNames(ctx context.Context, req *LabelsRequest) ([]string, annotations.Annotations, error)
	// LabelValues returns the sorted values of one label of matching series.
	LabelValues(ctx context.Context, name string, req *LabelsRequest) ([]string, annotations.Annotations, error)
}

// Reclaimable is a series.Set that can use memory again before its context ends. Who
// calls Reclaim once before the first Next may call it again, as often as nothing is
// looked at any more of the chunks that the set handed out so far.
type Reclaimable interface {
	Reclaim()
}

// PartialResponse says what becomes of an answer when a part of it cannot be had.
type PartialResponse int

// The two strategies.
const (
	// Warn answers with what there is and a warning that names what is missing.
	Warn PartialResponse = iota
	// Abort turns anything missing into an error.
	Abort
)

// Request selects series and their chunks.
type Request struct {
	// MinTime and MaxTime are both inclusive, Unix milliseconds.
	MinTime, MaxTime int64
	// Matchers are combined with AND; they may name external labels.
	Matchers []*labels.Matcher
	// MaxResolution is the coarsest resolution allowed.
	MaxResolution block.Resolution
	// Fallback is the coarsest resolution allowed for those sub-ranges that nothing
	// at MaxResolution or finer covers; not above MaxResolution means no fallback.
	Fallback block.Resolution
	// Aggregates are wanted from aggregate chunks; others may be left out.
	Aggregates aggrchunk.Kinds
	// WithoutLabels are removed from the labels before sorting; their values become
	// the series' Replica.
	WithoutLabels []string
	// SkipChunks asks for labels only.
	SkipChunks bool
	// Limit is the largest number of series to return; 0 means all. It is best effort.
	Limit   int
	Partial PartialResponse
	// Shard, when set, keeps only the series of one shard.
	Shard *Shard
	// stats is set when the caller of the server wants to know what the answer took.
	stats bool
}

// Shard selects the series whose hash over some labels falls on Index of Total (docs/format/wire.md).
type Shard struct {
	Index, Total int64
	// By hashes the labels named; otherwise all but those.
	By     bool
	Labels []string
}

// LabelsRequest selects label names or values. Its fields mean what Request's do.
type LabelsRequest struct {
	MinTime, MaxTime int64
	Matchers         []*labels.Matcher
	WithoutLabels    []string
	Limit            int
	Partial          PartialResponse
}

// APIs is a set of the services that an endpoint announces.
type APIs uint8

// The services; they are announced in Info and registered with the gRPC server together.
const (
	StoreAPI APIs = 1 << iota
	RulesAPI
	TargetsAPI
	MetadataAPI
	ExemplarsAPI
	QueryAPI
	StatusAPI
)

// Has reports whether all of o are in a.
func (a APIs) Has(o APIs) bool { return a&o == o }

// Info is what an endpoint says of itself.
type Info struct {
	// Component is sidecar, store, query, rule or receive.
	Component string
	// LabelSets are the external labels of the data, replica labels included; empty sets are left out.
	LabelSets []labels.Labels
	// MinTime and MaxTime bound the data, both inclusive.
	MinTime, MaxTime int64
	// Streams say the same for each external label set.
	Streams []Stream
	// APIs are the services of the endpoint.
	APIs APIs
	// Native is set when the endpoint understands Varve's extra fields: replicas
	// travel beside the labels, and every chunk encoding as it is.
	Native bool
	// DropsLabels is set when the endpoint honours Request.WithoutLabels, and SupportsSharding Request.Shard.
	DropsLabels, SupportsSharding bool
	// sharded is set when a peer shows the label of blocks' shards with its series.
	sharded bool
}

// Stream is the time range of one external label set.
type Stream struct {
	Labels           labels.Labels
	MinTime, MaxTime int64
}

// Errors that a caller branches on; they travel as gRPC codes.
var (
	// ErrBadRequest marks a request that can never succeed (InvalidArgument).
	ErrBadRequest = errors.New("bad request")
	// ErrLimit marks a request that needs more than a limit allows (ResourceExhausted).
	ErrLimit = errors.New("limit exceeded")
	// ErrUnavailable marks a store that cannot answer now (Unavailable).
	ErrUnavailable = errors.New("unavailable")
)
