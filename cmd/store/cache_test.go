package main

import (
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/internal/cmdtest"
	"github.com/varve-io/varve/internal/logtest"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
)

// startShared runs a real memcached or Redis, and returns its address.
func startShared(t *testing.T, binary string, args func(port string) []string) string {
	t.Helper()
	if _, err := exec.LookPath(binary); err != nil {
		t.Skipf("%s is not installed; tools/packages.sh installs it", binary)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, args(port)...)
	cmd.Dir = t.TempDir()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	address := "127.0.0.1:" + port
	logtest.Eventually(t, binary+" to listen", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return address
}

func TestStoresShareWhatTheyRead(t *testing.T) {
	for name, tc := range map[string]struct {
		binary string
		args   func(port string) []string
		flag   string
	}{
		"memcached": {
			"memcached", func(port string) []string { return []string{"-u", "nobody", "-l", "127.0.0.1", "-U", "0", "-p", port} },
			"--index-cache.config={type: memcached, config: {addresses: ['%s'], timeout: 10s}}",
		},
		"redis": {
			"redis-server", func(port string) []string { return []string{"--bind", "127.0.0.1", "--save", "", "--port", port} },
			"--store.caching-bucket.config={type: REDIS, config: {addr: '%s'}, chunk_subrange_ttl: 1h}",
		},
	} {
		t.Run(name, func(t *testing.T) {
			flag := fmt.Sprintf(tc.flag, startShared(t, tc.binary, tc.args))
			dir := t.TempDir()
			blocktest.DirIn(t, dir, blocktest.Spec{Load: "load 15s\n  up{job=\"x\"} 1x20\n  up{job=\"y\"} 0x20", Labels: map[string]string{"cluster": "eu"}})
			first := askAStore(t, dir, flag, "varve_sharedcache_written_bytes_total")
			second := askAStore(t, dir, flag, `varve_pagecache_served_bytes_total{from="remote"}`)
			if first != second || first == "" {
				t.Errorf("answers differ:\n%s\n%s", first, second)
			}
		})
	}
}

// askAStore runs a store over a bucket with a data directory of its own, asks it for
// all series and waits until a metric is above zero.
func askAStore(t *testing.T, bucket, flag, metric string) string {
	t.Helper()
	r := start(t, "--data-dir="+t.TempDir(), flag, "--objstore.config={type: FILESYSTEM, config: {directory: "+bucket+"}}")
	defer r.Stop(t)
	r.Ready(t)
	conn, err := storeapi.Dial(r.GRPC(t), storeapi.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client, err := storeapi.NewClient(conn, "store", storeapi.Defaults())
	if err != nil {
		t.Fatal(err)
	}
	got, warnings, err := series.Collect(client.Series(t.Context(), &storeapi.Request{
		MaxTime: 1e9, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "up")},
	}))
	if err != nil || len(warnings) > 0 {
		t.Fatalf("series: %v, %v", err, warnings)
	}
	above := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(metric) + `(\{[^}]*\})? [1-9]`)
	logtest.Eventually(t, metric+" above zero", func() bool {
		_, body := cmdtest.Get(t, r.URL(t)+"/metrics")
		return above.MatchString(body)
	})
	var text strings.Builder
	for _, s := range got {
		fmt.Fprintf(&text, "%s %d chunks\n", s.Labels, len(s.Chunks))
	}
	return text.String()
}
