package storeapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi/storepb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeStore answers what a test tells it to.
type fakeStore struct {
	info     Info
	series   func(ctx context.Context, req *Request) series.Set
	warnings annotations.Annotations
	err      error
}

func (f *fakeStore) Info(context.Context) (Info, error) { return f.info, f.err }

func (f *fakeStore) Series(ctx context.Context, req *Request) series.Set { return f.series(ctx, req) }

func (f *fakeStore) LabelNames(context.Context, *LabelsRequest) ([]string, annotations.Annotations, error) {
	return []string{"a", "b", "c"}, f.warnings, f.err
}

func (f *fakeStore) LabelValues(context.Context, string, *LabelsRequest) ([]string, annotations.Annotations, error) {
	return []string{"1", "2", "3"}, f.warnings, f.err
}

func answering(list []series.Series, warnings annotations.Annotations) func(context.Context, *Request) series.Set {
	return func(context.Context, *Request) series.Set { return series.NewSet(list, warnings) }
}

// connect serves what register adds on a loopback port and dials it.
func connect(t testing.TB, register func(grpc.ServiceRegistrar), o ...grpc.ServerOption) *grpc.ClientConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	srv := grpc.NewServer(o...)
	register(srv)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	conn, err := Dial(l.Addr().String(), DialOptions{})
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Errorf("close connection: %v", err)
		}
		srv.Stop()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return conn
}

func client(t testing.TB, conn *grpc.ClientConn, o Options) *Client {
	t.Helper()
	c, err := NewClient(conn, "peer:10901", o)
	if err != nil {
		t.Fatalf("client: %v", err)
	}
	return c
}

func frames(t testing.TB, conn *grpc.ClientConn, req *storepb.SeriesRequest) ([]*storepb.SeriesResponse, error) {
	t.Helper()
	stream, err := storepb.NewStoreClient(conn).Series(t.Context(), req)
	if err != nil {
		t.Fatalf("series: %v", err)
	}
	var out []*storepb.SeriesResponse
	for {
		f, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		out = append(out, f)
	}
}

func xorChunk(t testing.TB, enc chunkenc.Encoding, ts ...int64) series.Chunk {
	t.Helper()
	c, err := chunkenc.NewEmptyChunk(enc)
	if err != nil {
		t.Fatal(err)
	}
	app, err := c.Appender()
	if err != nil {
		t.Fatal(err)
	}
	for i, at := range ts {
		app.Append(0, at, float64(i))
	}
	return series.Chunk{MinTime: ts[0], MaxTime: ts[len(ts)-1], Encoding: enc, Data: c.Bytes()}
}

func numbered(t testing.TB, n int) (out []series.Series) {
	t.Helper()
	for i := range n {
		out = append(out, series.Series{
			Labels: labels.FromStrings("__name__", "m", "n", fmt.Sprintf("%04d", i)),
			Chunks: []series.Chunk{xorChunk(t, chunkenc.EncXOR, 1, 2, 3)},
		})
	}
	return out
}

