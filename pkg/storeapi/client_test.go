package storeapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"google.golang.org/grpc"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi/storepb"
)

// peer is another program's endpoint, frame by frame.
type peer struct {
	storepb.UnimplementedStoreServer
	storepb.UnimplementedInfoServer
	info   *storepb.InfoResponse
	series func(req *storepb.SeriesRequest, stream grpc.ServerStreamingServer[storepb.SeriesResponse]) error
	names  []string
}

func (p *peer) Info(context.Context, *storepb.InfoRequest) (*storepb.InfoResponse, error) {
	return p.info, nil
}

func (p *peer) Series(req *storepb.SeriesRequest, stream grpc.ServerStreamingServer[storepb.SeriesResponse]) error {
	return p.series(req, stream)
}

func (p *peer) LabelNames(context.Context, *storepb.LabelNamesRequest) (*storepb.LabelNamesResponse, error) {
	return &storepb.LabelNamesResponse{Names: p.names}, nil
}

func (p *peer) register(r grpc.ServiceRegistrar) {
	storepb.RegisterStoreServer(r, p)
	storepb.RegisterInfoServer(r, p)
}

// thanosStore is one that knows nothing of us.
func thanosStore() *peer {
	return &peer{info: &storepb.InfoResponse{
		ComponentType: "store",
		Store:         &storepb.StoreInfo{SupportsSharding: true, SupportsWithoutReplicaLabels: true},
	}}
}

// send answers with series given as label text, one frame each.
func send(t *testing.T, selectors ...string) func(*storepb.SeriesRequest, grpc.ServerStreamingServer[storepb.SeriesResponse]) error {
	t.Helper()
	var list []*storepb.SeriesResponse
	for _, sel := range selectors {
		s := &storepb.Series{Chunks: []*storepb.AggrChunk{{MinTime: 1, MaxTime: 3, Raw: &storepb.Chunk{Data: xorChunk(t, chunkenc.EncXOR, 1, 2, 3).Data}}}}
		for _, m := range matchers(t, sel) {
			s.Labels = append(s.Labels, &storepb.Label{Name: m.Name, Value: m.Value})
		}
		list = append(list, &storepb.SeriesResponse{Result: &storepb.SeriesResponse_Series{Series: s}})
	}
	return func(_ *storepb.SeriesRequest, stream grpc.ServerStreamingServer[storepb.SeriesResponse]) error {
		for _, f := range list {
			if err := stream.Send(f); err != nil {
				return err
			}
		}
		return nil
	}
}

func collected(list []series.Series) (out []string) {
	for _, s := range list {
		out = append(out, fmt.Sprintf("%s of %q", s.Labels, s.Replica))
	}
	return out
}

func TestThanosIsAskedWithReplicaLabels(t *testing.T) {
	p := thanosStore()
	var asked *storepb.SeriesRequest
	answer := send(t, `{a="1",replica="x",z="2"}`, `{a="1",replica="y",z="1"}`, `{a="1",z="1"}`)
	p.series = func(req *storepb.SeriesRequest, stream grpc.ServerStreamingServer[storepb.SeriesResponse]) error {
		asked = req
		return answer(req, stream)
	}
	c := client(t, connect(t, p.register), Defaults())
	req := anything()
	req.WithoutLabels, req.Limit, req.Shard = []string{"replica"}, 2, &Shard{Total: 1}
	got, _, err := series.Collect(c.Series(t.Context(), req))
	want := []string{`{a="1", z="1"} of ""`, `{a="1", z="1"} of "y"`, `{a="1", z="2"} of "x"`}
	if err != nil || !slices.Equal(collected(got), want) {
		t.Errorf("got %q (%v), want %q", collected(got), err, want)
	}
	if len(asked.WithoutReplicaLabels) > 0 || asked.Limit != 0 || asked.ShardInfo != nil {
		t.Errorf("request asks the peer to do what it would do wrong: %v", asked)
	}
}

// ledger is a Draw with a limit.
type ledger struct {
	mu              sync.Mutex
	held, most, max int64
}

func (l *ledger) draw(n int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held += n
	l.most = max(l.most, l.held)
	if l.max > 0 && l.held > l.max {
		return fmt.Errorf("%w: %d bytes are too many", ErrLimit, l.held)
	}
	return nil
}

