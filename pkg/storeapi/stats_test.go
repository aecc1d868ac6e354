package storeapi

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/varve-io/varve/internal/golden"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi/storepb"
)

// indented is a message as JSON whose bytes stay the same.
func indented(t *testing.T, m proto.Message) string {
	t.Helper()
	b, err := protojson.Marshal(m)
	var fields map[string]any
	if err == nil {
		err = json.Unmarshal(b, &fields)
	}
	if err == nil {
		b, err = json.MarshalIndent(fields, "", "  ")
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + "\n"
}

type countedSet struct{ series.Set }

func (countedSet) Stats() QueryStats {
	return QueryStats{Blocks: []string{"A", "B"}, Touched: 5, Series: 3, Chunks: 7, Took: 4 * time.Second, Stages: []Stage{
		{Name: StageTurn, Took: time.Millisecond},
		{Name: StageSelect, Took: 20 * time.Millisecond, Ranges: 2, Needed: 100, FromMemory: 10, FromDisk: 20, FromRemote: 30, Shared: 15, Requests: 1, Fetched: 25},
		{Name: StageEntries, Ranges: 3, Needed: 200, Requests: 2, Fetched: 300},
		{Name: StageChunks, Ranges: 4, Needed: 700, Requests: 3, Fetched: 900},
		{Name: StageWait, Took: time.Second},
		{Name: StageSend, Took: 3 * time.Second},
	}}
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
		golden.Check(t, "testdata/stats.golden", indented(t, answer))
	}
}
