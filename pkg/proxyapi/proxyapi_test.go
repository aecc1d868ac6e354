package proxyapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/varve-io/varve/internal/golden"
	"github.com/varve-io/varve/pkg/proxyapi/proxypb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// at is a time that survives the wire.
var at = time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC)

func exampleGroup() RuleGroup {
	return RuleGroup{
		Name: "g", File: "f.yaml", Interval: 30, Limit: 5, EvaluationTime: 0.25, LastEvaluation: at, Abort: true,
		Rules: []Rule{
			{
				Type: Alerting, Name: "Down", Query: "up == 0", Labels: labels.FromStrings("severity", "page"), Health: "ok", LastError: "none",
				EvaluationTime: 0.1, LastEvaluation: at, State: StateFiring, Duration: 60, KeepFiringFor: 10,
				Annotations: labels.FromStrings("summary", "it is down"),
				Alerts: []Alert{{
					Labels: labels.FromStrings("job", "x"), Annotations: labels.FromStrings("a", "b"), State: StatePending,
					ActiveAt: &at, Value: "0", Abort: true,
				}},
			},
			{
				Type: Recording, Name: "job:up:sum", Query: "sum by (job) (up)", Labels: labels.FromStrings("team", "x"), Health: "err",
				LastError: "boom", EvaluationTime: 0.2, LastEvaluation: at,
			},
		},
	}
}

func exampleTargets() TargetDiscovery {
	return TargetDiscovery{
		Active: []Target{{
			DiscoveredLabels: labels.FromStrings("__address__", "a:1"), Labels: labels.FromStrings("job", "x"), ScrapePool: "x",
			ScrapeURL: "http://a:1/metrics", GlobalURL: "http://h:1/metrics", LastError: "late", LastScrape: at, LastScrapeDuration: 0.5, Health: HealthDown,
		}},
		Dropped: []Dropped{{DiscoveredLabels: labels.FromStrings("__address__", "b:1")}},
	}
}

func exampleStatus() map[string]TSDBStatus {
	return map[string]TSDBStatus{"": {
		Head:                        HeadStats{NumSeries: 1, NumLabelPairs: 2, ChunkCount: 3, MinTime: 4, MaxTime: 5},
		SeriesCountByMetricName:     []Stat{{"up", 9}, {"down", 3}},
		LabelValueCountByLabelName:  []Stat{{"job", 2}},
		MemoryInBytesByLabelName:    []Stat{{"job", 99}},
		SeriesCountByLabelValuePair: []Stat{{"job=x", 4}},
	}}
}

// endpoint answers with the examples and keeps what it was asked.
type endpoint struct {
	asked    any
	warnings annotations.Annotations
	err      error
}

func (e *endpoint) Rules(_ context.Context, req RulesRequest) ([]RuleGroup, annotations.Annotations, error) {
	e.asked = req
	return []RuleGroup{exampleGroup()}, e.warnings, e.err
}

func (e *endpoint) Targets(_ context.Context, req TargetsRequest) (TargetDiscovery, annotations.Annotations, error) {
	e.asked = req
	return exampleTargets(), e.warnings, e.err
}

func (e *endpoint) MetricMetadata(_ context.Context, req MetadataRequest) (map[string][]Meta, annotations.Annotations, error) {
	e.asked = req
	return map[string][]Meta{"up": {{"gauge", "help", "s"}}}, e.warnings, e.err
}

func (e *endpoint) Exemplars(_ context.Context, req ExemplarsRequest) ([]SeriesExemplars, annotations.Annotations, error) {
	e.asked = req
	return []SeriesExemplars{{labels.FromStrings("job", "x"), []Exemplar{{labels.FromStrings("trace", "1"), 2.5, 1000}}}}, e.warnings, e.err
}

func (e *endpoint) TSDBStatistics(_ context.Context, req StatusRequest) (map[string]TSDBStatus, annotations.Annotations, error) {
	e.asked = req
	return exampleStatus(), e.warnings, e.err
}

func connect(t *testing.T, s Services) *Client {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	srv := grpc.NewServer()
	Register(s)(srv)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		srv.Stop()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return NewClient(conn, "peer:10901")
}

// call is one of the services, its request and answer hidden.
type call struct {
	name string
	req  any
	do   func(c *Client, abort Strategy) (any, annotations.Annotations, error)
	want any
}

