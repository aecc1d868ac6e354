package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/varve-io/varve/internal/cmdtest"
	"github.com/varve-io/varve/internal/logtest"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOneShotMergesReplicasAndEnds(t *testing.T) {
	dir := t.TempDir()
	for _, replica := range []string{"a", "b"} {
		blocktest.DirIn(t, dir, blocktest.Spec{
			Load:   "load 15s\n  up{job=\"x\"} 1x20",
			Labels: map[string]string{"cluster": "eu", "replica": replica},
		})
	}
	var log bytes.Buffer
	err := serve(t.Context(), []string{
		"compact", "--http-address=127.0.0.1:0", "--data-dir=" + t.TempDir(), "--consistency-delay=0s", "--delete-delay=0s",
		"--deduplication.replica-label=replica", "--debug.accept-malformed-index",
		"--objstore.config={type: FILESYSTEM, config: {directory: " + dir + "}}",
	}, &log)
	if err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	var raw []string
	metas, err := filepath.Glob(filepath.Join(dir, "*", block.MetaFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range metas {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		m, err := block.ParseMeta(data)
		if err != nil {
			t.Fatal(err)
		}
		if m.Resolution() == block.Raw {
			raw = append(raw, m.Labels().String())
		}
	}
	if got, want := fmt.Sprint(raw), `[{cluster="eu"}]`; got != want {
		t.Errorf("raw blocks: got %s, want %s\n%s", got, want, log.String())
	}
	if !strings.Contains(log.String(), "--debug.accept-malformed-index") {
		t.Error("the flag without effect is not named in the log")
	}
	if want := `msg="run ended" ok=true run.done=`; strings.Count(log.String(), want) != 1 || !strings.Contains(log.String(), "run.failed=0 run.quarantined=0 run.left=0") {
		t.Errorf("no summary that begins with %s in\n%s", want, log.String())
	}
}

// The exit code says whether something is left that has to be looked at: a block that
// was set aside is told once, after everything else was done.
func TestOneShotEndsWithAnErrorWhenABlockIsSetAside(t *testing.T) {
	dir := t.TempDir()
	for _, replica := range []string{"a", "b"} {
		blocktest.DirIn(t, dir, blocktest.Spec{
			Load:   "load 15s\n  up{job=\"x\"} 1x20",
			Labels: map[string]string{"cluster": "eu", "replica": replica},
		})
	}
	indexes, err := filepath.Glob(filepath.Join(dir, "*", block.IndexFile))
	if err != nil || len(indexes) != 2 {
		t.Fatalf("got %v, %v", indexes, err)
	}
	blocktest.Flip(t, indexes[0], 0)
	data := t.TempDir()
	run := func() (string, error) {
		var log bytes.Buffer
		err := serve(t.Context(), []string{
			"compact", "--http-address=127.0.0.1:0", "--data-dir=" + data, "--consistency-delay=0s",
			"--deduplication.replica-label=replica", "--debug.halt-on-error", "--compact.skip-block-with-out-of-order-chunks",
			"--objstore.config={type: FILESYSTEM, config: {directory: " + dir + "}}",
		}, &log)
		return log.String(), err
	}
	log, err := run()
	if err == nil || !strings.Contains(err.Error(), filepath.Base(filepath.Dir(indexes[0]))) || !strings.Contains(log, "ok=false") || strings.Contains(log, "run.quarantined=0") {
		t.Errorf("got error %v, want one that names the block, and a summary\n%s", err, log)
	}
	if log, err := run(); err != nil {
		t.Errorf("the next run: %v\n%s", err, log)
	}
}

func TestTheStatusIsServedWhileItWaits(t *testing.T) {
	dir := t.TempDir()
	_, meta := blocktest.DirIn(t, dir, blocktest.Spec{Load: "load 15s\n  up{job=\"x\"} 1x20", Labels: map[string]string{"cluster": "eu"}})
	r := cmdtest.Start(t, serve, "compact", "--wait", "--data-dir="+t.TempDir(), "--consistency-delay=0s",
		"--objstore.config={type: FILESYSTEM, config: {directory: "+dir+"}}")
	url := r.URL(t)
	for path, want := range map[string]string{
		"/":                       "<h1>Varve compactor</h1>",
		"/api/v1/jobs":            `"lastRun":{"startedAt"`,
		"/api/v1/blocks":          meta.ULID.String(),
		"/metrics":                "varve_compact_last_look_timestamp_seconds",
		"/-/ready":                "",
		"/api/v1/blocks?view=any": "none of global and loaded",
	} {
		logtest.Eventually(t, path+" to say "+want, func() bool {
			status, body := cmdtest.Get(t, url+path)
			return status != 0 && strings.Contains(body, want)
		})
	}
	r.Stop(t)
}

func TestHelp(t *testing.T) { cmdtest.Help(t, serve, "compact") }

// kubeThanos is what kube-thanos' compactor passes, all options taken.
var kubeThanos = []string{
	"compact", "--wait", "--log.level=info", "--log.format=logfmt",
	"--objstore.config=type: FILESYSTEM", "--data-dir=/var/thanos/compact", "--debug.accept-malformed-index",
	"--retention.resolution-raw=30d", "--retention.resolution-5m=120d", "--retention.resolution-1h=1y",
	"--delete-delay=48h", "--compact.concurrency=1", "--downsample.concurrency=1", "--downsampling.disable",
	"--deduplication.replica-label=prometheus_replica", "--deduplication.replica-label=rule_replica",
	"--tracing.config=type: JAEGER",
}

func TestKubeThanosArgumentsAreAccepted(t *testing.T) {
	o, err := parse(kubeThanos, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	p := o.compact.Policy
	if !o.wait || p.DeleteDelay != 48*time.Hour || !p.NoDownsampling || len(p.ReplicaLabels) != 2 ||
		p.Retention[block.Raw] != 30*24*time.Hour || p.Retention[block.OneHour] != 365*24*time.Hour {
		t.Errorf("got %+v", o)
	}
}

func TestEveryIgnoredFlagIsAccepted(t *testing.T) {
	if _, err := parse(append(cmdtest.Ignored(ignored()), "--objstore.config=type: FILESYSTEM"), t.Output()); err != nil {
		t.Error(err)
	}
}

func TestMistakesAreNamed(t *testing.T) {
	bucket := "--objstore.config=type: FILESYSTEM"
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"no object storage":         {nil, "--objstore.config"},
		"an unknown flag":           {[]string{bucket, "--no-such-flag"}, "no-such-flag"},
		"a selection of blocks":     {[]string{bucket, "--selector.relabel-config=[]"}, "--selector.relabel-config: not built yet: this compactor works on the whole bucket"},
		"an unknown algorithm":      {[]string{bucket, "--deduplication.func=best"}, "--deduplication.func"},
		"no concurrency":            {[]string{bucket, "--compact.concurrency=0"}, "--compact.concurrency"},
		"contradictory retention":   {[]string{bucket, "--retention.resolution-raw=1h"}, "--retention.resolution-raw"},
		"ranges that do not divide": {[]string{bucket, "--debug.block-ranges=2h,3h"}, "multiple"},
		"an unreadable range":       {[]string{bucket, "--debug.block-ranges=2h,x"}, "--debug.block-ranges"},
		"no pause between looks":    {[]string{bucket, "--wait-interval=0s"}, "--wait-interval"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parse(tc.args, t.Output()); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %s", err, tc.want)
			}
		})
	}
}