func TestWhatAClientHoldsIsDrawn(t *testing.T) {
	p := thanosStore()
	p.info.Store.SupportsSharding = false
	p.series = send(t, `{a="1",replica="x"}`, `{a="2",replica="x"}`, `{a="3",replica="x"}`, `{a="4",replica="x"}`)
	c := client(t, connect(t, p.register), Defaults())
	for name, change := range map[string]func(*Request){
		"as it comes":       func(*Request) {},
		"sorted anew":       func(r *Request) { r.WithoutLabels = []string{"replica"} },
		"a shard":           func(r *Request) { r.Shard = &Shard{Total: 2} },
		"a sorted shard":    func(r *Request) { r.WithoutLabels, r.Shard = []string{"replica"}, &Shard{Total: 2} },
		"nothing is wanted": func(r *Request) { r.Shard = &Shard{Total: 1 << 40} },
	} {
		t.Run(name, func(t *testing.T) {
			req, l := anything(), &ledger{}
			change(req)
			got, _, err := series.Collect(c.Series(WithDraw(t.Context(), l.draw), req))
			if err != nil {
				t.Fatalf("series: %v", err)
			}
			var want int64
			for i := range got {
				want += Weigh(&got[i])
			}
			if l.held != want || l.most <= 0 {
				t.Errorf("%d bytes are drawn for %d series, at most %d, want %d", l.held, len(got), l.most, want)
			}
			// The limit ends the stream however the answer is read.
			small := &ledger{max: 1}
			if _, _, err := series.Collect(c.Series(WithDraw(t.Context(), small.draw), req)); !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), "peer:10901") {
				t.Errorf("with a limit: got %v, want ErrLimit with the peer", err)
			}
		})
	}
}

// A peer of another kind bounds a frame by its number of series alone.
func TestFramesOfOtherKindsAreSmall(t *testing.T) {
	for name, tc := range map[string]struct {
		varve *storepb.VarveInfo
		want  int64
	}{
		"a peer of another kind": {nil, 64},
		"one of our own":         {&storepb.VarveInfo{Native: true}, 4096},
	} {
		t.Run(name, func(t *testing.T) {
			p := thanosStore()
			p.info.Varve = tc.varve
			var asked *storepb.SeriesRequest
			p.series = func(req *storepb.SeriesRequest, _ grpc.ServerStreamingServer[storepb.SeriesResponse]) error {
				asked = req
				return nil
			}
			_, _, err := series.Collect(client(t, connect(t, p.register), Defaults()).Series(t.Context(), anything()))
			if err != nil || asked.ResponseBatchSize != tc.want {
				t.Errorf("got batches of %d (%v), want %d", asked.ResponseBatchSize, err, tc.want)
			}
		})
	}
}

func TestBrokenPeers(t *testing.T) {
	frame := func(s *storepb.Series) func(*storepb.SeriesRequest, grpc.ServerStreamingServer[storepb.SeriesResponse]) error {
		return func(_ *storepb.SeriesRequest, stream grpc.ServerStreamingServer[storepb.SeriesResponse]) error {
			return stream.Send(&storepb.SeriesResponse{Result: &storepb.SeriesResponse_Series{Series: s}})
		}
	}
	for name, tc := range map[string]struct {
		answer func(*storepb.SeriesRequest, grpc.ServerStreamingServer[storepb.SeriesResponse]) error
		want   string
	}{
		"series out of order":   {send(t, `{a="2"}`, `{a="1"}`), `series {a="1"} comes after {a="2"}`},
		"a label twice":         {frame(&storepb.Series{Labels: []*storepb.Label{{Name: "a", Value: "1"}, {Name: "a", Value: "2"}}}), `label "a" comes twice`},
		"an unknown encoding":   {frame(&storepb.Series{Chunks: []*storepb.AggrChunk{{Raw: &storepb.Chunk{Type: 9, Data: []byte("x")}}}}), "encoding 9"},
		"a negative encoding":   {frame(&storepb.Series{Chunks: []*storepb.AggrChunk{{Raw: &storepb.Chunk{Type: -1, Data: []byte("x")}}}}), "encoding -1"},
		"an encoding too large": {frame(&storepb.Series{Chunks: []*storepb.AggrChunk{{Raw: &storepb.Chunk{VarveEncoding: 257, Data: []byte("x")}}}}), "257"},
		"a chunk back in time":  {frame(&storepb.Series{Chunks: []*storepb.AggrChunk{{MinTime: 5, MaxTime: 1}}}), "from 5 to 1"},
		"no such service":       {storepb.UnimplementedStoreServer{}.Series, "endpoint of the Store API"},
	} {
		t.Run(name, func(t *testing.T) {
			p := thanosStore()
			p.series = tc.answer
			_, _, err := series.Collect(client(t, connect(t, p.register), Defaults()).Series(t.Context(), anything()))
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "peer:10901") {
				t.Errorf("error is %v, want one with %q and the peer", err, tc.want)
			}
		})
	}
}

