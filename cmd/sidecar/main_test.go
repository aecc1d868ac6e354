package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"go.uber.org/goleak"

	"github.com/varve-io/varve/internal/cmdtest"
	"github.com/varve-io/varve/internal/logtest"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/proxyapi"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// begin is the time of the first sample that promtool is given, a full two hours.
const begin = 1_767_225_600

// backfill makes promtool cut a block as Prometheus does.
func backfill(t *testing.T, dir string) {
	t.Helper()
	var text strings.Builder
	text.WriteString("# TYPE requests counter\n")
	for i := range 100 {
		fmt.Fprintf(&text, "requests_total{job=\"x\"} %d %d\n", i, begin+15*i)
	}
	text.WriteString("# EOF\n")
	file := filepath.Join(t.TempDir(), "samples.om")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(cmdtest.Tool(t, "promtool"), "tsdb", "create-blocks-from", "openmetrics", file, dir).CombinedOutput()
	if err != nil {
		t.Fatalf("promtool: %v\n%s", err, out)
	}
}

// startPrometheus runs a Prometheus that scrapes itself, over a data directory.
func startPrometheus(t *testing.T, dir string, external map[string]string, args ...string) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	conf, err := json.Marshal(map[string]any{
		"global":         map[string]any{"external_labels": external, "scrape_interval": "1s"},
		"scrape_configs": []any{map[string]any{"job_name": "self", "metrics_path": "/prom/metrics", "static_configs": []any{map[string]any{"targets": []string{address}}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "prometheus.yml")
	if err := os.WriteFile(file, conf, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	cmd := exec.Command(cmdtest.Tool(t, "prometheus"), append([]string{
		"--config.file=" + file, "--storage.tsdb.path=" + dir, "--storage.tsdb.retention.time=100y",
		"--web.listen-address=" + address, "--web.external-url=http://" + address + "/prom", "--log.level=warn",
	}, args...)...)
	var out logtest.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()); err != nil {
			t.Errorf("stop Prometheus: %v\n%s", err, out.String())
		}
	})
	url = "http://" + address + "/prom"
	logtest.Eventually(t, "Prometheus", func() bool {
		status, _ := cmdtest.Get(t, url+"/-/ready")
		return status == http.StatusOK
	})
	return url
}

// start runs a sidecar on free ports until it is ready.
func start(t *testing.T, args ...string) *cmdtest.Running {
	t.Helper()
	r := cmdtest.Start(t, serve, append([]string{"sidecar", "--grpc-address=127.0.0.1:0", "--prometheus.get_config_interval=1s"}, args...)...)
	r.Ready(t)
	return r
}

func TestShipsABlockAndAnswersForAPrometheus(t *testing.T) {
	cmdtest.Tool(t, "prometheus")
	dir, bucketDir := t.TempDir(), t.TempDir()
	backfill(t, dir)
	url := startPrometheus(t, dir, map[string]string{"cluster": "eu", "replica": "a"},
		"--storage.tsdb.min-block-duration=2h", "--storage.tsdb.max-block-duration=2h")
	r := start(t, "--prometheus.url="+url, "--tsdb.path="+dir, "--hash-func=SHA256",
		"--objstore.config={type: FILESYSTEM, config: {directory: "+bucketDir+"}}")

	var metas []string
	logtest.Eventually(t, "a shipped block", func() bool {
		var err error
		if metas, err = filepath.Glob(filepath.Join(bucketDir, "*", block.MetaFile)); err != nil {
			t.Fatal(err)
		}
		return len(metas) > 0
	})
	data, err := os.ReadFile(metas[0])
	if err != nil {
		t.Fatal(err)
	}
	meta, err := block.ParseMeta(data)
	if err != nil {
		t.Fatal(err)
	}
	if got := meta.Labels().String(); len(metas) != 1 || got != `{cluster="eu", replica="a"}` || meta.Stats.NumSamples != 100 || meta.Thanos.Source != block.SourceSidecar {
		t.Errorf("%d blocks, the first with labels %s, %d samples, source %s", len(metas), got, meta.Stats.NumSamples, meta.Thanos.Source)
	}
	logtest.Eventually(t, "the state file", func() bool {
		state, err := os.ReadFile(filepath.Join(dir, "thanos.shipper.json"))
		return err == nil && strings.Contains(string(state), meta.ULID.String())
	})
	askStore(t, r.GRPC(t))
	if _, body := cmdtest.Get(t, r.URL(t)+"/metrics"); !strings.Contains(body, "varve_sidecar_blocks_shipped_total 1\n") ||
		!strings.Contains(body, "varve_sidecar_prometheus_up 1\n") {
		t.Error("the metrics do not speak of one shipped block and a Prometheus that is up")
	}
	if text := r.Log.String(); strings.Count(text, "has no effect") != 1 || !strings.Contains(text, "--hash-func") {
		t.Errorf("the flag without effect is not named once:\n%s", text)
	}
	r.Stop(t)
}

// askStore looks at what a querier sees.
func askStore(t *testing.T, address string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	conn, err := storeapi.Dial(address, storeapi.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client, err := storeapi.NewClient(conn, "sidecar", storeapi.Defaults())
	if err != nil {
		t.Fatal(err)
	}
	info, err := client.Info(ctx)
	if err != nil || info.Component != "sidecar" || !info.Native || info.MinTime > begin*1000 ||
		!info.APIs.Has(storeapi.StoreAPI|storeapi.RulesAPI|storeapi.TargetsAPI|storeapi.MetadataAPI|storeapi.ExemplarsAPI|storeapi.StatusAPI) {
		t.Errorf("info is %+v (%v)", info, err)
	}
	got, _, err := series.Collect(client.Series(ctx, &storeapi.Request{
		MinTime: begin * 1000, MaxTime: (begin + 7200) * 1000, WithoutLabels: []string{"replica"},
		Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "requests_total"), labels.MustNewMatcher(labels.MatchEqual, "cluster", "eu")},
	}))
	if err != nil || len(got) != 1 || got[0].Replica != "a" || got[0].Labels.String() != `{__name__="requests_total", cluster="eu", job="x"}` {
		t.Errorf("got series %v (%v)", got, err)
	}
	fresh := &storeapi.Request{
		MinTime: time.Now().Add(-time.Hour).UnixMilli(), MaxTime: time.Now().Add(time.Hour).UnixMilli(),
		Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "up")},
	}
	logtest.Eventually(t, "a fresh sample", func() bool {
		got, _, err := series.Collect(client.Series(ctx, fresh))
		return err == nil && len(got) == 1
	})
	targets, _, err := proxyapi.NewClient(conn, "sidecar").Targets(ctx, proxyapi.TargetsRequest{})
	if err != nil || len(targets.Active) != 1 || targets.Active[0].Labels.Get("cluster") != "eu" {
		t.Errorf("got targets %+v (%v)", targets, err)
	}
}

