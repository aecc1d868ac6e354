package promclient

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

func clientOf(t *testing.T, url, yaml string) *Client {
	t.Helper()
	o := Defaults()
	o.URL, o.HTTPConfig = url, []byte(yaml)
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func server(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv
}

func TestWhatTheStatusPagesSay(t *testing.T) {
	answers := map[string]string{
		"/prefix/-/ready":                 "Prometheus Server is Ready.\n",
		"/prefix/api/v1/status/buildinfo": `{"status":"success","data":{"version":"3.15.0"}}`,
		"/prefix/api/v1/status/config":    `{"status":"success","data":{"yaml":"global:\n  external_labels:\n    cluster: eu\n    replica: \"0\"\nscrape_configs: []\n"}}`,
		"/prefix/api/v1/status/flags": `{"status":"success","data":{"storage.tsdb.path":"/prometheus","storage.tsdb.min-block-duration":"2h",
			"storage.tsdb.max-block-duration":"1d12h","storage.tsdb.delay-compact-file.path":"/prometheus/x.json"}}`,
		"/prefix/metrics": "# HELP prometheus_tsdb_lowest_timestamp_seconds x\nprometheus_tsdb_lowest_timestamp_seconds 1.767225600e+09\nup 1\n",
	}
	srv := server(t, func(w http.ResponseWriter, r *http.Request) {
		text, ok := answers[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
		}
		w.Write([]byte(text))
	})
	c := clientOf(t, srv.URL+"/prefix/", "")
	if err := c.Ready(t.Context()); err != nil {
		t.Errorf("ready: %v", err)
	}
	if v, err := c.Version(t.Context()); err != nil || v != "3.15.0" {
		t.Errorf("version is %q (%v)", v, err)
	}
	if l, err := c.ExternalLabels(t.Context()); err != nil || l.String() != `{cluster="eu", replica="0"}` {
		t.Errorf("external labels are %s (%v)", l, err)
	}
	want := Flags{Dir: "/prometheus", MinBlock: 2 * time.Hour, MaxBlock: 36 * time.Hour, DelayCompactFile: "/prometheus/x.json"}
	if f, err := c.Flags(t.Context()); err != nil || f != want {
		t.Errorf("flags are %+v (%v), want %+v", f, err, want)
	}
	if ms, ok, err := c.LowestTime(t.Context()); err != nil || !ok || ms != 1_767_225_600_000 {
		t.Errorf("lowest time is %d, %t (%v)", ms, ok, err)
	}
	answers["/prefix/metrics"] = "prometheus_tsdb_lowest_timestamp_seconds 9.223372036854776e+15\n" // an empty head
	if _, ok, err := c.LowestTime(t.Context()); err != nil || ok {
		t.Errorf("lowest time of nothing: known %t (%v)", ok, err)
	}
}

func TestErrorsSayWhatPrometheusSaid(t *testing.T) {
	for name, tc := range map[string]struct {
		status int
		body   string
		want   string
	}{
		"an error of the API":      {400, `{"status":"error","errorType":"bad_data","error":"unknown thing"}`, "400, bad_data: unknown thing"},
		"a page of somebody else":  {502, "<html>Bad Gateway</html>\n", "502: <html>Bad Gateway</html>"},
		"an answer that is a page": {200, "<html>hello</html>", "is --prometheus.url right?"},
		"an answer of other data":  {200, `{"status":"success","data":{"version":[]}}`, "version"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := server(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tc.status)
				w.Write([]byte(tc.body))
			})
			_, err := clientOf(t, srv.URL, "").Version(t.Context())
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error is %v, want %q in it", err, tc.want)
			}
			if s, ok := errors.AsType[*StatusError](err); ok != (tc.status != 200) || (ok && s.Status != tc.status) {
				t.Errorf("error is %#v, want status %d", err, tc.status)
			}
		})
	}
	_, err := clientOf(t, "http://127.0.0.1:1", "").Version(t.Context())
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("nobody listens: error is %v, want %v", err, ErrUnreachable)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := clientOf(t, "http://127.0.0.1:1", "").Version(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: error is %v, want %v", err, context.Canceled)
	}
}

func TestAnAnswerIsBounded(t *testing.T) {
	srv := server(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(`{"status":"success","data":["` + strings.Repeat("x", 1000) + `"]}`))
	})
	c := clientOf(t, srv.URL, "")
	c.opts.MaxAnswer = 100
	if _, _, err := c.LabelNames(t.Context(), Selection{}); err == nil || !strings.Contains(err.Error(), "longer than 100 bytes") {
		t.Errorf("error is %v, want one that says the limit", err)
	}
}