func TestLabelsOutOfOrderAreSorted(t *testing.T) {
	p := thanosStore()
	p.series = send(t, `{z="1",a="1"}`)
	got, _, err := series.Collect(client(t, connect(t, p.register), Defaults()).Series(t.Context(), anything()))
	if err != nil || len(got) != 1 || got[0].Labels.String() != `{a="1", z="1"}` {
		t.Errorf("got %q (%v)", collected(got), err)
	}
}

func TestSilentPeer(t *testing.T) {
	p := thanosStore()
	answer := send(t, `{a="1"}`)
	p.series = func(req *storepb.SeriesRequest, stream grpc.ServerStreamingServer[storepb.SeriesResponse]) error {
		if err := answer(req, stream); err != nil {
			return err
		}
		<-stream.Context().Done() // and not a word more
		return stream.Context().Err()
	}
	conn := connect(t, p.register)
	t.Run("is given up after the response timeout", func(t *testing.T) {
		o := Defaults()
		o.ResponseTimeout = 250 * time.Millisecond
		got, _, err := series.Collect(client(t, conn, o).Series(t.Context(), anything()))
		if len(got) != 1 || !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "series from peer:10901: silent for 250ms") {
			t.Errorf("got %d series and %v, want one and an error that names peer and wait", len(got), err)
		}
	})
	t.Run("is left when the caller goes", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		set := client(t, conn, Defaults()).Series(ctx, anything())
		if !set.Next() {
			t.Fatalf("no series: %v", set.Err())
		}
		cancel()
		if set.Next() || !errors.Is(set.Err(), context.Canceled) {
			t.Errorf("error is %v, want %v", set.Err(), context.Canceled)
		}
	})
}

// A reader that takes its time is not the peer's fault.
func TestSlowReaderIsNoTimeout(t *testing.T) {
	p := thanosStore()
	p.series = send(t, `{a="1"}`, `{a="2"}`, `{a="3"}`, `{a="4"}`)
	o := Defaults()
	o.ResponseTimeout, o.ReadAhead = 200*time.Millisecond, 1
	set := client(t, connect(t, p.register), o).Series(t.Context(), anything())
	n := 0
	for set.Next() {
		n++
		<-time.After(2 * o.ResponseTimeout)
	}
	if set.Err() != nil || n != 4 {
		t.Errorf("got %d series (%v), want 4", n, set.Err())
	}
}

func TestAnswersHaveALimit(t *testing.T) {
	p := thanosStore()
	p.series = send(t, `{a="1"}`, `{a="2"}`, `{a="3"}`)
	o := Defaults()
	o.MaxBytes = 300
	_, _, err := series.Collect(client(t, connect(t, p.register), o).Series(t.Context(), anything()))
	if !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), "300 bytes") {
		t.Errorf("error is %v, want ErrLimit with the limit", err)
	}
}

func TestPeerWithoutShardingIsFiltered(t *testing.T) {
	p := thanosStore()
	p.info.Store.SupportsSharding = false
	p.series = send(t, `{a="1"}`, `{a="2"}`, `{a="3"}`, `{a="4"}`)
	c := client(t, connect(t, p.register), Defaults())
	total := 0
	for i := range int64(2) {
		req := anything()
		req.Shard = &Shard{Index: i, Total: 2}
		got, _, err := series.Collect(c.Series(t.Context(), req))
		if err != nil {
			t.Fatalf("series: %v", err)
		}
		total += len(got)
	}
	if total != 4 {
		t.Errorf("two shards have %d series, want 4", total)
	}
}

