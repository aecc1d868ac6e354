package promapi

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"
	"go.uber.org/goleak"

	"github.com/varve-io/varve/pkg/query"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
	"github.com/varve-io/varve/pkg/storeapi/storeapitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// peer is a sidecar, more or less.
type peer struct{ storeapi.Store }

func (peer) Close() error { return nil }

func (peer) Rules(context.Context, query.RulesRequest) ([]query.RuleGroup, annotations.Annotations, error) {
	lset := labels.FromStrings("replica", "a", "severity", "page")
	return []query.RuleGroup{{Name: "g", File: "f", Interval: 30, LastEvaluation: noon, Rules: []query.Rule{
		{Type: query.Alerting, Name: "Down", Query: "up == 0", Labels: lset, State: "firing", Health: "ok", LastEvaluation: noon, Alerts: []query.Alert{
			{Labels: lset, State: "firing", ActiveAt: &noon, Value: "0e+00"},
		}},
		{Type: query.Recording, Name: "r", Query: "sum(up)", Health: "ok", LastEvaluation: noon},
	}}}, nil, nil
}

func (peer) Targets(context.Context, query.TargetsRequest) (d query.TargetDiscovery, _ annotations.Annotations, _ error) {
	d.Active = []query.Target{{Labels: labels.FromStrings("job", "x", "replica", "a"), ScrapePool: "x", Health: "up", LastScrape: noon}}
	return d, nil, nil
}

func (peer) MetricMetadata(context.Context, query.MetadataRequest) (map[string][]query.Meta, annotations.Annotations, error) {
	return map[string][]query.Meta{"up": {{Type: "gauge", Help: "Whether it is up."}}}, nil, nil
}

func (peer) Exemplars(_ context.Context, req query.ExemplarsRequest) ([]query.SeriesExemplars, annotations.Annotations, error) {
	if req.Query != `{__name__="up"}` {
		return nil, nil, errors.New("asked for " + req.Query)
	}
	return []query.SeriesExemplars{{
		SeriesLabels: labels.FromStrings("__name__", "up", "replica", "a"),
		Exemplars:    []query.Exemplar{{Labels: labels.FromStrings("trace", "1"), Value: 1, T: storeapitest.Begin + 500}},
	}}, nil, nil
}

// world is one endpoint that answers from memory.
type world struct {
	up      []query.Endpoint
	missing []query.Missing
}

func (w world) Members() ([]query.Endpoint, []query.Missing) { return w.up, w.missing }

func (w world) Status() (all []query.EndpointStatus) {
	for _, e := range w.up {
		all = append(all, query.EndpointStatus{Address: e.Address, Info: e.Info, LastCheck: noon})
	}
	for _, m := range w.missing {
		all = append(all, query.EndpointStatus{Address: m.Address, Info: m.Info, LastCheck: noon, LastError: m.Reason})
	}
	return all
}

var noon = time.UnixMilli(storeapitest.Begin).UTC()

// serve starts the API over the standard fixture and returns its base URL.
func serve(t *testing.T, change func(*world, *query.Options, *Options)) string {
	t.Helper()
	m, err := storeapitest.NewMemory(storeapitest.Standard())
	if err != nil {
		t.Fatalf("encode fixture: %v", err)
	}
	info, err := m.Info(t.Context())
	if err != nil {
		t.Fatalf("info: %v", err)
	}
	info.APIs |= query.ProxyAPIs
	w := world{up: []query.Endpoint{{Address: "127.0.0.1:10901", Info: info, Peer: peer{storeapitest.OverGRPC(t, m)}}}}
	qo, o := query.Defaults(), Defaults()
	qo.ReplicaLabels = []string{"replica"}
	o.Flags = map[string]string{"query.timeout": "2m"}
	if change != nil {
		change(&w, &qo, &o)
	}
	reg, log := prometheus.NewRegistry(), promslog.NewNopLogger()
	fanout := query.NewFanout(w, query.DefaultFanoutOptions(), reg)
	engine := query.NewEngine(fanout, qo, log, reg)
	api := New(Backend{Engine: engine, Endpoints: w, Proxy: query.NewProxy(fanout, qo.ReplicaLabels)}, o, log, func(_ string, h http.Handler) http.Handler { return h })
	srv := httptest.NewServer(api)
	t.Cleanup(srv.Close)
	return srv.URL
}

