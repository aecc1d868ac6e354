package proxyapi

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/prometheus/prometheus/util/annotations"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/varve-io/varve/pkg/proxyapi/proxypb"
)

// Client speaks to the services of one endpoint. Answers are read whole. It is
// safe for concurrent use.
type Client struct {
	conn grpc.ClientConnInterface
	peer string
}

var (
	_ Rules     = (*Client)(nil)
	_ Targets   = (*Client)(nil)
	_ Metadata  = (*Client)(nil)
	_ Exemplars = (*Client)(nil)
	_ Status    = (*Client)(nil)
)

// NewClient returns a client over conn, which the caller keeps and closes. peer is
// the address that errors and warnings name.
func NewClient(conn grpc.ClientConnInterface, peer string) *Client {
	return &Client{conn: conn, peer: peer}
}

// Rules asks the peer for its rules.
func (c *Client) Rules(ctx context.Context, req RulesRequest) ([]RuleGroup, annotations.Annotations, error) {
	var out []RuleGroup
	stream, err := proxypb.NewRulesClient(c.conn).Rules(ctx, rulesRequestToWire(req))
	warnings, err := drain(c, "rules from", stream, err, func(f *proxypb.RulesResponse) string {
		if g := f.GetGroup(); g != nil {
			out = append(out, groupFromWire(g))
		}
		return f.GetWarning()
	})
	return out, warnings, err
}

// Targets asks the peer for its targets.
func (c *Client) Targets(ctx context.Context, req TargetsRequest) (TargetDiscovery, annotations.Annotations, error) {
	var out TargetDiscovery
	stream, err := proxypb.NewTargetsClient(c.conn).Targets(ctx, targetsRequestToWire(req))
	warnings, err := drain(c, "targets from", stream, err, func(f *proxypb.TargetsResponse) string {
		d := targetsFromWire(f.GetTargets())
		out.Active, out.Dropped = append(out.Active, d.Active...), append(out.Dropped, d.Dropped...)
		return f.GetWarning()
	})
	return out, warnings, err
}

// MetricMetadata asks the peer for its metadata.
func (c *Client) MetricMetadata(ctx context.Context, req MetadataRequest) (map[string][]Meta, annotations.Annotations, error) {
	var parts []map[string][]Meta
	stream, err := proxypb.NewMetadataClient(c.conn).MetricMetadata(ctx, &proxypb.MetricMetadataRequest{
		Metric: req.Metric, Limit: int32(max(-1, min(req.Limit, 1<<31-1))), PartialResponseStrategy: strategy(req.Abort),
	})
	warnings, err := drain(c, "metadata from", stream, err, func(f *proxypb.MetricMetadataResponse) string {
		parts = append(parts, metadataFromWire(f.GetMetadata()))
		return f.GetWarning()
	})
	return MergeMetadata(parts, req.Limit), warnings, err
}

// Exemplars asks the peer for exemplars.
func (c *Client) Exemplars(ctx context.Context, req ExemplarsRequest) ([]SeriesExemplars, annotations.Annotations, error) {
	var out []SeriesExemplars
	stream, err := proxypb.NewExemplarsClient(c.conn).Exemplars(ctx, &proxypb.ExemplarsRequest{
		Query: req.Query, Start: req.Start, End: req.End, PartialResponseStrategy: strategy(req.Abort),
	})
	warnings, err := drain(c, "exemplars from", stream, err, func(f *proxypb.ExemplarsResponse) string {
		if d := f.GetData(); d != nil {
			out = append(out, exemplarsFromWire(d))
		}
		return f.GetWarning()
	})
	return out, warnings, err
}

// TSDBStatistics asks the peer for the statistics of its TSDBs.
func (c *Client) TSDBStatistics(ctx context.Context, req StatusRequest) (map[string]TSDBStatus, annotations.Annotations, error) {
	var parts []map[string]TSDBStatus
	stream, err := proxypb.NewStatusClient(c.conn).TSDBStatistics(ctx, statusRequestToWire(req))
	warnings, err := drain(c, "TSDB statistics from", stream, err, func(f *proxypb.TSDBStatisticsResponse) string {
		parts = append(parts, statusFromWire(f.GetStatistics()))
		return f.GetWarning()
	})
	return MergeStatus(parts, req.Limit), warnings, err
}

// drain reads a stream to its end. take returns the warning of a frame, empty if
// it is none. err is that of opening the stream.
func drain[T any](c *Client, doing string, stream grpc.ServerStreamingClient[T], err error, take func(*T) string) (as annotations.Annotations, _ error) {
	for err == nil {
		var frame *T
		if frame, err = stream.Recv(); err == nil {
			if text := take(frame); text != "" {
				as.Add(errors.New(c.peer + ": " + text))
			}
		}
	}
	if errors.Is(err, io.EOF) {
		return as, nil
	}
	return nil, fmt.Errorf("%s %s: %w", doing, c.peer, fromStatus(err))
}

// fromStatus replaces a gRPC status by the error that its code stands for.
func fromStatus(err error) error {
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	var mark error
	switch s.Code() {
	case codes.InvalidArgument:
		mark = ErrBadRequest
	case codes.Unavailable:
		mark = ErrUnavailable
	case codes.Canceled:
		mark = context.Canceled
	case codes.DeadlineExceeded:
		mark = context.DeadlineExceeded
	default:
		return err
	}
	return fmt.Errorf("%w: %s", mark, s.Message())
}

// toStatus is the reverse of fromStatus.
func toStatus(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrBadRequest):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, ErrUnavailable):
		return status.Error(codes.Unavailable, err.Error())
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	}
	if s, ok := status.FromError(err); ok {
		return status.Error(s.Code(), err.Error())
	}
	return status.Error(codes.Internal, err.Error())
}