func calls(ctx context.Context) []call {
	rules := RulesRequest{Type: Alerting, Match: []string{`{a="b"}`}, Names: []string{"n"}, Groups: []string{"g"}, Files: []string{"f"}}
	matcher := labels.MustNewMatcher(labels.MatchRegexp, "job", "x|y")
	return []call{
		{"rules", rules, func(c *Client, abort Strategy) (any, annotations.Annotations, error) {
			r := rules
			r.Abort = abort
			got, as, err := c.Rules(ctx, r)
			return got, as, err
		}, []RuleGroup{exampleGroup()}},
		{"targets", TargetsRequest{State: DroppedTarget}, func(c *Client, abort Strategy) (any, annotations.Annotations, error) {
			got, as, err := c.Targets(ctx, TargetsRequest{State: DroppedTarget, Abort: abort})
			return got, as, err
		}, exampleTargets()},
		{"metadata", MetadataRequest{Metric: "up", Limit: -1}, func(c *Client, abort Strategy) (any, annotations.Annotations, error) {
			got, as, err := c.MetricMetadata(ctx, MetadataRequest{Metric: "up", Limit: -1, Abort: abort})
			return got, as, err
		}, map[string][]Meta{"up": {{"gauge", "help", "s"}}}},
		{"exemplars", ExemplarsRequest{Query: "up", Start: 1, End: 2}, func(c *Client, abort Strategy) (any, annotations.Annotations, error) {
			got, as, err := c.Exemplars(ctx, ExemplarsRequest{Query: "up", Start: 1, End: 2, Abort: abort})
			return got, as, err
		}, []SeriesExemplars{{labels.FromStrings("job", "x"), []Exemplar{{labels.FromStrings("trace", "1"), 2.5, 1000}}}}},
		{"status", StatusRequest{Limit: 7, Matchers: []*labels.Matcher{matcher}}, func(c *Client, abort Strategy) (any, annotations.Annotations, error) {
			got, as, err := c.TSDBStatistics(ctx, StatusRequest{Limit: 7, Matchers: []*labels.Matcher{matcher}, Abort: abort})
			return got, as, err
		}, exampleStatus()},
	}
}

func TestOverTheWire(t *testing.T) {
	e := &endpoint{}
	c := connect(t, Services{e, e, e, e, e})
	for _, tc := range calls(t.Context()) {
		t.Run(tc.name, func(t *testing.T) {
			*e = endpoint{}
			got, as, err := tc.do(c, false)
			if err != nil || len(as) > 0 {
				t.Fatalf("warnings %v, error %v", as, err)
			}
			if g, w := asJSON(t, got), asJSON(t, tc.want); g != w {
				t.Errorf("answer:\n got %s\nwant %s", g, w)
			}
			if g, w := fmt.Sprint(e.asked), fmt.Sprint(tc.req); g != w {
				t.Errorf("request: got %s, want %s", g, w)
			}
		})
		t.Run(tc.name+", with a warning", func(t *testing.T) {
			*e = endpoint{}
			e.warnings.Add(errors.New("half is missing"))
			if _, as, err := tc.do(c, false); err != nil || as["peer:10901: half is missing"] == nil {
				t.Errorf("warnings are %v (%v)", as, err)
			}
			if _, _, err := tc.do(c, true); status.Code(err) != codes.Aborted || !strings.Contains(err.Error(), "peer:10901") {
				t.Errorf("for all or nothing: error is %v, want code Aborted and the peer", err)
			}
		})
		t.Run(tc.name+", with an error", func(t *testing.T) {
			for _, want := range []error{ErrBadRequest, ErrUnavailable, context.DeadlineExceeded} {
				*e = endpoint{err: fmt.Errorf("read rules: %w", want)}
				if _, _, err := tc.do(c, false); !errors.Is(err, want) || !strings.Contains(err.Error(), "peer:10901") {
					t.Errorf("error is %v, want %v and the peer", err, want)
				}
			}
		})
	}
}

func TestServicesThatAreNotThere(t *testing.T) {
	c := connect(t, Services{})
	for _, tc := range calls(t.Context()) {
		if _, _, err := tc.do(c, false); status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: error is %v, want code Unimplemented", tc.name, err)
		}
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatalf("marshal: %v", err)
	}
	return string(b)
}

