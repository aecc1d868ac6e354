package storeapi

import (
	"context"
	"encoding/json"
	"reflect"
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

// TestClientsHandOverWhatPeersSay has a peer of ours, one behind another that only passes
// answers on, and one that counts as Thanos does.
func TestClientsHandOverWhatPeersSay(t *testing.T) {
	counted := &fakeStore{series: func(context.Context, *Request) series.Set { return countedSet{series.NewSet(numbered(t, 3), nil)} }}
	direct := client(t, connect(t, Register(counted, ServerOptions{})), Defaults())
	above := client(t, connect(t, Register(&fakeStore{series: func(ctx context.Context, req *Request) series.Set {
		return struct{ series.Set }{direct.Series(ctx, req)} // not Counted
	}}, ServerOptions{})), Defaults())
	want := countedSet{}.Stats()
	want.Took = 0 // does not travel
	for name, c := range map[string]*Client{"a peer": direct, "a peer of a peer": above} {
		t.Run(name, func(t *testing.T) {
			var got []QueryStats
			ctx := WithStats(t.Context(), func(s QueryStats) { got = append(got, s) })
			if all, _, err := series.Collect(c.Series(ctx, anything())); err != nil || len(all) != 3 {
				t.Fatalf("%d series (%v), want 3", len(all), err)
			}
			if len(got) != 1 || !reflect.DeepEqual(got[0], want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
	t.Run("Thanos", func(t *testing.T) {
		wire := want.toWire()
		wire.QueryStats.VarveStages = nil
		content, err := anypb.New(wire)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := statsFromWire(content)
		if !ok || got.Touched != 5 || len(got.Blocks) != 2 || got.stage(StageChunks) != (Stage{Name: StageChunks, Needed: 700, Requests: 3, Fetched: 900}) || got.stage(StageWait).Took != time.Second {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("something else", func(t *testing.T) {
		content, err := anypb.New(&storepb.SeriesRequestHints{})
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := statsFromWire(content); ok {
			t.Errorf("got %+v of hints of another kind", got)
		}
	})
}

func TestWhatSeveralAnswersTookIsAddedUp(t *testing.T) {
	sum, one := countedSet{}.Stats(), countedSet{}.Stats()
	sum.Add(QueryStats{Touched: 1, Took: 9 * time.Second, Stages: []Stage{{Name: "other", Took: 1}, {Name: StageSelect, Took: 5, FromDisk: 1}}})
	if sum.Touched != one.Touched+1 || sum.Took != 9*time.Second || sum.stage("other").Took != 1 || sum.Total().FromDisk != one.Total().FromDisk+1 || sum.Total().Needed != one.Total().Needed {
		t.Errorf("got %+v", sum)
	}
}
