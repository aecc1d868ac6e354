package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"go.uber.org/goleak"

	"github.com/varve-io/varve/internal/cmdtest"
	"github.com/varve-io/varve/internal/logtest"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestServesABucketUntilItIsStopped(t *testing.T) {
	dir := t.TempDir()
	blocktest.DirIn(t, dir, blocktest.Spec{
		Load:   "load 15s\n  up{job=\"x\"} 1x20\n  up{job=\"y\"} 0x20",
		Labels: map[string]string{"cluster": "eu", "replica": "a"},
	})
	r := start(t, "--data-dir="+t.TempDir(), "--objstore.config={type: FILESYSTEM, config: {directory: "+dir+"}}", "--index-cache-size=1GB")
	r.Ready(t)
	url, ctx := r.URL(t), t.Context()
	conn, err := storeapi.Dial(r.GRPC(t), storeapi.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client, err := storeapi.NewClient(conn, "store", storeapi.Defaults())
	if err != nil {
		t.Fatal(err)
	}
	info, err := client.Info(ctx)
	if err != nil || info.Component != "store" || len(info.LabelSets) != 1 {
		t.Errorf("info is %+v (%v)", info, err)
	}
	got, warnings, err := series.Collect(client.Series(ctx, &storeapi.Request{
		MaxTime: 1e9, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "up")},
		WithoutLabels: []string{"replica"},
	}))
	if err != nil || len(warnings) > 0 || len(got) != 2 {
		t.Fatalf("%d series, want 2 (%v, %v)", len(got), warnings, err)
	}
	if want := `{__name__="up", cluster="eu", job="x"}`; got[0].Labels.String() != want || got[0].Replica != "a" {
		t.Errorf("first series is %s of %q, want %s of a", got[0].Labels, got[0].Replica, want)
	}
	if _, body := cmdtest.Get(t, url+"/metrics"); !strings.Contains(body, "varve_store_blocks 1\n") {
		t.Error("metrics do not say that there is one block")
	}
	if status, body := cmdtest.Get(t, url+"/api/v1/blocks"); status != http.StatusOK || !strings.Contains(body, `"cluster":"eu"`) {
		t.Errorf("blocks: status %d, %s", status, body)
	}
	if _, body := cmdtest.Get(t, url+"/"); !strings.Contains(body, "/api/v1/blocks") {
		t.Errorf("the landing page does not name the blocks: %s", body)
	}
	if text := r.Log.String(); strings.Count(text, "has no effect") != 1 || !strings.Contains(text, "--index-cache-size") {
		t.Errorf("the flag without effect is not named once:\n%s", text)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	r.Stop(t)
}

// start runs a store on free ports.
func start(t *testing.T, args ...string) *cmdtest.Running {
	t.Helper()
	return cmdtest.Start(t, serve, append([]string{"store", "--grpc-address=127.0.0.1:0"}, args...)...)
}

// moody is an S3 without objects that can be told to refuse listings.
type moody struct{ refuses atomic.Bool }

func (m *moody) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/xml")
	if m.refuses.Load() && r.URL.Query().Get("max-keys") == "" { // the check at start asks for one
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, "<Error><Code>AccessDenied</Code><Message>Not today.</Message></Error>")
		return
	}
	_, _ = io.WriteString(w, "<ListBucketResult><Name>bkt</Name></ListBucketResult>")
}

func TestReadinessSaysWhatKeepsTheFirstSyncAndNoLaterOne(t *testing.T) {
	s3 := new(moody)
	s3.refuses.Store(true)
	server := httptest.NewServer(s3)
	defer server.Close()
	r := start(t, "--data-dir="+t.TempDir(), "--sync-block-duration=20ms",
		"--objstore.config={type: S3, config: {bucket: bkt, region: x, insecure: true, access_key: k, secret_key: s, endpoint: '"+server.Listener.Addr().String()+"'}}")
	ready := r.URL(t) + "/-/ready"
	logtest.Eventually(t, "readiness to say what is wrong", func() bool {
		status, body := cmdtest.Get(t, ready)
		return status == http.StatusServiceUnavailable && strings.Contains(body, "AccessDenied: Not today")
	})
	again := func() int { return strings.Count(r.Log.String(), "trying again") }
	logtest.Eventually(t, "a log line that says it too", func() bool { return again() > 0 && strings.Contains(r.Log.String(), "AccessDenied: Not today") })
	s3.refuses.Store(false)
	r.Ready(t)
	s3.refuses.Store(true)
	before := again()
	logtest.Eventually(t, "a later error", func() bool { return again() > before && strings.Contains(r.Log.String(), "(the 0 blocks of 20") })
	if status, body := cmdtest.Get(t, ready); status != http.StatusOK {
		t.Errorf("readiness after a later error: got %d %s, want 200", status, body)
	}
	r.Stop(t)
}

func TestHelp(t *testing.T) { cmdtest.Help(t, serve, "store") }

