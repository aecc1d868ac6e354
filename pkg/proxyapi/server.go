package proxyapi

import (
	"maps"
	"slices"

	"github.com/prometheus/prometheus/util/annotations"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/varve-io/varve/pkg/proxyapi/proxypb"
)

// Services are those that a process has; nil ones are not registered. Whatever
// is registered must be announced by Info, and nothing else.
type Services struct {
	Rules     Rules
	Targets   Targets
	Metadata  Metadata
	Exemplars Exemplars
	Status    Status
}

// Register returns what adds the services to a gRPC server.
func Register(s Services) func(grpc.ServiceRegistrar) {
	return func(r grpc.ServiceRegistrar) {
		if s.Rules != nil {
			proxypb.RegisterRulesServer(r, &rulesServer{rules: s.Rules})
		}
		if s.Targets != nil {
			proxypb.RegisterTargetsServer(r, &targetsServer{targets: s.Targets})
		}
		if s.Metadata != nil {
			proxypb.RegisterMetadataServer(r, &metadataServer{metadata: s.Metadata})
		}
		if s.Exemplars != nil {
			proxypb.RegisterExemplarsServer(r, &exemplarsServer{exemplars: s.Exemplars})
		}
		if s.Status != nil {
			proxypb.RegisterStatusServer(r, &statusServer{status: s.Status})
		}
	}
}

// check turns the end of a call into what there is to send: an error as its code, a
// warning as an error for callers who want all or nothing, else the warnings.
func check(s Strategy, as annotations.Annotations, err error) (warnings []string, _ error) {
	if err != nil {
		return nil, toStatus(err)
	}
	warnings = slices.Sorted(maps.Keys(as)) // equal answers are equal bytes
	if bool(s) && len(warnings) > 0 {
		return nil, status.Error(codes.Aborted, warnings[0])
	}
	return warnings, nil
}

func send[T any](stream grpc.ServerStreamingServer[T], frames []*T) error {
	for _, f := range frames {
		if err := stream.Send(f); err != nil {
			return err
		}
	}
	return nil
}

type rulesServer struct {
	proxypb.UnimplementedRulesServer
	rules Rules
}

func (s *rulesServer) Rules(in *proxypb.RulesRequest, stream grpc.ServerStreamingServer[proxypb.RulesResponse]) error {
	req := rulesRequestFromWire(in)
	groups, as, err := s.rules.Rules(stream.Context(), req)
	warnings, err := check(req.Abort, as, err)
	if err != nil {
		return err
	}
	var frames []*proxypb.RulesResponse
	for _, g := range groups {
		frames = append(frames, &proxypb.RulesResponse{Result: &proxypb.RulesResponse_Group{Group: groupToWire(g)}})
	}
	for _, text := range warnings {
		frames = append(frames, &proxypb.RulesResponse{Result: &proxypb.RulesResponse_Warning{Warning: text}})
	}
	return send(stream, frames)
}

type targetsServer struct {
	proxypb.UnimplementedTargetsServer
	targets Targets
}

func (s *targetsServer) Targets(in *proxypb.TargetsRequest, stream grpc.ServerStreamingServer[proxypb.TargetsResponse]) error {
	req := targetsRequestFromWire(in)
	d, as, err := s.targets.Targets(stream.Context(), req)
	warnings, err := check(req.Abort, as, err)
	if err != nil {
		return err
	}
	frames := []*proxypb.TargetsResponse{{Result: &proxypb.TargetsResponse_Targets{Targets: targetsToWire(d)}}}
	for _, text := range warnings {
		frames = append(frames, &proxypb.TargetsResponse{Result: &proxypb.TargetsResponse_Warning{Warning: text}})
	}
	return send(stream, frames)
}

type metadataServer struct {
	proxypb.UnimplementedMetadataServer
	metadata Metadata
}

func (s *metadataServer) MetricMetadata(in *proxypb.MetricMetadataRequest, stream grpc.ServerStreamingServer[proxypb.MetricMetadataResponse]) error {
	req := MetadataRequest{Metric: in.Metric, Limit: int(in.Limit), Abort: strategyFromWire(in.PartialResponseStrategy)}
	m, as, err := s.metadata.MetricMetadata(stream.Context(), req)
	warnings, err := check(req.Abort, as, err)
	if err != nil {
		return err
	}
	frames := []*proxypb.MetricMetadataResponse{{Result: &proxypb.MetricMetadataResponse_Metadata{Metadata: metadataToWire(m)}}}
	for _, text := range warnings {
		frames = append(frames, &proxypb.MetricMetadataResponse{Result: &proxypb.MetricMetadataResponse_Warning{Warning: text}})
	}
	return send(stream, frames)
}

type exemplarsServer struct {
	proxypb.UnimplementedExemplarsServer
	exemplars Exemplars
}

func (s *exemplarsServer) Exemplars(in *proxypb.ExemplarsRequest, stream grpc.ServerStreamingServer[proxypb.ExemplarsResponse]) error {
	req := ExemplarsRequest{Query: in.Query, Start: in.Start, End: in.End, Abort: strategyFromWire(in.PartialResponseStrategy)}
	data, as, err := s.exemplars.Exemplars(stream.Context(), req)
	warnings, err := check(req.Abort, as, err)
	if err != nil {
		return err
	}
	var frames []*proxypb.ExemplarsResponse
	for _, d := range data {
		frames = append(frames, &proxypb.ExemplarsResponse{Result: &proxypb.ExemplarsResponse_Data{Data: exemplarsToWire(d)}})
	}
	for _, text := range warnings {
		frames = append(frames, &proxypb.ExemplarsResponse{Result: &proxypb.ExemplarsResponse_Warning{Warning: text}})
	}
	return send(stream, frames)
}

type statusServer struct {
	proxypb.UnimplementedStatusServer
	status Status
}

func (s *statusServer) TSDBStatistics(in *proxypb.TSDBStatisticsRequest, stream grpc.ServerStreamingServer[proxypb.TSDBStatisticsResponse]) error {
	req, err := statusRequestFromWire(in)
	if err != nil {
		return toStatus(err)
	}
	m, as, err := s.status.TSDBStatistics(stream.Context(), req)
	warnings, err := check(req.Abort, as, err)
	if err != nil {
		return err
	}
	frames := []*proxypb.TSDBStatisticsResponse{{Result: &proxypb.TSDBStatisticsResponse_Statistics{Statistics: statusToWire(m)}}}
	for _, text := range warnings {
		frames = append(frames, &proxypb.TSDBStatisticsResponse{Result: &proxypb.TSDBStatisticsResponse_Warning{Warning: text}})
	}
	return send(stream, frames)
}