type envelope struct {
	Status    string          `json:"status"`
	Data      json.RawMessage `json:"data"`
	ErrorType string          `json:"errorType"`
	Error     string          `json:"error"`
	Warnings  []string        `json:"warnings"`
	Infos     []string        `json:"infos"`
}

// head is what comes before the body of an answer.
type head struct {
	StatusCode int
	Header     http.Header
}

// call sends a request as Grafana does and returns status, headers and body.
func call(t *testing.T, method, to string, form url.Values) (head, envelope) {
	t.Helper()
	var body io.Reader
	if method == http.MethodPost {
		body = strings.NewReader(form.Encode())
	} else if len(form) > 0 {
		to += "?" + form.Encode()
	}
	req, err := http.NewRequestWithContext(t.Context(), method, to, body)
	if err != nil {
		t.Fatalf("request: %v", err)
	}
	req.Header.Set("Accept-Encoding", "gzip")
	if body != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, to, err)
	}
	defer res.Body.Close()
	var r io.Reader = res.Body
	if res.Header.Get("Content-Encoding") == "gzip" {
		if r, err = gzip.NewReader(res.Body); err != nil {
			t.Fatalf("gzip: %v", err)
		}
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read answer: %v", err)
	}
	var e envelope
	if err := json.Unmarshal(text, &e); err != nil {
		t.Fatalf("%s %s: answer %q is no JSON: %v", method, to, text, err)
	}
	return head{res.StatusCode, res.Header}, e
}

// form builds url.Values of pairs.
func form(pairs ...string) url.Values {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		v.Add(pairs[i], pairs[i+1])
	}
	return v
}