func TestAnswersWithoutObjectStorage(t *testing.T) {
	url := startPrometheus(t, t.TempDir(), map[string]string{"cluster": "eu"}) // which compacts locally
	r := start(t, "--prometheus.url="+url, "--tsdb.path="+filepath.Join(t.TempDir(), "absent"))
	r.Stop(t)
}

func TestEndsWithOneClearLine(t *testing.T) {
	cmdtest.Tool(t, "prometheus")
	bare := startPrometheus(t, t.TempDir(), nil)
	compacting := startPrometheus(t, t.TempDir(), map[string]string{"cluster": "eu"})
	objstore := "--objstore.config={type: FILESYSTEM, config: {directory: " + t.TempDir() + "}}"
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"no external labels":              {[]string{"--prometheus.url=" + bare, "--prometheus.ready_timeout=3s"}, "global.external_labels"},
		"nobody listens":                  {[]string{"--prometheus.url=http://127.0.0.1:1", "--prometheus.ready_timeout=1s"}, "127.0.0.1:1"},
		"no Prometheus":                   {[]string{"--prometheus.url=" + strings.TrimSuffix(compacting, "/prom"), "--prometheus.ready_timeout=1s"}, "404"},
		"blocks are merged locally":       {[]string{"--prometheus.url=" + compacting, "--tsdb.path=" + t.TempDir(), objstore}, "--storage.tsdb.delay-compact-file.path"},
		"no data directory":               {[]string{"--tsdb.path=/absent", objstore}, "--tsdb.path"},
		"a URL that is none":              {[]string{"--prometheus.url=localhost:9090"}, "--prometheus.url"},
		"an unknown key":                  {[]string{"--prometheus.http-client={tls: {}}"}, "tls"},
		"a state file outside":            {[]string{"--shipper.meta-file-name=../x.json", objstore}, "--shipper.meta-file-name"},
		"both forms of a setting":         {[]string{"--prometheus.http-client={}", "--prometheus.http-client-file=x"}, "keep one"},
		"an object storage without type":  {[]string{"--objstore.config={}", "--tsdb.path=" + t.TempDir()}, "type"},
		"a value of an ignored flag":      {[]string{"--reloader.method=ftp"}, "--reloader.method"},
		"a look that takes no time":       {[]string{"--prometheus.get_config_timeout=0s"}, "--prometheus.get_config_timeout"},
		"a basic authentication in parts": {[]string{"--prometheus.http-client={bearer_token: x, bearer_token_file: y}"}, "bearer_token"},
	} {
		t.Run(name, func(t *testing.T) {
			err := serve(t.Context(), append([]string{"sidecar", "--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0"}, tc.args...), t.Output())
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("ended with %v, want one line with %q", err, tc.want)
			}
		})
	}
}

