package storeapi

import (
	"context"
	"maps"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/varve-io/varve/pkg/storeapi/storepb"
)

// ServerOptions are the settings of Register.
type ServerOptions struct {
	// APIs are the services registered beside the Store API on the same server.
	// Info announces these and the Store API, whatever the store says.
	APIs APIs
	// Version is announced to our own kind.
	Version string
}

// Register returns what adds the Store and Info services of a store to a gRPC
// server, which should have been made with ServerOption.
//
// Callers that do not announce themselves as ours get what any peer understands:
// encodings 4 to 6 transcoded, replicas left out, chunk hashes filled in. The
// shard of a request is applied here, whether the store does it or not, and so
// is the limit.
func Register(store Store, o ServerOptions) func(grpc.ServiceRegistrar) {
	RegisterCompressors()
	return func(r grpc.ServiceRegistrar) {
		storepb.RegisterStoreServer(r, &storeServer{store: store})
		storepb.RegisterInfoServer(r, &infoServer{store: store, opts: o})
	}
}

type infoServer struct {
	storepb.UnimplementedInfoServer
	store Store
	opts  ServerOptions
}

// Info answers with an error while the store is not ready, which keeps it out of queries.
func (s *infoServer) Info(ctx context.Context, _ *storepb.InfoRequest) (*storepb.InfoResponse, error) {
	info, err := s.store.Info(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	info.APIs = StoreAPI | s.opts.APIs
	info.SupportsSharding = true // Series sees to it
	return infoToWire(info, s.opts.Version), nil
}

type storeServer struct {
	storepb.UnimplementedStoreServer
	store Store
}

// Series streams the answer in bounded memory, as fast as the caller takes it.
func (s *storeServer) Series(in *storepb.SeriesRequest, stream grpc.ServerStreamingServer[storepb.SeriesResponse]) error {
	req, ignored, err := requestFromWire(in)
	if err != nil {
		return toStatus(err)
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel() // nothing of the set is used after this call

	var peers passed
	if req.stats {
		ctx = WithStats(ctx, peers.add)
	}
	set := s.store.Series(ctx, req)
	out := newFrameWriter(in, req.Aggregates, stream.Send)
	reclaim := func() {}
	if r, ok := set.(Reclaimable); ok {
		reclaim = r.Reclaim
	}
	reclaim() // that it will be called again
	limit := seriesLimit{max: req.Limit}
	for set.Next() {
		cur := set.At()
		if !req.Shard.Keeps(cur.Labels) {
			continue
		}
		if limit.reached(cur.Labels) {
			break
		}
		if err := out.add(cur); err != nil {
			return toStatus(err)
		}
		if out.empty() {
			reclaim()
		}
	}
	if err := set.Err(); err != nil {
		return toStatus(err)
	}
	if err := out.flush(); err != nil {
		return toStatus(err)
	}
	texts, err := warningsFor(req.Partial, set.Warnings(), ignored)
	if err != nil {
		return err
	}
	for _, text := range texts {
		frame := &storepb.SeriesResponse{Result: &storepb.SeriesResponse_Warning{Warning: text}}
		if err := stream.Send(frame); err != nil {
			return toStatus(err)
		}
	}
	if !req.stats {
		return nil
	}
	hints, err := peers.hints(set)
	if err == nil && hints != nil {
		err = stream.Send(hints)
	}
	return toStatus(err)
}

func (s *storeServer) LabelNames(ctx context.Context, in *storepb.LabelNamesRequest) (*storepb.LabelNamesResponse, error) {
	req, ignored, err := namesRequestFromWire(in)
	if err != nil {
		return nil, toStatus(err)
	}
	names, warnings, err := s.store.LabelNames(ctx, req)
	if err != nil {
		return nil, toStatus(err)
	}
	texts, err := warningsFor(req.Partial, warnings, ignored)
	if err != nil {
		return nil, err
	}
	return &storepb.LabelNamesResponse{Names: cut(names, req.Limit), Warnings: texts}, nil
}

func (s *storeServer) LabelValues(ctx context.Context, in *storepb.LabelValuesRequest) (*storepb.LabelValuesResponse, error) {
	req, ignored, err := valuesRequestFromWire(in)
	if err != nil {
		return nil, toStatus(err)
	}
	values, warnings, err := s.store.LabelValues(ctx, in.Label, req)
	if err != nil {
		return nil, toStatus(err)
	}
	texts, err := warningsFor(req.Partial, warnings, ignored)
	if err != nil {
		return nil, err
	}
	return &storepb.LabelValuesResponse{Values: cut(values, req.Limit), Warnings: texts}, nil
}

// warningsFor are the texts to send, or the error that they are to a caller who
// wants all or nothing.
func warningsFor(p PartialResponse, as annotations.Annotations, ignored string) ([]string, error) {
	texts := slices.Sorted(maps.Keys(as)) // equal answers are equal bytes
	if ignored != "" {
		texts = append(texts, ignored)
	}
	if p == Abort && len(texts) > 0 {
		return nil, status.Error(codes.Aborted, texts[0])
	}
	return texts, nil
}

// seriesLimit counts series, those of several replicas and parts as one.
type seriesLimit struct {
	max, seen int
	last      labels.Labels
}

// reached reports whether the next series with these labels would be one too many.
func (l *seriesLimit) reached(next labels.Labels) bool {
	if l.max <= 0 || (l.seen > 0 && labels.Equal(l.last, next)) {
		return false
	}
	l.seen++
	l.last = next
	return l.seen > l.max
}

func cut(list []string, limit int) []string {
	if limit > 0 && len(list) > limit {
		return list[:limit]
	}
	return list
}