// What Grafana's Prometheus data source sends, and what it expects back.
func TestGrafana(t *testing.T) {
	base := serve(t, nil)
	const start, end = "1767225600", "1767226500" // a quarter of an hour from storeapitest.Begin on
	for name, tc := range map[string]struct {
		method, path string
		form         url.Values
		want         string // the data, exactly; with a trailing …, how it begins
	}{
		"health":                            {"POST", "query", form("query", "1+1", "time", "4"), `{"resultType":"scalar","result":[4,"2"]}`},
		"build information":                 {"GET", "status/buildinfo", nil, `{"branch":…`},
		"a range":                           {"POST", "query_range", form("query", `requests_total{pod="a",code="200"}`, "start", start, "end", "1767225630", "step", "15"), `{"resultType":"matrix","result":[{"metric":{"__name__":"requests_total","cluster":"eu","code":"200","pod":"a","prometheus":"p","zone":"2"},"values":[[1767225600,"0"],[1767225615,"7"],[1767225630,"14"]]}]}`},
		"a range with a fractional step":    {"POST", "query_range", form("query", "1", "start", "0", "end", "1", "step", "0.5"), `{"resultType":"matrix","result":[{"metric":{},"values":[[0,"1"],[0.500,"1"],[1,"1"]]}]}`},
		"an instant with a fractional time": {"POST", "query", form("query", `sum(requests_total{code="200"})`, "time", "1767225616.772547"), `{"resultType":"vector","result":[{"metric":{},"value":[1767225616.773,"15"]}]}`},
		"an instant that finds nothing":     {"POST", "query", form("query", "nothing", "time", start), `{"resultType":"vector","result":[]}`},
		"infinities and no numbers":         {"POST", "query", form("query", "vector(1/0) or label_replace(vector(0/0),\"a\",\"b\",\"\",\"\")", "time", "4"), `{"resultType":"vector","result":[{"metric":{},"value":[4,"+Inf"]},{"metric":{"a":"b"},"value":[4,"NaN"]}]}`},
		"a histogram":                       {"POST", "query", form("query", "hist_float", "time", start), `{"resultType":"vector","result":[{"metric":{"__name__":"hist_float","cluster":"eu","job":"x","prometheus":"p"},"histogram":[1767225600,{"count":…`},
		"a string":                          {"GET", "query", form("query", `"text"`, "time", "1"), `{"resultType":"string","result":[1,"text"]}`},
		"labels by POST":                    {"POST", "labels", form("match[]", `up`, "start", start, "end", end), `["__name__","cluster","job","prometheus","replica"]`},
		"labels by GET":                     {"GET", "labels", form("start", start, "end", end, "limit", "40000"), `["__name__","cluster","code","job","pod","prometheus","replica","zone"]`},
		"series by POST":                    {"POST", "series", form("match[]", `up`, "start", start, "end", end), `[{"__name__":"up","cluster":"eu","job":"x","prometheus":"p"}]`},
		"series of several selectors":       {"GET", "series", form("match[]", `up`, "match[]", `{job="x",__name__="up"}`, "start", start, "end", end), `[{"__name__":"up","cluster":"eu","job":"x","prometheus":"p"}]`},
		"label values":                      {"GET", "label/job/values", form("match[]", `up`, "start", start, "end", end), `["x"]`},
		"label values by POST, empty body":  {"POST", "label/job/values?start=" + start + "&end=" + end, nil, `["x","y"]`},
		"metadata":                          {"GET", "metadata", form("metric", "up"), `{"up":[{"type":"gauge","help":"Whether it is up.","unit":""}]}`},
		"rules":                             {"GET", "rules", nil, `{"groups":[{"name":"g","file":"f","rules":[{"type":"alerting","name":"Down","query":"up == 0","labels":{"severity":"page"},…`},
		"recording rules":                   {"GET", "rules", form("type", "record"), `{"groups":[{"name":"g","file":"f","rules":[{"type":"recording","name":"r",…`},
		"alerts":                            {"GET", "alerts", nil, `{"alerts":[{"labels":{"severity":"page"},"annotations":{},"state":"firing",…`},
		"targets":                           {"GET", "targets", form("state", "active"), `{"activeTargets":[{"discoveredLabels":{},"labels":{"job":"x"},…`},
		"exemplars":                         {"POST", "query_exemplars", form("query", `rate(up{cluster="eu"}[5m])`, "start", start, "end", end), `[{"seriesLabels":{"__name__":"up"},"exemplars":[{"labels":{"trace":"1"},"value":"1","timestamp":1767225600.5}]}]`},
		"flags":                             {"GET", "status/flags", nil, `{"query.timeout":"2m"}`},
		"endpoints":                         {"GET", "stores", nil, `{"store":[{"name":"127.0.0.1:10901","lastCheck":"2026-01-01T00:00:00Z","lastError":null,"labelSets":[{"cluster":"eu","prometheus":"p","replica":"a"}],"minTime":1767225600000,…`},
	} {
		t.Run(name, func(t *testing.T) {
			res, got := call(t, tc.method, base+"/api/v1/"+tc.path, tc.form)
			if res.StatusCode != http.StatusOK || got.Status != "success" {
				t.Fatalf("got %d %s %q, want 200 success", res.StatusCode, got.Status, got.Error)
			}
			data := string(got.Data)
			begin, open := strings.CutSuffix(tc.want, "…")
			if open && !strings.HasPrefix(data, begin) || !open && data != tc.want {
				t.Errorf("data:\n got %s\nwant %s", data, tc.want)
			}
			if len(got.Warnings)+len(got.Infos) > 0 {
				t.Errorf("got warnings %q and infos %q, want none", got.Warnings, got.Infos)
			}
		})
	}
}