func TestSelectionsAsParameters(t *testing.T) {
	var path, form string
	srv := server(t, func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		path, form = r.URL.EscapedPath(), r.Form.Encode()
		fmt.Fprint(w, `{"status":"success","data":["a","b"],"warnings":["results truncated due to limit","a real one"]}`)
	})
	c := clientOf(t, srv.URL, "")
	s := Selection{MinTime: 1500, MaxTime: 1 << 62, Limit: 2, Matchers: []*labels.Matcher{
		labels.MustNewMatcher(labels.MatchEqual, "a", `x"y`), labels.MustNewMatcher(labels.MatchNotRegexp, "b.c", ".+"),
	}}
	names, warnings, err := c.LabelNames(t.Context(), s)
	if err != nil || !slices.Equal(names, []string{"a", "b"}) || !slices.Equal(warnings, []string{"a real one"}) {
		t.Errorf("got names %q, warnings %q (%v)", names, warnings, err)
	}
	if want := "limit=2&match%5B%5D=%7Ba%3D%22x%5C%22y%22%2C%22b.c%22%21~%22.%2B%22%7D&start=1.500"; path != "/api/v1/labels" || form != want {
		t.Errorf("asked %s with %s, want %s", path, form, want)
	}
	for name, want := range map[string]string{"job": "/api/v1/label/job/values", "a.b/c": "/api/v1/label/U__a_2e_b_2f_c/values"} {
		if _, _, err := c.LabelValues(t.Context(), name, Selection{}); err != nil || path != want {
			t.Errorf("values of %s: asked %s (%v), want %s", name, path, err, want)
		}
	}
}

func TestAuthentication(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("word\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var got string
	srv := server(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("Authorization")
		fmt.Fprint(w, `{"data":{}}`)
	})
	for name, tc := range map[string]struct{ yaml, want string }{
		"none":                  {"", ""},
		"basic":                 {"basic_auth: {username: me, password: word}", "Basic bWU6d29yZA=="},
		"basic, from a file":    {"basic_auth: {username: me, password_file: " + file + "}", "Basic bWU6d29yZA=="},
		"bearer":                {"bearer_token: word", "Bearer word"},
		"bearer, from a file":   {"bearer_token_file: " + file, "Bearer word"},
		"with transport's keys": {"bearer_token: word\ntransport_config: {max_idle_conns: 1, max_idle_conns_per_host: 1, idle_conn_timeout: 1m, response_header_timeout: 2m, expect_continue_timeout: 1s, max_conns_per_host: 9, disable_compression: true, tls_handshake_timeout: 10s}", "Bearer word"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := clientOf(t, srv.URL, tc.yaml).Version(t.Context()); err != nil || got != tc.want {
				t.Errorf("authorization is %q (%v), want %q", got, err, tc.want)
			}
		})
	}
}

func TestTLS(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"data":{}}`) }))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are refused
	srv.StartTLS()
	t.Cleanup(srv.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		yaml string
		ok   bool
	}{
		"an unknown authority":      {"", false},
		"which does not matter":     {"tls_config: {insecure_skip_verify: true}", true},
		"the authority from a file": {"tls_config: {ca_file: " + ca + "}", true},
		"another name":              {"tls_config: {ca_file: " + ca + ", server_name: elsewhere.test}", false},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := clientOf(t, srv.URL, tc.yaml).Version(t.Context()); (err == nil) != tc.ok {
				t.Errorf("error is %v, want ok: %t", err, tc.ok)
			}
		})
	}
}

func TestBadSettings(t *testing.T) {
	for name, tc := range map[string]struct{ url, yaml, want string }{
		"an unknown key":           {"http://x", "tls: {}", "tls"},
		"an unknown key inside":    {"http://x", "transport_config: {max: 1}", "max"},
		"two passwords":            {"http://x", "basic_auth: {username: a, password: b, password_file: c}", "password"},
		"no YAML":                  {"http://x", "{", "--prometheus.http-client"},
		"an authority that is not": {"http://x", "tls_config: {ca_file: /absent}", "/absent"},
		"a URL without a host":     {"localhost:9090", "", "--prometheus.url"},
	} {
		t.Run(name, func(t *testing.T) {
			o := Defaults()
			o.URL, o.HTTPConfig = tc.url, []byte(tc.yaml)
			if _, err := New(o); err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error is %v, want one line with %q", err, tc.want)
			}
		})
	}
}
