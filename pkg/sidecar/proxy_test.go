package sidecar_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/internal/cmdtest"
	"github.com/varve-io/varve/pkg/promclient"
	"github.com/varve-io/varve/pkg/proxyapi"
	"github.com/varve-io/varve/pkg/sidecar"
	"github.com/varve-io/varve/pkg/storeapi"
)

const rules = `
groups:
- name: group
  rules:
  - record: job:up:sum
    expr: sum by (job) (up)
    labels: {team: a}
  - alert: Always
    expr: vector(1)
    labels: {severity: page, cluster: hidden}
    annotations: {summary: "it is always so"}
`

// exporter has a metric with metadata and an exemplar.
func exporter(t *testing.T) (address string) {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
		io.WriteString(w, "# TYPE requests counter\n# HELP requests What was asked.\nrequests_total 7 # {trace_id=\"t\"} 1\n# EOF\n")
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func TestTheProxyAddsExternalLabels(t *testing.T) {
	cmdtest.Tool(t, "prometheus")
	target := exporter(t)
	prom := startPrometheus(t, config{External: map[string]string{"cluster": "eu"}, Rules: rules, Target: target})
	client := clientOf(t, prom.url)
	state, _ := follow(t, client, nil)
	p := sidecar.NewProxy(client, state)

	t.Run("rules", func(t *testing.T) {
		eventually(t, "a firing alert", func(ctx context.Context) error {
			groups, _, err := p.Rules(ctx, proxyapi.RulesRequest{Type: proxyapi.Alerting})
			if err != nil {
				return err
			}
			if len(groups) != 1 || len(groups[0].Rules) != 1 || len(groups[0].Rules[0].Alerts) != 1 {
				return fmt.Errorf("got groups %+v, want an alerting rule with an alert", groups)
			}
			if !groups[0].Abort {
				return fmt.Errorf("the group wants partial answers, want all or nothing, as Thanos' sidecar says: %+v", groups[0])
			}
			r := groups[0].Rules[0]
			if want := `{cluster="eu", severity="page"}`; r.Labels.String() != want || r.State != proxyapi.StateFiring {
				return fmt.Errorf("rule has labels %s and state %s, want %s and firing", r.Labels, r.State, want)
			}
			if want := `{alertname="Always", cluster="eu", severity="page"}`; r.Alerts[0].Labels.String() != want {
				return fmt.Errorf("alert has labels %s, want %s", r.Alerts[0].Labels, want)
			}
			return nil
		})
		for match, want := range map[string]int{`{cluster="eu"}`: 2, `{cluster="hidden"}`: 0, `{team="a",cluster=~"e."}`: 1} {
			groups, _, err := p.Rules(t.Context(), proxyapi.RulesRequest{Match: []string{match}})
			got := 0
			for _, g := range groups {
				got += len(g.Rules)
			}
			if err != nil || got != want {
				t.Errorf("%s selects %d rules (%v), want %d", match, got, err, want)
			}
		}
	})
	t.Run("targets", func(t *testing.T) {
		eventually(t, "a target", func(ctx context.Context) error {
			d, _, err := p.Targets(ctx, proxyapi.TargetsRequest{})
			if want := fmt.Sprintf(`{cluster="eu", instance=%q, job="x"}`, target); err != nil || len(d.Active) != 1 || d.Active[0].Labels.String() != want || !d.Active[0].DiscoveredLabels.Has("cluster") {
				return fmt.Errorf("got targets %+v (%w), want one with labels %s", d.Active, err, want)
			}
			return nil
		})
		if d, _, err := p.Targets(t.Context(), proxyapi.TargetsRequest{State: proxyapi.DroppedTarget}); err != nil || len(d.Active) > 0 {
			t.Errorf("dropped targets: got %+v (%v)", d, err)
		}
	})
	t.Run("metadata", func(t *testing.T) {
		eventually(t, "metadata", func(ctx context.Context) error {
			m, _, err := p.MetricMetadata(ctx, proxyapi.MetadataRequest{Metric: "requests_total", Limit: -1})
			if err != nil {
				return err
			}
			if len(m) == 0 {
				m, _, err = p.MetricMetadata(ctx, proxyapi.MetadataRequest{Metric: "requests", Limit: -1})
			}
			for _, metas := range m {
				if metas[0] == (proxyapi.Meta{Type: "counter", Help: "What was asked."}) {
					return err
				}
			}
			return fmt.Errorf("got %v (%w)", m, err)
		})
		if m, _, err := p.MetricMetadata(t.Context(), proxyapi.MetadataRequest{}); err != nil || len(m) > 0 {
			t.Errorf("limit 0: got %v (%v), want nothing", m, err)
		}
	})
	t.Run("exemplars", func(t *testing.T) {
		req := proxyapi.ExemplarsRequest{Query: `rate(requests_total{cluster="eu"}[1m])`, Start: time.Now().Add(-time.Hour).UnixMilli(), End: math.MaxInt64}
		eventually(t, "an exemplar", func(ctx context.Context) error {
			got, _, err := p.Exemplars(ctx, req)
			if err != nil || len(got) != 1 || got[0].SeriesLabels.Get("cluster") != "eu" || got[0].Exemplars[0].Labels.Get("trace_id") != "t" {
				return fmt.Errorf("got %+v (%w)", got, err)
			}
			return nil
		})
		req.Query = `requests_total{cluster="us"}`
		if got, _, err := p.Exemplars(t.Context(), req); err != nil || len(got) > 0 {
			t.Errorf("another cluster: got %+v (%v), want nothing", got, err)
		}
		req.Query = `requests_total{`
		if _, _, err := p.Exemplars(t.Context(), req); !errors.Is(err, proxyapi.ErrBadRequest) {
			t.Errorf("bad query: error is %v, want %v", err, proxyapi.ErrBadRequest)
		}
	})
	t.Run("TSDB statistics", func(t *testing.T) {
		got, _, err := p.TSDBStatistics(t.Context(), proxyapi.StatusRequest{Limit: 3})
		if err != nil || got[""].Head.NumSeries == 0 || len(got[""].SeriesCountByMetricName) == 0 || len(got[""].SeriesCountByMetricName) > 3 {
			t.Errorf("got %+v (%v)", got, err)
		}
		us := []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "cluster", "us")}
		if got, _, err := p.TSDBStatistics(t.Context(), proxyapi.StatusRequest{Matchers: us}); err != nil || len(got) > 0 {
			t.Errorf("another cluster: got %v (%v), want nothing", got, err)
		}
	})
}