func TestErrorsAreThoseOfPrometheus(t *testing.T) {
	base := serve(t, nil)
	for name, tc := range map[string]struct {
		path   string
		form   url.Values
		status int
		kind   string
		text   string
	}{
		"a query that does not parse":       {"query", form("query", "sum("), 400, "bad_data", `invalid parameter "query"`},
		"a reserved label":                  {"query", form("query", `up{__varve_aggregate__="count"}`), 400, "bad_data", "reserved"},
		"a time that is none":               {"query", form("query", "1", "time", "now"), 400, "bad_data", `invalid parameter "time"`},
		"no start":                          {"query_range", form("query", "1", "end", "1", "step", "1"), 400, "bad_data", `invalid parameter "start"`},
		"an end before the start":           {"query_range", form("query", "1", "start", "2", "end", "1", "step", "1"), 400, "bad_data", "must not be before"},
		"a step of zero":                    {"query_range", form("query", "1", "start", "1", "end", "2", "step", "0"), 400, "bad_data", "zero or negative"},
		"a step below a millisecond":        {"query_range", form("query", "1", "start", "1", "end", "2", "step", "0.0001"), 400, "bad_data", "millisecond"},
		"a shard that does not exist":       {"query", form("query", "1", "shard_info", `{"shard_index":2,"total_shards":2}`), 400, "bad_data", "shard 2 of 2"},
		"too many points":                   {"query_range", form("query", "1", "start", "0", "end", "20000", "step", "1"), 400, "bad_data", "11,000 points"},
		"a negative resolution":             {"query", form("query", "1", "max_source_resolution", "-5"), 400, "bad_data", "negative resolution"},
		"an unknown engine":                 {"query", form("query", "1", "engine", "warp"), 400, "bad_data", "unknown engine"},
		"a matcher that excludes nothing":   {"labels", form("match[]", `{job=~".*"}`), 400, "bad_data", "match[]"},
		"series without a selector":         {"series", nil, 400, "bad_data", "no match[] parameter"},
		"an evaluation that cannot be done": {"query", form("query", `label_replace(up, "a", "$1", "b", "(")`, "time", "1767225600"), 422, "execution", "regular expression"},
		"a query out of time":               {"query", form("query", `up`, "timeout", "0.000000001"), 503, "timeout", ""},
		"a path that does not exist":        {"nothing", nil, 404, "not_found", "/api/v1/nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			res, got := call(t, "GET", base+"/api/v1/"+tc.path, tc.form)
			if res.StatusCode != tc.status || got.Status != "error" || got.ErrorType != tc.kind || !strings.Contains(got.Error, tc.text) {
				t.Errorf("got %d %s %s %q, want %d error %s with %q", res.StatusCode, got.Status, got.ErrorType, got.Error, tc.status, tc.kind, tc.text)
			}
			if res.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("got Cache-Control %q, want no-store", res.Header.Get("Cache-Control"))
			}
		})
	}
}

func TestIncompleteAnswers(t *testing.T) {
	base := serve(t, func(w *world, _ *query.Options, _ *Options) {
		w.missing = []query.Missing{{Address: "10.0.0.1:10901", Reason: io.ErrUnexpectedEOF}}
	})
	res, got := call(t, "GET", base+"/api/v1/query", form("query", "up", "time", "1767225600"))
	if res.StatusCode != http.StatusOK || len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "10.0.0.1:10901") || res.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("got %d, warnings %q, Cache-Control %q, want a warning about 10.0.0.1:10901 that nobody caches",
			res.StatusCode, got.Warnings, res.Header.Get("Cache-Control"))
	}
	for _, path := range []string{"query?query=up", "labels?", "series?match[]=up", "label/job/values?"} {
		res, got := call(t, "GET", base+"/api/v1/"+path+"&partial_response=false", nil)
		if res.StatusCode != http.StatusServiceUnavailable || got.ErrorType != "unavailable" || !strings.Contains(got.Error, "10.0.0.1:10901") {
			t.Errorf("%s without partial response: got %d %s %q, want 503 unavailable", path, res.StatusCode, got.ErrorType, got.Error)
		}
	}
}

func TestLimitsSayWhatToDo(t *testing.T) {
	base := serve(t, func(_ *world, o *query.Options, _ *Options) { o.MaxBytes = 1000 })
	res, got := call(t, "GET", base+"/api/v1/query_range", form("query", `{__name__=~".+"}`, "start", "1767225600", "end", "1767230000", "step", "60"))
	if res.StatusCode != http.StatusUnprocessableEntity || got.ErrorType != "execution" || !strings.Contains(got.Error, "--query.max-bytes=1000") {
		t.Errorf("got %d %s %q, want 422 execution that names --query.max-bytes=1000", res.StatusCode, got.ErrorType, got.Error)
	}
}

