package e2e

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/varve-io/varve/e2e/harness"
	"github.com/varve-io/varve/e2e/history"
)

// grafana asks as Grafana's Prometheus data source does: always with gzip.
func grafana(ctx context.Context, t *testing.T, method, url string, form url.Values) (int, harness.Response) {
	t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req := must(http.NewRequestWithContext(ctx, method, url, body))(t)
	req.Header.Set("Accept-Encoding", "gzip")
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var in io.Reader = resp.Body
	if resp.Header.Get("Content-Encoding") == "gzip" {
		in = must(gzip.NewReader(resp.Body))(t)
	}
	data := must(io.ReadAll(in))(t)
	if got := resp.Header.Get("Content-Type"); !strings.HasPrefix(got, "application/json") {
		t.Errorf("%s %s: content type %q: %.200s", method, url, got, data)
	}
	var r harness.Response
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatalf("%s %s: %v: %.200s", method, url, err, data)
	}
	return resp.StatusCode, r
}

// unix is a time as a parameter of the API: whole seconds.
func unix(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }

// TestGrafanaGetsTheAnswersItExpects replays what the data source sends.
func TestGrafanaGetsTheAnswersItExpects(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	c := harness.ForTest(t)
	s3 := startS3(ctx, t, c)
	end := time.Now().Truncate(time.Minute)
	lay(ctx, t, bucketOf(s3, bucketName), pair(nil, nil), history.Options{
		Start: end.Add(-4 * time.Hour), End: end, Interval: 30 * time.Second, BlockRange: 2 * time.Hour,
		Processes: history.Processes(6),
	})
	store := must(c.Store(ctx, "store", s3.ObjstoreConfig(bucketName)))(t)
	query := must(c.Query(ctx, "query", []string{store.GRPC}))(t)
	base := "http://" + query.HTTP + "/api/v1/"
	from, to := unix(end.Add(-time.Hour)), unix(end)

	for name, tc := range map[string]struct {
		method, path string
		form         url.Values
		code         int
		want         string // must be in data, or in the error
	}{
		"health":            {"POST", "query", url.Values{"query": {"1+1"}, "time": {"4"}}, 200, `[4,"2"]`},
		"build information": {"GET", "status/buildinfo", nil, 200, `"version"`},
		"range": {"POST", "query_range", url.Values{
			"query": {`sum by (code) (rate(demo_requests_total[5m]))`}, "start": {from}, "end": {to}, "step": {"15"},
		}, 200, `"matrix"`},
		"range with a fractional step": {"POST", "query_range", url.Values{
			"query": {`demo_temperature_celsius`}, "start": {from}, "end": {to}, "step": {"7.5"},
		}, 200, `"sensor":"s2"`},
		"instant": {"POST", "query", url.Values{
			"query": {`demo_temperature_celsius`}, "time": {fmt.Sprintf("%d.772547", end.Unix()-60)},
		}, 200, `"vector"`},
		"exemplars":          {"POST", "query_exemplars", url.Values{"query": {`demo_requests_total`}, "start": {from}, "end": {to}}, 200, `[]`},
		"syntax error":       {"POST", "query", url.Values{"query": {`sum(`}, "time": {to}}, 400, "parse error"},
		"no query":           {"POST", "query_range", url.Values{"start": {from}, "end": {to}, "step": {"15"}}, 400, ""},
		"end before start":   {"POST", "query_range", url.Values{"query": {"up"}, "start": {to}, "end": {from}, "step": {"15"}}, 400, "end"},
		"labels by POST":     {"POST", "labels", url.Values{"match[]": {`demo_requests_total`}, "start": {from}, "end": {to}}, 200, `"handler"`},
		"labels by GET":      {"GET", "labels?start=" + from + "&end=" + to + "&limit=40000", nil, 200, `"__name__"`},
		"series":             {"POST", "series", url.Values{"match[]": {`{job="demo"}`}, "start": {from}, "end": {to}}, 200, `"instance"`},
		"label values":       {"GET", "label/handler/values?start=" + from + "&end=" + to, nil, 200, `"/api/0"`},
		"values by POST":     {"POST", "label/job/values?start=" + from + "&end=" + to, url.Values{}, 200, `"demo"`},
		"metric names":       {"GET", "label/__name__/values?limit=40000", nil, 200, `"demo_requests_total"`},
		"metadata":           {"GET", "metadata?limit=1000", nil, 200, `{`},
		"rules":              {"GET", "rules", nil, 200, `"groups"`},
		"unknown path":       {"GET", "no-such-thing", nil, 404, ""},
		"replicas, together": {"POST", "query", url.Values{"query": {`count(demo_requests_total)`}, "time": {to}}, 200, `"4"`},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.code == http.StatusNotFound {
				resp, err := http.Get(base + tc.path)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode != tc.code {
					t.Errorf("got code %d, want %d", resp.StatusCode, tc.code)
				}
				return
			}
			code, r := grafana(ctx, t, tc.method, base+tc.path, tc.form)
			if code != tc.code {
				t.Errorf("got code %d and error %q, want %d", code, r.Error, tc.code)
			}
			switch code {
			case http.StatusOK:
				if r.Status != "success" || !strings.Contains(string(r.Data), tc.want) {
					t.Errorf("got status %q and data %.300s, want %s", r.Status, r.Data, tc.want)
				}
			default:
				if r.Status != "error" || r.ErrorType != "bad_data" || !strings.Contains(r.Error, tc.want) {
					t.Errorf("got %+v, want an error of type bad_data with %q", r, tc.want)
				}
			}
			// The label exists, to select by; no series carries it.
			if !strings.HasPrefix(tc.path, "labels") && strings.Contains(string(r.Data), "prometheus_replica") {
				t.Errorf("the answer tells replicas apart: %.300s", r.Data)
			}
		})
	}
}