func TestPrometheusIsFollowed(t *testing.T) {
	cmdtest.Tool(t, "prometheus")
	prom := startPrometheus(t, config{External: map[string]string{"cluster": "eu"}})
	state, _ := follow(t, clientOf(t, prom.url), nil)
	is := func(want string) {
		t.Helper()
		eventually(t, "external labels "+want, func(context.Context) error {
			s, err := state.State()
			switch {
			case err == nil && s.External.String() == want && s.Version != "" && s.MinTime == math.MinInt64: // of a TSDB without samples
				return nil
			case err != nil && want == "" && errors.Is(err, storeapi.ErrUnavailable) && strings.Contains(err.Error(), "global.external_labels"):
				return nil
			}
			return fmt.Errorf("state is %+v (%w)", s, err)
		})
	}
	is(`{cluster="eu"}`)
	prom.reload(t, config{External: map[string]string{"cluster": "us"}})
	is(`{cluster="us"}`)
	prom.reload(t, config{})
	is("")
	prom.reload(t, config{External: map[string]string{"cluster": "eu"}})
	is(`{cluster="eu"}`)
}

func TestNotReadyWhilePrometheusIsDown(t *testing.T) {
	external := labels.FromStrings("cluster", "eu")
	url := remotePrometheus{announced: external, merged: external}.start(t, nil)
	var down switchable
	front := httptest.NewServer(down.proxy(url))
	t.Cleanup(front.Close)
	state, told := follow(t, clientOf(t, front.URL), nil)
	store, err := sidecar.NewStore(clientOf(t, front.URL), state, sidecar.StoreDefaults(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	wait := func(wanted bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		for {
			select {
			case err := <-told:
				if (err == nil) == wanted {
					return
				}
			case <-ctx.Done():
				t.Fatalf("waited in vain for ready: %t", wanted)
			}
		}
	}
	wait(true)
	down.set(true)
	wait(false)
	if _, err := store.Info(t.Context()); !errors.Is(err, storeapi.ErrUnavailable) {
		t.Errorf("info while Prometheus is down: error is %v, want %v", err, storeapi.ErrUnavailable)
	}
	if _, err := ask(t, store, everything()); !errors.Is(err, storeapi.ErrUnavailable) {
		t.Errorf("series while Prometheus is down: error is %v, want %v", err, storeapi.ErrUnavailable)
	}
	down.set(false)
	wait(true)
	if info, err := store.Info(t.Context()); err != nil || info.MinTime != -1_000_000 {
		t.Errorf("info is %+v (%v)", info, err)
	}
}

func TestAPrometheusThatDoesNotComeUp(t *testing.T) {
	bare := remotePrometheus{announced: labels.EmptyLabels()}.start(t, nil)
	external := labels.FromStrings("cluster", "eu")
	labelled := remotePrometheus{announced: external, merged: external}.start(t, nil)
	errFlags := errors.New("wrong flags")
	for name, tc := range map[string]struct {
		url  string
		want string
	}{
		"without external labels": {bare, "global.external_labels"},
		"with wrong flags":        {labelled, "wrong flags"},
		"absent":                  {"http://127.0.0.1:1", "--prometheus.ready_timeout=300ms"},
	} {
		t.Run(name, func(t *testing.T) {
			o := sidecar.PrometheusDefaults()
			o.ReadyTimeout = 300 * time.Millisecond
			p, err := sidecar.NewPrometheus(clientOf(t, tc.url), o, discard(), prometheus.NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
			err = p.Run(t.Context(), drained{make(probe)}, func(promclient.Flags) error { return errFlags })
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("run ended with %v, want %q in it", err, tc.want)
			}
			if _, err := p.State(); !errors.Is(err, storeapi.ErrUnavailable) {
				t.Errorf("state: error is %v, want %v", err, storeapi.ErrUnavailable)
			}
		})
	}
}
