package daemon

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oklog/run"
	"golang.org/x/crypto/bcrypt"
)

// fetch asks for a URL and returns the status and the body.
func fetch(t *testing.T, client *http.Client, url string, change func(*http.Request)) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(req)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatalf("GET %s: %v", url, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("GET %s: %v", url, err)
	}
	return res.StatusCode, string(body)
}

// newClient keeps no connection, so that none outlives its test.
func newClient(c *tls.Config) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: c, ForceAttemptHTTP2: true}}
}

func TestHTTPServesWhatEveryComponentHas(t *testing.T) {
	d, _ := newDaemon(t, parsed(t))
	api := http.NewServeMux()
	api.Handle("/api/v1/query", d.Instrument("query", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "bad query", http.StatusBadRequest)
	})))
	start(t, d, func(g *run.Group) { g.Add(d.HTTP(api)) })
	base, client := "http://"+d.HTTPAddr().String(), newClient(nil)

	if code, body := fetch(t, client, base+"/api/v1/query", nil); code != 400 || body != "bad query\n" {
		t.Errorf("the component's own API answers %d %q", code, body)
	}
	for path, want := range map[string]string{
		"/-/healthy":           "OK",
		"/debug/pprof/":        "goroutine",
		"/debug/pprof/heap":    "",
		"/debug/pprof/cmdline": "daemon",
	} {
		if code, body := fetch(t, client, base+path, nil); code != 200 || !strings.Contains(body, want) {
			t.Errorf("GET %s: got %d %.100q, want 200 and %q", path, code, body, want)
		}
	}
	openMetrics := func(r *http.Request) { r.Header.Set("Accept", "application/openmetrics-text; version=1.0.0") }
	_, body := fetch(t, client, base+"/metrics", openMetrics)
	for _, want := range []string{
		`http_requests_total{code="400",handler="query",method="get"} 1`,
		`http_request_duration_seconds_bucket{code="400",handler="query",method="get",le="0.001"}`,
		`http_response_size_bytes_sum{code="400",handler="query",method="get"} 10`,
		`http_inflight_requests{handler="query"} 0`,
		`varve_status{check="healthy",component="store"} 1`,
		`varve_status{check="ready",component="store"} 0`,
		"varve_build_info{", "go_goroutines", "process_start_time_seconds", "# EOF",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in /metrics", want)
		}
	}
}

func TestLandingPageListsTheEndpoints(t *testing.T) {
	d, _ := newDaemon(t, parsed(t))
	mux := d.mux(nil)
	if page := get(t, mux, "/"); page.Code != 200 || !strings.Contains(page.Body.String(), `href="/metrics"`) {
		t.Errorf("got %d %s", page.Code, page.Body)
	}
	if page := get(t, mux, "/api/v1/query"); page.Code != 404 {
		t.Errorf("an unknown path answers %d, want 404", page.Code)
	}
}

func TestWebConfigGivesTLSAndBasicAuth(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t)
	ca.issue(t, dir, "server")
	hash, err := bcrypt.GenerateFromPassword([]byte("grain"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "web.yaml")
	write(t, config, fmt.Sprintf("tls_server_config: {cert_file: server.crt, key_file: server.key}\nbasic_auth_users: {silt: %q}\n", hash))

	d, _ := newDaemon(t, parsed(t, "--http.config="+config))
	start(t, d, func(g *run.Group) { g.Add(d.HTTP(nil)) })
	url, client := "https://"+d.HTTPAddr().String()+"/-/healthy", newClient(&tls.Config{RootCAs: ca.pool})

	for name, tc := range map[string]struct {
		change func(*http.Request)
		want   int
	}{
		"no password":        {nil, 401},
		"a wrong password":   {func(r *http.Request) { r.SetBasicAuth("silt", "sand") }, 401},
		"the right password": {func(r *http.Request) { r.SetBasicAuth("silt", "grain") }, 200},
	} {
		if code, _ := fetch(t, client, url, tc.change); code != tc.want {
			t.Errorf("%s: got %d, want %d", name, code, tc.want)
		}
	}
}

func TestHTTPStopsWithinItsGracePeriod(t *testing.T) {
	for name, tc := range map[string]struct {
		grace string
		cut   bool
	}{
		"a request in flight is answered":          {"1m", false},
		"a request that lasts too long is cut off": {"20ms", true},
	} {
		t.Run(name, func(t *testing.T) {
			d, log := newDaemon(t, parsed(t, "--http-grace-period="+tc.grace))
			arrived, release := make(chan struct{}), make(chan struct{})
			stop := start(t, d, func(g *run.Group) {
				g.Add(d.HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					close(arrived)
					select {
					case <-release:
						io.WriteString(w, "late")
					case <-r.Context().Done():
					}
				})))
			})
			body := make(chan string, 1)
			go func() {
				req, _ := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodGet, "http://"+d.HTTPAddr().String()+"/slow", nil)
				res, err := newClient(nil).Do(req)
				if err != nil {
					body <- "cut off"
					return
				}
				defer res.Body.Close()
				b, _ := io.ReadAll(res.Body)
				body <- string(b)
			}()
			<-arrived
			if !tc.cut {
				go onceDeaf(d.HTTPAddr(), func() { close(release) })
			}
			if err := stop(); err != nil {
				t.Errorf("run ended with %v", err)
			}
			want := "late"
			if tc.cut {
				want = "cut off"
			}
			if got := <-body; got != want {
				t.Errorf("the request got %q, want %q", got, want)
			}
			if cut := len(log.lines("HTTP requests cut off")) == 1; cut != tc.cut {
				t.Errorf("log of the stop:\n%s", log)
			}
		})
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
