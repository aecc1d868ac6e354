package storeapi

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

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

// addReads adds what another stage read, and what that came by.
func (s *Stage) addReads(o Stage) {
	s.Ranges += o.Ranges
	s.Needed += o.Needed
	s.FromMemory += o.FromMemory
	s.FromDisk += o.FromDisk
	s.FromRemote += o.FromRemote
	s.Shared += o.Shared
	s.Requests += o.Requests
	s.Fetched += o.Fetched
}

// Total adds up the bytes of all stages and what they came by.
func (s QueryStats) Total() (all Stage) {
	for _, st := range s.Stages {
		all.addReads(st)
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

// Add adds what another answer took, which came side by side with this one.
func (s *QueryStats) Add(o QueryStats) {
	s.Blocks = append(s.Blocks, o.Blocks...)
	s.Touched += o.Touched
	s.Series += o.Series
	s.Chunks += o.Chunks
	s.Took = max(s.Took, o.Took)
	for _, st := range o.Stages {
		i := slices.IndexFunc(s.Stages, func(mine Stage) bool { return mine.Name == st.Name })
		if i < 0 {
			s.Stages = append(s.Stages, st)
			continue
		}
		s.Stages[i].Took += st.Took
		s.Stages[i].addReads(st)
	}
}

type statsKey struct{}

// WithStats returns a context whose Series calls ask peers what their answers took, and
// hand that over before the answer ends. fn is called by the goroutines of all streams of the context.
func WithStats(ctx context.Context, fn func(QueryStats)) context.Context {
	return context.WithValue(ctx, statsKey{}, fn)
}

// statsOf returns who wants to know what answers took, or nil.
func statsOf(ctx context.Context) func(QueryStats) {
	fn, _ := ctx.Value(statsKey{}).(func(QueryStats))
	return fn
}

// wanted are the hints of a request that asks for statistics.
func wanted() (*anypb.Any, error) {
	hints, err := anypb.New(&storepb.SeriesRequestHints{EnableQueryStats: true})
	if err != nil {
		return nil, fmt.Errorf("encode hints: %w", err)
	}
	return hints, nil
}

// Counted is a series.Set that knows what its answer took. The server sends it to
// callers that ask for it, once Next has returned false.
type Counted interface {
	Stats() QueryStats
}

// passed is what the peers of a store said of their parts of an answer.
type passed struct {
	mu    sync.Mutex
	any   bool
	stats QueryStats
}

func (p *passed) add(s QueryStats) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.any = true
	p.stats.Add(s)
}

// hints returns the frame with the statistics of a set, or else of what peers said; nil if
// nothing is known.
func (p *passed) hints(set any) (*storepb.SeriesResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	stats := p.stats
	if counted, ok := set.(Counted); ok {
		stats = counted.Stats()
	} else if !p.any {
		return nil, nil
	}
	content, err := anypb.New(stats.toWire())
	if err != nil {
		return nil, fmt.Errorf("encode statistics: %w", err)
	}
	return &storepb.SeriesResponse{Result: &storepb.SeriesResponse_Hints{Hints: content}}, nil
}

// statsFromWire reads what a peer of any kind says. One that is not ours tells no stages,
// but some of the same.
func statsFromWire(in *anypb.Any) (s QueryStats, ok bool) {
	var hints storepb.SeriesResponseHints
	if in == nil || in.UnmarshalTo(&hints) != nil || hints.QueryStats == nil {
		return s, false // hints of a kind that we do not know mean nothing to us
	}
	q := hints.QueryStats
	s = QueryStats{Touched: q.SeriesTouched, Series: q.MergedSeriesCount, Chunks: q.MergedChunksCount}
	for _, b := range hints.QueriedBlocks {
		s.Blocks = append(s.Blocks, b.GetId())
	}
	for _, st := range q.VarveStages {
		s.Stages = append(s.Stages, Stage{
			Name: st.GetName(), Took: st.GetTook().AsDuration(), Ranges: st.GetRanges(), Needed: st.GetNeeded(),
			FromMemory: st.GetFromMemory(), FromDisk: st.GetFromDisk(), FromRemote: st.GetFromRemote(), Shared: st.GetShared(),
			Requests: st.GetRequests(), Fetched: st.GetFetched(),
		})
	}
	if len(s.Stages) == 0 {
		s.Stages = []Stage{
			{Name: StageSelect, Needed: q.PostingsTouchedSizeSum, Requests: q.PostingsFetchCount, Fetched: q.PostingsFetchedSizeSum},
			{Name: StageEntries, Needed: q.SeriesTouchedSizeSum, Requests: q.SeriesFetchCount, Fetched: q.SeriesFetchedSizeSum},
			{Name: StageChunks, Needed: q.ChunksTouchedSizeSum, Requests: q.ChunksFetchCount, Fetched: q.ChunksFetchedSizeSum},
			{Name: StageWait, Took: q.GetAllDuration.AsDuration()},
			{Name: StageSend, Took: q.MergeDuration.AsDuration()},
		}
	}
	return s, true
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
