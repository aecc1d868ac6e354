package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/varve-io/varve/internal/cmdtest"
	"github.com/varve-io/varve/internal/logtest"
	"github.com/varve-io/varve/pkg/storeapi"
	"github.com/varve-io/varve/pkg/storeapi/storeapitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// store serves the standard fixture over gRPC until stop is called.
func store(t *testing.T) (address string, stop func()) {
	t.Helper()
	m, err := storeapitest.NewMemory(storeapitest.Standard())
	if err != nil {
		t.Fatalf("encode fixture: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	srv := grpc.NewServer(storeapi.ServerOption())
	storeapi.Register(m, storeapi.ServerOptions{})(srv)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	stop = sync.OnceFunc(func() {
		srv.Stop()
		<-done
	})
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

// start runs a querier on free ports.
func start(t *testing.T, args ...string) *cmdtest.Running {
	t.Helper()
	return cmdtest.Start(t, serve, append([]string{"query", "--grpc-address=127.0.0.1:0"}, args...)...)
}

const upAt = "/api/v1/query?query=up&time=1767225600"

func TestAnswersForItsEndpointsUntilItIsStopped(t *testing.T) {
	address, stopStore := store(t)
	r := start(t, "--endpoint="+address, "--query.replica-label=replica", "--endpoint.info-timeout=50ms", "--query.promql-engine=thanos")
	r.Ready(t)
	base := r.URL(t)
	want := `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"up","cluster":"eu","job":"x","prometheus":"p"},"value":[1767225600,"0"]}]}}`
	if status, body := cmdtest.Get(t, base+upAt); status != 200 || body != want {
		t.Errorf("got %d %s, want 200 %s", status, body, want)
	}
	if status, body := cmdtest.Get(t, base+"/api/v1/stores"); status != 200 || !strings.Contains(body, address) {
		t.Errorf("stores: got %d %s, want %s among them", status, body, address)
	}
	if _, body := cmdtest.Get(t, base+"/metrics"); !strings.Contains(body, "varve_query_endpoint_requests_total 1\n") {
		t.Error("the metrics do not know of one request to an endpoint")
	}
	if text := r.Log.String(); strings.Count(text, "has no effect") != 1 || !strings.Contains(text, "--query.promql-engine") {
		t.Errorf("the flag without effect is not named once:\n%s", text)
	}

	// A second querier on top of the first.
	above := start(t, "--endpoint="+r.GRPC(t), "--query.replica-label=replica")
	above.Ready(t)
	if status, body := cmdtest.Get(t, above.URL(t)+upAt); status != 200 || body != want {
		t.Errorf("through two queriers: got %d %s, want 200 %s", status, body, want)
	}

	stopStore()
	logtest.Eventually(t, "a warning about the store that is gone", func() bool {
		_, body := cmdtest.Get(t, base+upAt)
		return strings.Contains(body, `"warnings":["the answer is incomplete`) && strings.Contains(body, address)
	})
	if status, body := cmdtest.Get(t, base+upAt+"&partial_response=false"); status != 503 || !strings.Contains(body, address) {
		t.Errorf("without partial response: got %d %s, want 503 and %s", status, body, address)
	}
}

func TestNeverAnEmptyAnswerBecauseDiscoveryHasNotEnded(t *testing.T) {
	// Nobody answers this name: reserved names are refused or not found.
	_, body := cmdtest.Get(t, start(t, "--endpoint=dnssrv+_grpc._tcp.nothing.invalid").URL(t)+upAt)
	if !strings.Contains(body, "the answer is incomplete") || !strings.Contains(body, "nothing.invalid") {
		t.Errorf("got %s, want a warning that names nothing.invalid", body)
	}
}

func TestHelp(t *testing.T) { cmdtest.Help(t, serve, "query") }

func TestCoarseDataServeWithoutAFlag(t *testing.T) {
	o, err := parse([]string{"--endpoint=a:1"}, io.Discard)
	if err != nil || !o.query.AutoDownsampling {
		t.Errorf("got %v and auto-downsampling %v, want true", err, o.query.AutoDownsampling)
	}
}

// kubeThanos is what kube-thanos' query object passes, all options taken.
const kubeThanos = `query
--grpc-address=0.0.0.0:10901
--http-address=0.0.0.0:9090
--log.level=info
--log.format=logfmt
--query.replica-label=prometheus_replica
--query.replica-label=rule_replica
--endpoint=dnssrv+_grpc._tcp.thanos-store.thanos.svc.cluster.local
--endpoint=dnssrv+_grpc._tcp.prometheus-k8s-thanos-sidecar.monitoring.svc.cluster.local
--rule=dnssrv+_grpc._tcp.thanos-rule.thanos.svc.cluster.local
--web.external-prefix=/thanos
--web.prefix-header=X-Forwarded-Prefix
--query.timeout=5m
--query.lookback-delta=15m
--tracing.config="config":
  "service_name": "thanos-query"
"type": "JAEGER"
--query.auto-downsampling
--query.promql-engine=thanos
--query.telemetry.request-duration-seconds-quantiles=0.1
--query.telemetry.request-duration-seconds-quantiles=0.25
--query.telemetry.request-samples-quantiles=100
--query.telemetry.request-series-seconds-quantiles=10
--alert.query-url=https://thanos.example.com`

func TestKubeThanosArgumentsAreAccepted(t *testing.T) {
	args := strings.Split(kubeThanos, "\n--")
	for i := range args[1:] {
		args[i+1] = "--" + args[i+1]
	}
	var usage bytes.Buffer
	o, err := parse(args, &usage)
	if err != nil {
		t.Fatalf("parse: %v\n%s", err, usage.String())
	}
	got := fmt.Sprint(o.query.ReplicaLabels, len(o.endpoints.Addresses), o.query.Timeout, o.query.LookbackDelta, o.query.AutoDownsampling, o.api.ExternalPrefix)
	if want := "[prometheus_replica rule_replica] 3 5m0s 15m0s true/thanos"; got != want {
		t.Errorf("options are %s, want %s", got, want)
	}
}

func TestEveryFlagOfThanosIsAccepted(t *testing.T) {
	args := []string{
		"--store=a:1", "--rule=b:1", "--target=c:1", "--metadata=d:1", "--exemplar=e:1", "--store-strict=f:1", "--endpoint-strict=g:1",
		"--endpoint-group=h:1", "--endpoint-group-strict=i:1", "--query.replica-label=a,b", "--store.response-timeout=0ms",
		"--query.instant.default.max_source_resolution=1h", `--selector-label=region="west"`, "--enable-feature=query-pushdown",
		"--enable-feature=promql-experimental-functions", "--grpc-client-tls-secure", "--grpc-client-server-name=x",
		"--grpc-compression=snappy", "--no-query.partial-response", "--no-query.auto-downsampling", "--store.limits.request-series=5",
		"--query.metadata.default-time-range=6h", "--query.default-step=10s", "--web.route-prefix=/p", "--web.disable-cors",
	}
	o, err := parse(append(args, cmdtest.Ignored(ignored())...), io.Discard)
	if err != nil {
		t.Fatalf("parse: %v", err)
	}
	got := fmt.Sprint(len(o.endpoints.Addresses), len(o.endpoints.Strict), o.query.ReplicaLabels, o.query.ExperimentalFunctions,
		o.query.InstantMaxSourceResolution, o.fanout.SelectorLabels, o.api.PartialResponse, o.query.AutoDownsampling)
	if want := `6 3 [a b] true 1h0m0s {region="west"} false false`; got != want {
		t.Errorf("options are %s, want %s", got, want)
	}
}

func TestMistakesAreNamed(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"an unknown flag":                     {[]string{"--endpiont=a:1"}, "--endpiont"},
		"a strict endpoint that is looked up": {[]string{"--endpoint-strict=dns+a:1"}, "--endpoint-strict=dns+a:1"},
		"a selector label without quotes":     {[]string{"--selector-label=region=west"}, "--selector-label=region=west"},
		"a timeout of nothing":                {[]string{"--query.timeout=0s"}, "--query.timeout"},
		"a certificate without a key":         {[]string{"--grpc-client-tls-secure", "--grpc-client-tls-cert=c"}, "--grpc-client-tls-key"},
		"TLS settings without TLS":            {[]string{"--grpc-client-tls-ca=c"}, "--grpc-client-tls-secure"},
		"an authority that is not there":      {[]string{"--grpc-client-tls-secure", "--grpc-client-tls-ca=nowhere"}, "nowhere"},
		"tenants that nobody would enforce":   {[]string{"--query.enforce-tenancy"}, "--query.enforce-tenancy"},
		"endpoints in a file":                 {[]string{"--store.sd-files=f"}, "--endpoint"},
		"an engine that nobody knows":         {[]string{"--query.promql-engine=warp"}, "--query.promql-engine"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			err := serve(ctx, append([]string{"--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0"}, tc.args...), io.Discard)
			if err == nil || !strings.Contains(err.Error(), tc.want) || ctx.Err() != nil {
				t.Errorf("error is %v, want one that names %s", err, tc.want)
			}
		})
	}
}