func anything() *Request {
	return &Request{MinTime: 0, MaxTime: math.MaxInt64, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+")}}
}

func TestFramesHoldAsManySeriesAsAskedFor(t *testing.T) {
	conn := connect(t, Register(&fakeStore{series: answering(numbered(t, 150), nil)}, ServerOptions{}), ServerOption())
	for name, tc := range map[string]struct {
		batch int64
		want  []int // series of each frame; 0 is a plain series frame
	}{
		"one by one":             {0, slices.Repeat([]int{0}, 150)},
		"as a Thanos querier":    {64, []int{64, 64, 22}},
		"more than there are":    {1000, []int{150}},
		"a batch of one is none": {1, slices.Repeat([]int{0}, 150)},
	} {
		t.Run(name, func(t *testing.T) {
			req := anything().toWire()
			req.ResponseBatchSize = tc.batch
			list, err := frames(t, conn, req)
			if err != nil {
				t.Fatalf("series: %v", err)
			}
			var got []int
			for _, f := range list {
				got = append(got, len(f.GetBatch().GetSeries()))
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("frames: got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestLongSeriesTravelInParts(t *testing.T) {
	long := series.Series{Labels: labels.FromStrings("__name__", "long"), Replica: "r"}
	for i := range int64(50) {
		c := xorChunk(t, chunkenc.EncXOR, i, i)
		c.Data = append(c.Data, make([]byte, 64<<10)...)
		long.Chunks = append(long.Chunks, c)
	}
	conn := connect(t, Register(&fakeStore{series: answering([]series.Series{long}, nil)}, ServerOptions{}), ServerOption())
	c := client(t, conn, Defaults())
	got, _, err := series.Collect(c.Series(t.Context(), anything()))
	if err != nil {
		t.Fatalf("series: %v", err)
	}
	chunks := 0
	for _, part := range got {
		chunks += len(part.Chunks)
		if !labels.Equal(part.Labels, long.Labels) || part.Replica != "r" {
			t.Errorf("a part is of %s (%q), want %s (%q)", part.Labels, part.Replica, long.Labels, long.Replica)
		}
	}
	if len(got) < 3 || chunks != 50 {
		t.Errorf("got %d chunks in %d parts, want 50 in 3 or more", chunks, len(got))
	}
}

func TestThanosGetsWhatItKnows(t *testing.T) {
	in := []series.Series{
		{Labels: labels.FromStrings("job", "x"), Replica: "a", Chunks: []series.Chunk{xorChunk(t, chunkenc.EncXOR2, 1, 2, 3)}},
		{Labels: labels.FromStrings("job", "x"), Replica: "b", Chunks: []series.Chunk{xorChunk(t, chunkenc.EncXOR, 1, 2, 3)}},
	}
	conn := connect(t, Register(&fakeStore{series: answering(in, nil)}, ServerOptions{}), ServerOption())
	req := anything().toWire()
	req.VarveNative = false
	list, err := frames(t, conn, req)
	if err != nil || len(list) != 2 {
		t.Fatalf("got %d frames (%v), want 2", len(list), err)
	}
	for _, f := range list {
		s := f.GetSeries()
		if len(s.VarveReplica) > 0 || len(s.Chunks) != 1 || s.Chunks[0].VarveResolution != 0 {
			t.Errorf("frame has fields of ours: %v", s)
		}
		c := s.Chunks[0].Raw
		if c.Type != storepb.Chunk_XOR || c.VarveEncoding != 0 {
			t.Errorf("encoding is %s (%d), want XOR", c.Type, c.VarveEncoding)
		}
		if want := xxhash.Sum64(c.Data); c.Hash != want {
			t.Errorf("hash is %x, want %x", c.Hash, want)
		}
		if want := in[1].Chunks[0].Data; string(c.Data) != string(want) {
			t.Errorf("data is %x, want %x", c.Data, want)
		}
	}
}

func TestErrorsTravelAsCodes(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		code codes.Code
		want error
	}{
		"a bad request":        {ErrBadRequest, codes.InvalidArgument, ErrBadRequest},
		"a limit":              {ErrLimit, codes.ResourceExhausted, ErrLimit},
		"a store that is away": {ErrUnavailable, codes.Unavailable, ErrUnavailable},
		"the end of a context": {context.DeadlineExceeded, codes.DeadlineExceeded, context.DeadlineExceeded},
		"anything else":        {errors.New("disk on fire"), codes.Internal, nil},
		"a code from below":    {status.Error(codes.NotFound, "gone"), codes.NotFound, nil},
	} {
		t.Run(name, func(t *testing.T) {
			err := fmt.Errorf("read block X: %w", tc.err)
			store := &fakeStore{err: err, series: func(context.Context, *Request) series.Set { return series.ErrSet(err) }}
			conn := connect(t, Register(store, ServerOptions{}), ServerOption())
			if _, err := frames(t, conn, anything().toWire()); status.Code(err) != tc.code {
				t.Errorf("code is %s (%v), want %s", status.Code(err), err, tc.code)
			}
			c := client(t, conn, Defaults())
			c.last.Store(&Info{Native: true})
			_, _, seriesErr := series.Collect(c.Series(t.Context(), anything()))
			_, _, namesErr := c.LabelNames(t.Context(), &LabelsRequest{})
			_, _, valuesErr := c.LabelValues(t.Context(), "job", &LabelsRequest{})
			_, infoErr := c.Info(t.Context())
			for call, err := range map[string]error{"series": seriesErr, "names": namesErr, "values": valuesErr, "info": infoErr} {
				if err == nil || (tc.want != nil && !errors.Is(err, tc.want)) {
					t.Errorf("%s: error is %v, want %v", call, err, tc.want)
					continue
				}
				if !strings.Contains(err.Error(), "peer:10901") || !strings.Contains(err.Error(), "read block X") {
					t.Errorf("%s: error %q names neither peer nor cause", call, err)
				}
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	var as annotations.Annotations
	as.Add(errors.New("block X is damaged"))
	conn := connect(t, Register(&fakeStore{series: answering(numbered(t, 3), as), warnings: as}, ServerOptions{}), ServerOption())
	c := client(t, conn, Defaults())

	req := anything()
	got, warnings, err := series.Collect(c.Series(t.Context(), req))
	if want := "peer:10901: block X is damaged"; err != nil || len(got) != 3 || warnings[want] == nil || len(warnings) != 1 {
		t.Errorf("got %d series, warnings %v (%v), want 3 and %q", len(got), warnings, err, want)
	}
	if _, warnings, err := c.LabelNames(t.Context(), &LabelsRequest{}); err != nil || len(warnings) != 1 {
		t.Errorf("label names: warnings %v (%v), want one", warnings, err)
	}
	req.Partial = Abort
	if _, _, err := series.Collect(c.Series(t.Context(), req)); status.Code(errors.Unwrap(err)) != codes.Aborted {
		t.Errorf("a caller who wants all or nothing gets %v, want code Aborted", err)
	}
	if _, _, err := c.LabelValues(t.Context(), "job", &LabelsRequest{Partial: Abort}); status.Code(errors.Unwrap(err)) != codes.Aborted {
		t.Errorf("label values for such a caller: %v, want code Aborted", err)
	}
	if len(as) != 1 {
		t.Errorf("the store's own warnings became %v", as)
	}
}

func TestRequestsAreChecked(t *testing.T) {
	conn := connect(t, Register(&fakeStore{series: answering(nil, nil)}, ServerOptions{}), ServerOption())
	good, err := anypb.New(&storepb.SeriesRequestHints{})
	if err != nil {
		t.Fatal(err)
	}
	bad, err := anypb.New(&storepb.LabelNamesRequestHints{})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change func(*storepb.SeriesRequest)
		want   codes.Code
	}{
		"as it should be":             {func(*storepb.SeriesRequest) {}, codes.OK},
		"no matchers":                 {func(r *storepb.SeriesRequest) { r.Matchers = nil }, codes.InvalidArgument},
		"a regexp that is none":       {func(r *storepb.SeriesRequest) { r.Matchers[0].Value = "(" }, codes.InvalidArgument},
		"an unknown matcher type":     {func(r *storepb.SeriesRequest) { r.Matchers[0].Type = 9 }, codes.InvalidArgument},
		"a negative limit":            {func(r *storepb.SeriesRequest) { r.Limit = -1 }, codes.InvalidArgument},
		"a negative resolution":       {func(r *storepb.SeriesRequest) { r.MaxResolutionWindow = -1 }, codes.InvalidArgument},
		"an unknown strategy":         {func(r *storepb.SeriesRequest) { r.PartialResponseStrategy = 7 }, codes.InvalidArgument},
		"hints of this call":          {func(r *storepb.SeriesRequest) { r.Hints = good }, codes.OK},
		"hints of another call":       {func(r *storepb.SeriesRequest) { r.Hints = bad }, codes.InvalidArgument},
		"a shard of none":             {func(r *storepb.SeriesRequest) { r.ShardInfo = &storepb.ShardInfo{ShardIndex: 4} }, codes.OK},
		"a shard that does not exist": {func(r *storepb.SeriesRequest) { r.ShardInfo = &storepb.ShardInfo{ShardIndex: 4, TotalShards: 4} }, codes.InvalidArgument},
		"an end before the beginning": {func(r *storepb.SeriesRequest) { r.MinTime, r.MaxTime = 5, 1 }, codes.OK},
		"an aggregate of the future":  {func(r *storepb.SeriesRequest) { r.Aggregates = []storepb.Aggr{42} }, codes.OK},
	} {
		t.Run(name, func(t *testing.T) {
			req := anything().toWire()
			tc.change(req)
			if _, err := frames(t, conn, req); status.Code(err) != tc.want {
				t.Errorf("code is %s (%v), want %s", status.Code(err), err, tc.want)
			}
		})
	}
	t.Run("block matchers are answered with a warning", func(t *testing.T) {
		hints, err := anypb.New(&storepb.SeriesRequestHints{BlockMatchers: []*storepb.LabelMatcher{{Name: "__block_id", Value: "x"}}})
		if err != nil {
			t.Fatal(err)
		}
		req := anything().toWire()
		req.Hints = hints
		got, err := frames(t, conn, req)
		if err != nil || len(got) != 1 || got[0].GetWarning() == "" {
			t.Errorf("got frames %v (%v), want one warning", got, err)
		}
	})
}

func TestInfoAnnouncesWhatIsRegistered(t *testing.T) {
	store := &fakeStore{info: Info{
		Component: "sidecar", MinTime: 5, MaxTime: math.MaxInt64, APIs: QueryAPI, DropsLabels: true,
		LabelSets: []labels.Labels{labels.FromStrings("a", "1"), labels.EmptyLabels()},
		Streams:   []Stream{{Labels: labels.FromStrings("a", "1"), MinTime: 5, MaxTime: 9}},
	}}
	conn := connect(t, Register(store, ServerOptions{APIs: RulesAPI | ExemplarsAPI, Version: "0.1.0"}), ServerOption())
	got, err := client(t, conn, Defaults()).Info(t.Context())
	if err != nil {
		t.Fatalf("info: %v", err)
	}
	want := store.info
	want.APIs, want.Native, want.SupportsSharding = StoreAPI|RulesAPI|ExemplarsAPI, true, true
	want.LabelSets = want.LabelSets[:1]
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("info:\n got %s\nwant %s", g, w)
	}
}

func TestServerWorksWithoutItsOption(t *testing.T) {
	conn := connect(t, Register(&fakeStore{series: answering(numbered(t, 10), nil)}, ServerOptions{}))
	got, _, err := series.Collect(client(t, conn, Defaults()).Series(t.Context(), anything()))
	if err != nil || len(got) != 10 {
		t.Errorf("got %d series (%v), want 10", len(got), err)
	}
}

func TestShardAndLimitAreAppliedForTheStore(t *testing.T) {
	conn := connect(t, Register(&fakeStore{series: answering(numbered(t, 100), nil)}, ServerOptions{}), ServerOption())
	c := client(t, conn, Defaults())
	total := 0
	for i := range int64(4) {
		req := anything()
		req.Shard = &Shard{Index: i, Total: 4, By: true, Labels: []string{"n"}}
		got, _, err := series.Collect(c.Series(t.Context(), req))
		if err != nil || len(got) == 0 || len(got) == 100 {
			t.Errorf("shard %d has %d series (%v), want some of 100", i, len(got), err)
		}
		total += len(got)
	}
	if total != 100 {
		t.Errorf("the shards have %d series, want 100", total)
	}
	req := anything()
	req.Limit = 7
	if got, _, err := series.Collect(c.Series(t.Context(), req)); err != nil || len(got) != 7 {
		t.Errorf("limit 7: got %d series (%v)", len(got), err)
	}
}

// A Thanos querier and we must agree on the shard of a series.
func TestShardHash(t *testing.T) {
	lset := labels.FromStrings("__name__", "up", "job", "x", "pod", "p")
	for name, tc := range map[string]struct {
		shard Shard
		bytes string
	}{
		"by":      {Shard{By: true, Labels: []string{"pod", "job"}}, "job\xffx\xffpod\xffp\xff"},
		"without": {Shard{Labels: []string{"job"}}, "__name__\xffup\xffpod\xffp\xff"},
	} {
		t.Run(name, func(t *testing.T) {
			s := tc.shard
			s.Total = 1000
			s.Index = int64(xxhash.Sum64String(tc.bytes) % 1000)
			if !s.Keeps(lset) {
				t.Errorf("shard %d of 1000 does not hold %s", s.Index, lset)
			}
			s.Index = (s.Index + 1) % 1000
			if s.Keeps(lset) {
				t.Errorf("shard %d of 1000 holds %s too", s.Index, lset)
			}
		})
	}
}

func TestMatchExternal(t *testing.T) {
	external := labels.FromStrings("cluster", "eu", "empty", "")
	for in, want := range map[string]string{
		`{cluster="eu", job="x"}`:     `{job="x"} true`,
		`{cluster="us", job="x"}`:     `{} false`,
		`{cluster=~"e.|us"}`:          `{} true`,
		`{empty="", empty!="", a=""}`: `{empty="",empty!="",a=""} true`,
	} {
		rest, ok := MatchExternal(external, matchers(t, in))
		var parts []string
		for _, m := range rest {
			parts = append(parts, m.String())
		}
		if got := fmt.Sprintf("{%s} %t", strings.Join(parts, ","), ok); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

func matchers(t *testing.T, selector string) []*labels.Matcher {
	t.Helper()
	ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector(selector)
	if err != nil {
		t.Fatalf("parse %s: %v", selector, err)
	}
	return ms
}
