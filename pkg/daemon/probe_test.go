package daemon

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/health/grpc_health_v1"
)

func get(t *testing.T, h http.Handler, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return w
}

func TestProbeTransitions(t *testing.T) {
	d, log := newDaemon(t, parsed(t))
	mux := d.mux(nil)
	_, interrupt := d.Probe.Actor()
	for _, step := range []struct {
		name    string
		do      func()
		code    int
		body    string
		serving bool
	}{
		{"a process starts not ready", func() {}, 503, "NOT OK: starting", false},
		{"another reason", func() { d.Probe.NotReady(errors.New("no labels yet")) }, 503, "NOT OK: no labels yet", false},
		{"it becomes ready", d.Probe.Ready, 200, "OK", true},
		{"readiness twice is readiness", d.Probe.Ready, 200, "OK", true},
		{"it loses what it needs", func() { d.Probe.NotReady(errors.New("Prometheus is away")) }, 503, "NOT OK: Prometheus is away", false},
		{"it recovers", d.Probe.Ready, 200, "OK", true},
		{"it stops", func() { interrupt(nil) }, 503, "NOT OK: stopping", false},
		{"stopping is for ever", d.Probe.Ready, 503, "NOT OK: stopping", false},
		{"two interrupts are one", func() { interrupt(nil) }, 503, "NOT OK: stopping", false},
	} {
		step.do()
		got := get(t, mux, "/-/ready")
		if body := strings.TrimSpace(got.Body.String()); got.Code != step.code || body != step.body {
			t.Errorf("%s: got %d %q, want %d %q", step.name, got.Code, body, step.code, step.body)
		}
		if got := get(t, mux, "/-/healthy"); got.Code != 200 || got.Body.String() != "OK" {
			t.Errorf("%s: healthy answers %d %q", step.name, got.Code, got.Body)
		}
		want, status := 0.0, grpc_health_v1.HealthCheckResponse_NOT_SERVING
		if step.serving {
			want, status = 1, grpc_health_v1.HealthCheckResponse_SERVING
		}
		if got := testutil.ToFloat64(d.Probe.ready); got != want {
			t.Errorf("%s: varve_status{check=ready} is %v, want %v", step.name, got, want)
		}
		health, err := d.Probe.grpc.Check(context.Background(), &grpc_health_v1.HealthCheckRequest{})
		if err != nil || health.Status != status {
			t.Errorf("%s: gRPC health is %v, %v, want %v", step.name, health, err, status)
		}
	}
	if lines := log.lines(`msg="not ready"`); len(lines) != 2 {
		t.Errorf("want one line for each loss of readiness, got %q", lines)
	}
}
