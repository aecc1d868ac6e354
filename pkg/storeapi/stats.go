package storeapi

import (
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/varve-io/varve/pkg/storeapi/storepb"
)

// QueryStats are what an answer took.
type QueryStats struct {
	// Blocks are the ULIDs of the blocks that were read.
	Blocks []string
	// Touched series match, Series were answered, and Chunks of them, ChunkBytes long.
	Touched, Series, Chunks, ChunkBytes int64
	// Requests to the bucket brought Fetched bytes.
	Requests, Fetched int64
	// Waited is the time that the answer waited for chunks, Took all of it.
	Waited, Took time.Duration
}

// Counted is a series.Set that knows what its answer took. The server sends it to
// callers that ask for it, once Next has returned false.
type Counted interface {
	Stats() QueryStats
}

// sendStats sends the statistics of a set if they were asked for and are known.
func sendStats(set any, in *storepb.SeriesRequest, stream grpc.ServerStreamingServer[storepb.SeriesResponse]) error {
	var hints storepb.SeriesRequestHints
	if err := unpackHints(in.Hints, &hints); err != nil {
		return err
	}
	counted, ok := set.(Counted)
	if !ok || !hints.EnableQueryStats {
		return nil
	}
	content, err := anypb.New(counted.Stats().toWire())
	if err != nil {
		return fmt.Errorf("encode statistics: %w", err)
	}
	return stream.Send(&storepb.SeriesResponse{Result: &storepb.SeriesResponse_Hints{Hints: content}})
}

func (s QueryStats) toWire() *storepb.SeriesResponseHints {
	out := &storepb.SeriesResponseHints{QueryStats: &storepb.QueryStats{
		BlocksQueried:         int64(len(s.Blocks)),
		SeriesTouched:         s.Touched,
		MergedSeriesCount:     s.Series,
		MergedChunksCount:     s.Chunks,
		ChunksTouched:         s.Chunks,
		ChunksTouchedSizeSum:  s.ChunkBytes,
		ChunksFetchCount:      s.Requests,
		DataDownloadedSizeSum: s.Fetched,
		GetAllDuration:        durationpb.New(s.Waited),
		MergeDuration:         durationpb.New(s.Took),
	}}
	for _, id := range s.Blocks {
		out.QueriedBlocks = append(out.QueriedBlocks, &storepb.Block{Id: id})
	}
	return out
}