func TestHelp(t *testing.T) { cmdtest.Help(t, serve, "sidecar") }

// The argument lists that prometheus-operator composes, as it splits them: of
// 0.85, of 0.93 with object storage and every other option, and without.
func TestTakesTheOperatorsArguments(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "prometheus.http-client-file.yaml")
	if err := os.WriteFile(secret, []byte("tls_config:\n  insecure_skip_verify: true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"operator 0.85": {
			"sidecar", "--prometheus.url=http://localhost:9090/", "--grpc-address=:10901", "--http-address=:10902",
			"--objstore.config=type: S3", "--tsdb.path=/prometheus", "--prometheus.http-client-file=" + secret,
		},
		"operator 0.93, all of it": {
			"sidecar", "--prometheus.url=https://localhost:9090/prefix", "--prometheus.http-client-file=" + secret,
			"--grpc-address=[127.0.0.1]:10901", "--http-address=127.0.0.1:10902",
			"--grpc-server-tls-cert=/c", "--grpc-server-tls-key=/k", "--grpc-server-tls-client-ca=/ca", "--grpc-server-tls-min-version=1.2",
			"--grpc-server-tls-ciphers=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "--grpc-server-tls-curves=CurveP256,X25519",
			"--objstore.config-file=/objstore.yaml", "--tsdb.path=/prometheus",
			"--shipper.meta-file-name=thanos.shipper.json", "--shipper.ignore-unequal-block-size",
			"--tracing.config-file=/tracing.yaml", "--log.level=info", "--log.format=logfmt", "--min-time=-2h",
			"--prometheus.ready_timeout=20m", "--prometheus.get_config_interval=1m", "--prometheus.get_config_timeout=10s",
		},
		"operator without object storage": {
			"sidecar", "--prometheus.url=http://localhost:9090/", "--prometheus.http-client-file=" + secret,
			"--grpc-address=:10901", "--http-address=:10902", "--tracing.config=type: OTLP", "--log.level=debug", "--log.format=json",
		},
		"a chart with everything else": {
			"--shipper.upload-compacted", "--shipper.allow-out-of-order-uploads", "--no-shipper.skip-corrupted-blocks", "--shipper.upload-concurrency=4",
			"--hash-func=SHA256", "--reloader.config-file=/etc/prometheus.yml", "--reloader.config-envsubst-file=/etc/out.yml",
			"--reloader.rule-dir=/a", "--reloader.rule-dir=/b", "--reloader.watch-interval=3m", "--reloader.retry-interval=5s",
			"--reloader.method=http", "--reloader.process-name=prometheus", "--store.limits.request-series=10", "--store.limits.request-samples=100",
			"--request.logging-config=x", "--debug.name=x", "--http-grace-period=2m", "--grpc-grace-period=2m", "--grpc-server-max-connection-age=60m",
			"--enable-auto-gomemlimit", "--auto-gomemlimit.ratio=0.8", "--http.config=",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parse(args, io.Discard); err != nil {
				t.Error(err)
			}
		})
	}
}
