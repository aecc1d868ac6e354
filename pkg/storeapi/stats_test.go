package storeapi

import (
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi/storepb"
)

type countedSet struct{ series.Set }

func (countedSet) Stats() QueryStats {
	return QueryStats{Blocks: []string{"A", "B"}, Touched: 5, Series: 3, Chunks: 7, ChunkBytes: 700, Requests: 2, Fetched: 900, Took: time.Second}
}

func TestStatsAreSentToWhoAsksForThem(t *testing.T) {
	conn := connect(t, Register(&fakeStore{series: func(context.Context, *Request) series.Set {
		return countedSet{series.NewSet(numbered(t, 3), nil)}
	}}, ServerOptions{}))
	for _, wanted := range []bool{true, false} {
		hints, err := anypb.New(&storepb.SeriesRequestHints{EnableQueryStats: wanted})
		if err != nil {
			t.Fatal(err)
		}
		req := anything().toWire()
		req.Hints = hints
		got, err := frames(t, conn, req)
		if err != nil {
			t.Fatal(err)
		}
		answer := new(storepb.SeriesResponseHints)
		last := got[len(got)-1].GetHints()
		if (last != nil) != wanted {
			t.Fatalf("statistics wanted: %t; the last frame is %v", wanted, got[len(got)-1])
		}
		if !wanted {
			continue
		}
		if err := last.UnmarshalTo(answer); err != nil {
			t.Fatal(err)
		}
		s := answer.QueryStats
		if len(answer.QueriedBlocks) != 2 || s.BlocksQueried != 2 || s.SeriesTouched != 5 || s.MergedSeriesCount != 3 || s.MergedChunksCount != 7 ||
			s.ChunksTouchedSizeSum != 700 || s.ChunksFetchCount != 2 || s.DataDownloadedSizeSum != 900 || s.MergeDuration.AsDuration() != time.Second {
			t.Errorf("statistics are %v", answer)
		}
	}
}