func TestLabelNamesOfCarelessPeers(t *testing.T) {
	p := thanosStore()
	p.names = []string{"job", "cluster", "replica", "cluster"}
	got, _, err := client(t, connect(t, p.register), Defaults()).LabelNames(t.Context(), &LabelsRequest{WithoutLabels: []string{"replica"}})
	if want := []string{"cluster", "job"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q (%v), want %q", got, err, want)
	}
}

func TestUnreachablePeer(t *testing.T) {
	conn, err := Dial("127.0.0.1:1", DialOptions{Compression: SnappyCompression})
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	defer func() {
		if err := conn.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	set := client(t, conn, Defaults()).Series(t.Context(), anything())
	if set.Next() || !errors.Is(set.Err(), ErrUnavailable) || !strings.Contains(set.Err().Error(), "peer:10901") {
		t.Errorf("error is %v, want ErrUnavailable with the peer", set.Err())
	}
}

func TestSettingsAreChecked(t *testing.T) {
	if err := Defaults().Validate(); err != nil {
		t.Errorf("defaults: %v", err)
	}
	for name, o := range map[string]Options{
		"nothing set":        {},
		"a negative timeout": {ResponseTimeout: -1, BatchSize: 1, ReadAhead: 1},
		"a negative limit":   {MaxBytes: -1, BatchSize: 1, ReadAhead: 1},
	} {
		if _, err := NewClient(nil, "x", o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := Dial("x", DialOptions{Compression: "zip"}); err == nil || !strings.Contains(err.Error(), "zip") {
		t.Errorf("unknown compression: error is %v", err)
	}
}

// TestShardsOfThanosBlocksAreNotSeen: they are parts of one stream, not replicas of it.
func TestShardsOfThanosBlocksAreNotSeen(t *testing.T) {
	p := thanosStore()
	set := func(values ...string) *storepb.LabelSet {
		out := &storepb.LabelSet{}
		for i := 0; i < len(values); i += 2 {
			out.Labels = append(out.Labels, &storepb.Label{Name: values[i], Value: values[i+1]})
		}
		return out
	}
	first, second := set(block.ShardLabel, "1_of_2", "c", "eu"), set(block.ShardLabel, "2_of_2", "c", "eu")
	p.info.LabelSets = []*storepb.LabelSet{first, second, set("c", "us")}
	p.info.Store.TsdbInfos = []*storepb.TSDBInfo{{Labels: first, MinTime: 1, MaxTime: 2}}
	p.names = []string{block.ShardLabel, "c"}
	p.series = send(t, `{__varve_shard__="1_of_2",c="eu",i="2"}`, `{__varve_shard__="2_of_2",c="eu",i="1"}`, `{c="eu",i="3"}`)
	c := client(t, connect(t, p.register), Defaults())

	info, err := c.Info(t.Context())
	if got := fmt.Sprint(info.LabelSets, info.Streams); err != nil || got != `[{c="eu"} {c="us"}] [{{c="eu"} 1 2}]` {
		t.Errorf("info has %s (%v)", got, err)
	}
	got, _, err := series.Collect(c.Series(t.Context(), anything()))
	if want := []string{`{c="eu", i="1"} of ""`, `{c="eu", i="2"} of ""`, `{c="eu", i="3"} of ""`}; err != nil || !slices.Equal(collected(got), want) {
		t.Errorf("got %q (%v), want %q", collected(got), err, want)
	}
	names, _, err := c.LabelNames(t.Context(), &LabelsRequest{MaxTime: 1})
	if err != nil || !slices.Equal(names, []string{"c"}) {
		t.Errorf("names are %q (%v)", names, err)
	}
	if values, _, err := c.LabelValues(t.Context(), block.ShardLabel, &LabelsRequest{MaxTime: 1}); err != nil || len(values) > 0 {
		t.Errorf("values are %q (%v)", values, err)
	}
}
