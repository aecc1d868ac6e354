package proxyapi

import (
	"context"
	"errors"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"
)

// The services. Warnings name parts that are missing from an answer; a request
// with Abort turns them into an error. Implementations are safe for concurrent use.
type (
	// Rules tells rule groups with their state.
	Rules interface {
		Rules(ctx context.Context, req RulesRequest) ([]RuleGroup, annotations.Annotations, error)
	}
	// Targets tells what is scraped, and what was discovered and dropped.
	Targets interface {
		Targets(ctx context.Context, req TargetsRequest) (TargetDiscovery, annotations.Annotations, error)
	}
	// Metadata tells type, help and unit by metric name.
	Metadata interface {
		MetricMetadata(ctx context.Context, req MetadataRequest) (map[string][]Meta, annotations.Annotations, error)
	}
	// Exemplars tells the exemplars of the series that a query selects.
	Exemplars interface {
		Exemplars(ctx context.Context, req ExemplarsRequest) ([]SeriesExemplars, annotations.Annotations, error)
	}
	// Status tells the size and cardinality of TSDBs, by tenant.
	Status interface {
		TSDBStatistics(ctx context.Context, req StatusRequest) (map[string]TSDBStatus, annotations.Annotations, error)
	}
)

// Errors that a caller branches on; they travel as gRPC codes.
var (
	// ErrBadRequest marks a request that can never succeed (InvalidArgument).
	ErrBadRequest = errors.New("bad request")
	// ErrUnavailable marks an endpoint that cannot answer now (Unavailable).
	ErrUnavailable = errors.New("unavailable")
)

// dropLabels removes labels by name.
func dropLabels(lset labels.Labels, names []string) labels.Labels {
	if len(names) == 0 {
		return lset
	}
	return labels.NewBuilder(lset).Del(names...).Labels()
}

// list makes the JSON form of an empty list [], as Prometheus' is.
func list[T any](in []T) []T {
	if in == nil {
		return []T{}
	}
	return in
}
