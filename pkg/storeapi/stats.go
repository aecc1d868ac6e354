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
	// Touched series match, Series were answered, and Chunks of them.
	Touched, Series, Chunks int64
	// Stages say where time and bytes went. The time of StageTurn, StageWait and StageSend
	// is that of the caller; the others work side by side, and theirs is added up.
	Stages []Stage
	// Took is the time from the request to its end.
	Took time.Duration
}

// The names of stages.
const (
	// StageTurn is waiting for other requests to end.
	StageTurn = "turn"
	// StageSelect is finding the series that match: opening indexes, reading postings.
	StageSelect = "select"
	// StageEntries is reading the labels and chunk references of series.
	StageEntries = "entries"
	// StageChunks is reading chunks.
	StageChunks = "chunks"
	// StageWait is waiting for what select, entries and chunks do side by side.
	StageWait = "wait"
	// StageSend is merging, encoding and sending, and waiting for who reads.
	StageSend = "send"
)

// Stage is a part of the work of an answer.
type Stage struct {
	Name string
	Took time.Duration
	// Ranges of objects were wanted, Needed bytes long together.
	Ranges, Needed int64
	// Of these bytes, so many were in memory, on disk, in a cache that several stores
	// share, or on their way for another request.
	FromMemory, FromDisk, FromRemote, Shared int64
	// The others came by Requests to the bucket, which brought Fetched bytes.
	Requests, Fetched int64
}

// Total adds up the bytes of all stages and what they came by.
func (s QueryStats) Total() (all Stage) {
	for _, st := range s.Stages {
		all.Ranges += st.Ranges
		all.Needed += st.Needed
		all.FromMemory += st.FromMemory
		all.FromDisk += st.FromDisk
		all.FromRemote += st.FromRemote
		all.Shared += st.Shared
		all.Requests += st.Requests
		all.Fetched += st.Fetched
	}
	return all
}

// stage returns the stage of a name.
func (s QueryStats) stage(name string) Stage {
	for _, st := range s.Stages {
		if st.Name == name {
			return st
		}
	}
	return Stage{Name: name}
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

// toWire fills the fields that a peer of any kind knows, and our own.
func (s QueryStats) toWire() *storepb.SeriesResponseHints {
	selected, entries, chunks := s.stage(StageSelect), s.stage(StageEntries), s.stage(StageChunks)
	stats := &storepb.QueryStats{
		BlocksQueried:          int64(len(s.Blocks)),
		MergedSeriesCount:      s.Series,
		MergedChunksCount:      s.Chunks,
		PostingsTouchedSizeSum: selected.Needed, PostingsFetchedSizeSum: selected.Fetched, PostingsFetchCount: selected.Requests,
		SeriesTouched:        s.Touched,
		SeriesTouchedSizeSum: entries.Needed, SeriesFetchedSizeSum: entries.Fetched, SeriesFetchCount: entries.Requests,
		ChunksTouched:        s.Chunks,
		ChunksTouchedSizeSum: chunks.Needed, ChunksFetchedSizeSum: chunks.Fetched, ChunksFetchCount: chunks.Requests,
		DataDownloadedSizeSum: s.Total().Fetched,
		GetAllDuration:        durationpb.New(s.stage(StageWait).Took),
		MergeDuration:         durationpb.New(s.stage(StageSend).Took),
	}
	for _, st := range s.Stages {
		stats.VarveStages = append(stats.VarveStages, &storepb.QueryStage{
			Name: st.Name, Took: durationpb.New(st.Took), Ranges: st.Ranges, Needed: st.Needed,
			FromMemory: st.FromMemory, FromDisk: st.FromDisk, FromRemote: st.FromRemote, Shared: st.Shared,
			Requests: st.Requests, Fetched: st.Fetched,
		})
	}
	out := &storepb.SeriesResponseHints{QueryStats: stats}
	for _, id := range s.Blocks {
		out.QueriedBlocks = append(out.QueriedBlocks, &storepb.Block{Id: id})
	}
	return out
}