// kubeThanos is what kube-thanos' store objects pass, all options taken.
const kubeThanos = `
store
--log.level=info
--log.format=logfmt
--data-dir=/var/thanos/store
--grpc-address=0.0.0.0:10901
--http-address=0.0.0.0:10902
--objstore.config=$(OBJSTORE_CONFIG)
--ignore-deletion-marks-delay=24h
--index-cache.config="config":
  "addresses":
  - "dnssrv+_client._tcp.memcached.thanos.svc"
"type": "memcached"
--store.caching-bucket.config="config":
  "addresses":
  - "dnssrv+_client._tcp.memcached.thanos.svc"
"type": "memcached"
"blocks_iter_ttl": "5m"
"chunk_object_attrs_ttl": "24h"
"chunk_subrange_size": 16000
"chunk_subrange_ttl": "24h"
"max_chunks_get_range_requests": 3
"metafile_content_ttl": "24h"
"metafile_doesnt_exist_ttl": "15m"
"metafile_exists_ttl": "2h"
"metafile_max_size": "1MiB"
--min-time=-6w
--max-time=-2h
--store.grpc.touched-series-limit=100000
--store.grpc.series-sample-limit=50000000
--store.grpc.downloaded-bytes-limit=5GB
--tracing.config="config":
  "service_name": "thanos-store"
"type": "JAEGER"
--selector.relabel-config=- action: hashmod
  source_labels: ["__block_id"]
  target_label: shard
  modulus: 3
- action: keep
  source_labels: ["shard"]
  regex: 0`

func TestKubeThanosArgumentsAreAccepted(t *testing.T) {
	args := strings.Split(strings.TrimSpace(kubeThanos), "\n--")
	for i := range args[1:] {
		args[i+1] = "--" + args[i+1]
	}
	var usage bytes.Buffer
	o, err := parse(args, &usage)
	if err != nil {
		t.Fatalf("parse: %v\n%s", err, usage.String())
	}
	got := fmt.Sprint(o.store.Dir, " ", o.store.Limits, " ", o.store.IgnoreDeletionMarksDelay, " ", len(o.store.Selector))
	if want := "/var/thanos/store {100000 0 50000000 0 5368709120} 24h0m0s 2"; got != want {
		t.Errorf("options are %s, want %s", got, want)
	}
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	if got, want := o.store.MinTime(now), now.Add(-6*7*24*time.Hour); !got.Equal(want) {
		t.Errorf("--min-time is %s, want %s", got, want)
	}
	if got, want := o.store.MaxTime(now), now.Add(-2*time.Hour); !got.Equal(want) {
		t.Errorf("--max-time is %s, want %s", got, want)
	}
}

func TestEveryIgnoredFlagIsAccepted(t *testing.T) {
	if _, err := parse(append(cmdtest.Ignored(ignored()), "--objstore.config={type: FILESYSTEM}"), t.Output()); err != nil {
		t.Error(err)
	}
}

func TestMistakesAreNamed(t *testing.T) {
	bucket := "--objstore.config={type: FILESYSTEM, config: {directory: " + t.TempDir() + "}}"
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"no bucket":                    {nil, "--objstore.config"},
		"an unknown bucket type":       {[]string{"--objstore.config={type: FLOPPY}"}, "FLOPPY"},
		"an unknown flag":              {[]string{bucket, "--stroe.cache-bytes=1"}, "stroe.cache-bytes"},
		"a selector that is no YAML":   {[]string{bucket, "--selector.relabel-config=["}, "--selector.relabel-config"},
		"a selector that replaces":     {[]string{bucket, "--selector.relabel-config=[{action: replace, target_label: x}]"}, "only keep, drop and hashmod"},
		"a sync interval of nothing":   {[]string{bucket, "--sync-block-duration=0s"}, "--sync-block-duration"},
		"a concurrency of zero":        {[]string{bucket, "--store.grpc.series-max-concurrency=0"}, "--store.grpc.series-max-concurrency"},
		"a limit below zero":           {[]string{bucket, "--store.limits.request-series=-1"}, "--store.limits.request-series"},
		"a time that is none":          {[]string{bucket, "--min-time=yesterday"}, "--min-time"},
		"a data dir that is a file":    {[]string{bucket, "--data-dir=main_test.go"}, "main_test.go"},
		"a request without any memory": {[]string{bucket, "--store.request-bytes=1KB"}, "--store.request-bytes"},
		"requests without memory":      {[]string{bucket, "--store.memory-bytes=1MB"}, "--store.memory-bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr bytes.Buffer
			args := append([]string{"--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0"}, tc.args...)
			if !strings.Contains(strings.Join(args, " "), "--data-dir") {
				args = append(args, "--data-dir="+t.TempDir())
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			err := serve(ctx, args, &stderr)
			if err == nil || !strings.Contains(err.Error(), tc.want) || ctx.Err() != nil {
				t.Errorf("error is %v, want one that names %s", err, tc.want)
			}
		})
	}
}