func TestCutAnswersSaySo(t *testing.T) {
	base := serve(t, nil)
	at := form("query", "requests_total", "time", "1767225615", "limit", "2", "match[]", "requests_total", "start", "1767225600", "end", "1767229200")
	for path, want := range map[string]int{"labels": 2, "label/pod/values": 2, "series": 2} {
		_, got := call(t, "GET", base+"/api/v1/"+path, at)
		var list []any
		if err := json.Unmarshal(got.Data, &list); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if cut := path != "label/pod/values"; len(list) != want || cut != (len(got.Warnings) == 1) {
			t.Errorf("%s: got %d elements and warnings %q, want %d", path, len(list), got.Warnings, want)
		}
	}
	_, got := call(t, "GET", base+"/api/v1/query", at)
	if len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "truncated") {
		t.Errorf("query: got warnings %q, want one", got.Warnings)
	}
}

func TestReplicasAndPrefixes(t *testing.T) {
	base := serve(t, func(_ *world, _ *query.Options, o *Options) { o.RoutePrefix = "/metrics/" }) + "/metrics/api/v1/"
	count := func(more ...string) string {
		t.Helper()
		_, got := call(t, "GET", base+"query", form(append([]string{"query", `count by (replica) (up)`, "time", "1767225600"}, more...)...))
		return string(got.Data)
	}
	const without = `{"resultType":"vector","result":[{"metric":{},"value":[1767225600,"1"]}]}`
	const with = `{"resultType":"vector","result":[{"metric":{"replica":"a"},"value":[1767225600,"1"]}]}`
	for name, tc := range map[string]struct {
		more []string
		want string
	}{
		"the flag's replica labels go":        {nil, without},
		"unless nothing is to be merged":      {[]string{"dedup", "false"}, with},
		"or the query names other labels":     {[]string{"replicaLabels[]", "prometheus"}, with},
		"an endpoint that is not chosen":      {[]string{"storeMatch[]", `{__address__="elsewhere"}`}, `{"resultType":"vector","result":[]}`},
		"an endpoint that is chosen":          {[]string{"storeMatch[]", `{__address__=~"127.*"}`}, without},
		"statistics, when they are asked for": {[]string{"stats", "true"}, strings.TrimSuffix(without, "}") + `,"stats":…`},
	} {
		begin, open := strings.CutSuffix(tc.want, "…")
		if got := count(tc.more...); open && !strings.HasPrefix(got, begin) || !open && got != tc.want {
			t.Errorf("%s: got %s, want %s", name, got, tc.want)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, base+"query", nil)
	if err != nil {
		t.Fatalf("request: %v", err)
	}
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatalf("OPTIONS: %v", err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusNoContent || res.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("OPTIONS: got %d and origin %q, want 204 and *", res.StatusCode, res.Header.Get("Access-Control-Allow-Origin"))
	}
}

func TestStatisticsOfEveryStep(t *testing.T) {
	base := serve(t, nil)
	for asked, want := range map[string]int{"true": 0, "all": 3} {
		_, got := call(t, "GET", base+"/api/v1/query_range", form("query", "up", "start", "1767225600", "end", "1767225630", "step", "15", "stats", asked))
		var data struct {
			Stats struct {
				Samples struct {
					Total   int               `json:"totalQueryableSamples"`
					PerStep []json.RawMessage `json:"totalQueryableSamplesPerStep"`
				} `json:"samples"`
			} `json:"stats"`
		}
		if err := json.Unmarshal(got.Data, &data); err != nil {
			t.Fatalf("%+v: %v", got, err)
		}
		if s := data.Stats.Samples; s.Total == 0 || len(s.PerStep) != want {
			t.Errorf("stats=%s: got %d samples and those of %d steps, want some and %d", asked, s.Total, len(s.PerStep), want)
		}
	}
}

// TestStatisticsSayWhatEndpointsDid has one endpoint that tells of its work.
func TestStatisticsSayWhatEndpointsDid(t *testing.T) {
	base := serve(t, func(w *world, _ *query.Options, _ *Options) {
		m, err := storeapitest.NewMemory(storeapitest.Standard())
		if err != nil {
			t.Fatal(err)
		}
		w.up[0].Peer = peer{storeapitest.OverGRPC(t, telling{m})}
	})
	for _, path := range []string{"/api/v1/query", "/api/v1/query_range"} {
		params := form("query", "up + up offset 1m", "time", "1767225600", "start", "1767225600", "end", "1767225630", "step", "15", "stats", "true")
		_, got := call(t, "GET", base+path, params)
		var data struct {
			Stats struct {
				Timings map[string]float64 `json:"timings"`
				Fanout  []fetch            `json:"fanout"`
			} `json:"stats"`
		}
		if err := json.Unmarshal(got.Data, &data); err != nil {
			t.Fatalf("%+v: %v", got, err)
		}
		if len(data.Stats.Fanout) != 2 || data.Stats.Timings["evalTotalTime"] <= 0 {
			t.Fatalf("%s: got %s, want timings and what one endpoint did for two selectors", path, got.Data)
		}
		for _, f := range data.Stats.Fanout {
			if f.Endpoint != "127.0.0.1:10901" || f.Selector != `{__name__="up"}` || f.Series == 0 || f.Chunks < f.Series || f.Bytes == 0 || f.Duration == "" {
				t.Errorf("%s: got %+v", path, f)
			}
			want := work{[]string{"01A", "01B"}, 7, []stage{{Name: "chunks", Duration: "1ms", Needed: 10, Requests: 2, Fetched: 12}}}
			if f.Work == nil || !reflect.DeepEqual(*f.Work, want) {
				t.Errorf("%s: of its work it says %+v, want %+v", path, f.Work, want)
			}
		}
		params.Del("stats")
		if _, got := call(t, "GET", base+path, params); strings.Contains(string(got.Data), "fanout") {
			t.Errorf("%s: got %s, want no statistics", path, got.Data)
		}
	}
}

// telling is a store whose answers say what they took.
type telling struct{ storeapi.Store }

func (s telling) Series(ctx context.Context, req *storeapi.Request) series.Set {
	return toldSet{s.Store.Series(ctx, req)}
}

type toldSet struct{ series.Set }

func (toldSet) Stats() storeapi.QueryStats {
	return storeapi.QueryStats{Blocks: []string{"01A", "01B"}, Touched: 7, Stages: []storeapi.Stage{
		{Name: storeapi.StageChunks, Took: time.Millisecond, Needed: 10, Requests: 2, Fetched: 12},
	}}
}

func TestShardsTogetherAreTheWhole(t *testing.T) {
	base := serve(t, nil)
	seriesOf := func(shard string) (n int) {
		pairs := []string{"query", `{__name__=~".+"}`, "time", "1767225620"}
		if shard != "" {
			pairs = append(pairs, "shard_info", shard)
		}
		_, got := call(t, "GET", base+"/api/v1/query", form(pairs...))
		var data struct{ Result []json.RawMessage }
		if err := json.Unmarshal(got.Data, &data); err != nil {
			t.Fatalf("%+v: %v", got, err)
		}
		return len(data.Result)
	}
	first, second := seriesOf(`{"shard_index":0,"total_shards":2}`), seriesOf(`{"shard_index":1,"total_shards":2}`)
	if whole := seriesOf(""); first == 0 || second == 0 || first+second != whole {
		t.Errorf("got %d and %d series in two shards, want both of the whole %d", first, second, whole)
	}
}

func TestLookbackCanBeShortened(t *testing.T) {
	base := serve(t, nil)
	for lookback, want := range map[string]bool{"": true, "1ms": false} {
		pairs := []string{"query", `up`, "time", "1767225645.333"}
		if lookback != "" {
			pairs = append(pairs, "lookback_delta", lookback)
		}
		_, got := call(t, "GET", base+"/api/v1/query", form(pairs...))
		if found := strings.Contains(string(got.Data), `"metric"`); found != want {
			t.Errorf("lookback_delta=%q: got %s, want a series: %t", lookback, got.Data, want)
		}
	}
}
