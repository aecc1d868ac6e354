package sidecar_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/varve-io/varve/internal/cmdtest"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/promclient"
	"github.com/varve-io/varve/pkg/sidecar"
)

// server is a real Prometheus. Its configuration can be changed and read again.
type server struct {
	url, dir, config string
	process          *exec.Cmd
}

type config struct {
	External map[string]string
	Rules    string // YAML of rule groups
	Target   string // host:port to scrape
}

func (c config) write(t *testing.T, path string) {
	t.Helper()
	out := map[string]any{"global": map[string]any{"external_labels": c.External, "scrape_interval": "1s", "evaluation_interval": "1s"}}
	if c.Rules != "" {
		rules := filepath.Join(filepath.Dir(path), "rules.yml")
		if err := os.WriteFile(rules, []byte(c.Rules), 0o600); err != nil {
			t.Fatal(err)
		}
		out["rule_files"] = []string{rules}
	}
	if c.Target != "" {
		out["scrape_configs"] = []any{map[string]any{"job_name": "x", "static_configs": []any{map[string]any{"targets": []string{c.Target}}}}}
	}
	data, err := json.Marshal(out) // JSON is YAML
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// startPrometheus starts a Prometheus over blocks made of the specs, and waits until it is ready.
func startPrometheus(t *testing.T, c config, blocks ...blocktest.Spec) *server {
	t.Helper()
	binary := cmdtest.Tool(t, "prometheus")
	home := t.TempDir()
	s := &server{dir: filepath.Join(home, "data"), config: filepath.Join(home, "prometheus.yml")}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, spec := range blocks {
		blocktest.DirIn(t, s.dir, spec)
	}
	address := freeAddress(t)
	s.url = "http://" + address
	c.write(t, s.config)
	s.process = exec.Command(binary,
		"--config.file="+s.config, "--storage.tsdb.path="+s.dir, "--storage.tsdb.retention.time=100y",
		"--storage.tsdb.min-block-duration=2h", "--storage.tsdb.max-block-duration=2h",
		"--web.listen-address="+address, "--web.enable-lifecycle", "--log.level=warn", "--enable-feature=exemplar-storage")
	var output strings.Builder
	s.process.Stdout, s.process.Stderr = &output, &output
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.process.Process.Signal(syscall.SIGTERM), s.process.Wait()); err != nil {
			t.Errorf("stop Prometheus: %v\n%s", err, output.String())
		}
	})
	client := clientOf(t, s.url)
	eventually(t, "Prometheus is ready", func(ctx context.Context) error { return client.Ready(ctx) })
	return s
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func clientOf(t *testing.T, url string) *promclient.Client {
	t.Helper()
	o := promclient.Defaults()
	o.URL = url
	c, err := promclient.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// reload changes the configuration.
func (s *server) reload(t *testing.T, c config) {
	t.Helper()
	c.write(t, s.config)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/-/reload", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("reload: %s (%v)", res.Status, err)
	}
}

// eventually repeats what has to succeed within half a minute.
func eventually(t *testing.T, what string, try func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		}
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// probe remembers what it was told last.
type probe chan error

func (p probe) Ready()             { p <- nil }
func (p probe) NotReady(err error) { p <- err }

// follow runs a Prometheus until the test ends.
func follow(t *testing.T, c *promclient.Client, change func(*sidecar.PrometheusOptions)) (*sidecar.Prometheus, probe) {
	t.Helper()
	o := sidecar.PrometheusDefaults()
	o.Interval = 100 * time.Millisecond
	if change != nil {
		change(&o)
	}
	p, err := sidecar.NewPrometheus(c, o, discard(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	told := make(probe)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx, drained{told}, func(promclient.Flags) error { return nil }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	if _, err := p.Await(t.Context()); err != nil {
		t.Fatalf("await Prometheus: %v", err)
	}
	return p, told
}

// drained tells a probe if it listens.
type drained struct{ to probe }

func (d drained) Ready()             { d.tell(nil) }
func (d drained) NotReady(err error) { d.tell(err) }
func (d drained) tell(err error) {
	select {
	case d.to <- err:
	default:
	}
}

// storeOver is a store over a real Prometheus at some URL.
func storeOver(t *testing.T, url string, change func(*sidecar.StoreOptions)) *sidecar.Store {
	t.Helper()
	c := clientOf(t, url)
	p, _ := follow(t, c, nil)
	o := sidecar.StoreDefaults()
	if change != nil {
		change(&o)
	}
	s, err := sidecar.NewStore(c, p, o, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return s
}