func TestJSONIsThatOfPrometheus(t *testing.T) {
	for name, tc := range map[string]struct {
		in   any
		want string
	}{
		"a group of rules": {
			exampleGroup(),
			`{"name":"g","file":"f.yaml","rules":[{"type":"alerting","name":"Down","query":"up == 0","labels":{"severity":"page"},"health":"ok",` +
				`"lastError":"none","evaluationTime":0.1,"lastEvaluation":"2026-01-02T03:04:05.678Z","state":"firing","duration":60,"keepFiringFor":10,` +
				`"annotations":{"summary":"it is down"},"alerts":[{"labels":{"job":"x"},"annotations":{"a":"b"},"state":"pending",` +
				`"activeAt":"2026-01-02T03:04:05.678Z","value":"0","partialResponseStrategy":"ABORT"}]},` +
				`{"type":"recording","name":"job:up:sum","query":"sum by (job) (up)","labels":{"team":"x"},"health":"err","lastError":"boom",` +
				`"evaluationTime":0.2,"lastEvaluation":"2026-01-02T03:04:05.678Z"}],"interval":30,"limit":5,"evaluationTime":0.25,` +
				`"lastEvaluation":"2026-01-02T03:04:05.678Z","partialResponseStrategy":"ABORT"}`,
		},
		"an empty group": {RuleGroup{}, `{"name":"","file":"","rules":[],"interval":0,"limit":0,"evaluationTime":0,"lastEvaluation":"0001-01-01T00:00:00Z","partialResponseStrategy":"WARN"}`},
		"a rule without an error": {
			Rule{Type: Recording, Name: "r", Health: "ok"},
			`{"type":"recording","name":"r","query":"","labels":{},"health":"ok","evaluationTime":0,"lastEvaluation":"0001-01-01T00:00:00Z"}`,
		},
		"no targets":      {TargetDiscovery{}, `{"activeTargets":[],"droppedTargets":[]}`},
		"an exemplar":     {Exemplar{labels.FromStrings("trace", "1"), 6, 1600096945479}, `{"labels":{"trace":"1"},"value":"6","timestamp":1600096945.479}`},
		"no exemplars":    {SeriesExemplars{}, `{"seriesLabels":{},"exemplars":[]}`},
		"active targets":  {exampleTargets().Active[0].Health, `"down"`},
		"TSDB statistics": {exampleStatus()[""].Head, `{"numSeries":1,"numLabelPairs":2,"chunkCount":3,"minTime":4,"maxTime":5}`},
	} {
		t.Run(name, func(t *testing.T) {
			got := asJSON(t, tc.in)
			if got != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
			back := reflect.New(reflect.TypeOf(tc.in))
			if err := json.Unmarshal([]byte(got), back.Interface()); err != nil {
				t.Fatalf("read back: %v", err)
			}
			if again := asJSON(t, back.Elem().Interface()); again != got {
				t.Errorf("read back and written again:\n%s", again)
			}
		})
	}
}

// The file names every message, field, number and type, so that a change is seen in review.
func TestFieldNumbers(t *testing.T) {
	var b strings.Builder
	for _, file := range []protoreflect.FileDescriptor{
		proxypb.File_proxyapi_proxypb_rules_proto, proxypb.File_proxyapi_proxypb_targets_proto, proxypb.File_proxyapi_proxypb_metadata_proto,
		proxypb.File_proxyapi_proxypb_exemplars_proto, proxypb.File_proxyapi_proxypb_status_proto,
	} {
		for i := range file.Services().Len() {
			m := file.Services().Get(i).Methods().Get(0)
			fmt.Fprintf(&b, "%s(%s) stream %s\n", m.FullName(), m.Input().FullName(), m.Output().FullName())
		}
		for i := range file.Messages().Len() {
			m := file.Messages().Get(i)
			fmt.Fprintf(&b, "%s\n", m.FullName())
			for j := range m.Fields().Len() {
				f := m.Fields().Get(j)
				kind := f.Kind().String()
				if f.Message() != nil {
					kind = string(f.Message().FullName())
				}
				fmt.Fprintf(&b, "  %d %s %s %s\n", f.Number(), f.Cardinality(), kind, f.Name())
			}
		}
	}
	golden.Check(t, "testdata/fields.golden", b.String())
}
