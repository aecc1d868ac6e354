package sharedcache_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/varve-io/varve/internal/logtest"
	"github.com/varve-io/varve/internal/metrictest"
	"github.com/varve-io/varve/pkg/sharedcache"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a real memcached or Redis.
type server struct {
	binary string
	args   func(port string) []string
	config func(address string) string
}

func kinds() map[string]server {
	return map[string]server{
		"memcached": {
			"memcached",
			func(port string) []string { return []string{"-u", "nobody", "-l", "127.0.0.1", "-p", port, "-U", "0"} },
			func(a string) string {
				return fmt.Sprintf("{type: MEMCACHED, ttl: 1h, config: {addresses: ['dns+%s'], max_item_size: 100KiB, timeout: 5s, set_async_circuit_breaker_config: {consecutive_failures: 2, open_duration: 50ms}}}", a)
			},
		},
		"redis": {
			"redis-server",
			func(port string) []string {
				return []string{"--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no"}
			},
			func(a string) string {
				return fmt.Sprintf("{type: REDIS, config: {addr: '%s', prefix: 'p:', get_multi_batch_size: 2, set_async_circuit_breaker_config: {consecutive_failures: 2, open_duration: 50ms}}}", a)
			},
		},
	}
}

// start runs a server on a port until the test ends or stop is called. It skips the
// test where the server is not installed.
func (s server) start(t *testing.T, port string) (stop func()) {
	t.Helper()
	if _, err := exec.LookPath(s.binary); err != nil {
		t.Skipf("%s is not installed; tools/packages.sh installs it", s.binary)
	}
	cmd := exec.Command(s.binary, s.args(port)...)
	cmd.Dir = t.TempDir()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	stop = func() {
		once.Do(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
	}
	t.Cleanup(stop)
	logtest.Eventually(t, "the server to listen", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return stop
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

func open(t *testing.T, yaml string) (*sharedcache.Cache, *prometheus.Registry, *logtest.Buffer) {
	t.Helper()
	c, err := sharedcache.Parse([]byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	reg, log := prometheus.NewRegistry(), new(logtest.Buffer)
	cache, err := sharedcache.Open(t.Context(), c, slog.New(slog.NewTextHandler(log, nil)), reg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cache.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return cache, reg, log
}

func TestValuesAreFoundByOthers(t *testing.T) {
	for name, s := range kinds() {
		t.Run(name, func(t *testing.T) {
			port := freePort(t)
			s.start(t, port)
			yaml := s.config("127.0.0.1:" + port)
			writer, _, _ := open(t, yaml)
			reader, _, _ := open(t, yaml)
			want := map[string][]byte{}
			var keys []string
			for i := range 5 {
				k := "key-" + strconv.Itoa(i)
				keys = append(keys, k)
				want[k] = bytes.Repeat([]byte{0, byte(i), '\r', '\n'}, 1000*i)
			}
			logtest.Eventually(t, "all values to be found", func() bool {
				for k, v := range want {
					writer.Set(k, v)
				}
				got := reader.Get(t.Context(), append(keys, "absent"))
				for k, v := range want {
					if g, ok := got[k]; !ok || !bytes.Equal(g, v) {
						return false
					}
				}
				return len(got) == len(want)
			})
		})
	}
}

func TestDeletedValuesAreGone(t *testing.T) {
	for name, s := range kinds() {
		t.Run(name, func(t *testing.T) {
			port := freePort(t)
			s.start(t, port)
			c, _, _ := open(t, s.config("127.0.0.1:"+port))
			logtest.Eventually(t, "a value to be found", func() bool {
				c.Set("k", []byte("v"))
				return len(c.Get(t.Context(), []string{"k"})) == 1
			})
			logtest.Eventually(t, "the value to be gone", func() bool { // another Set may have waited
				c.Delete(t.Context(), "k", "absent")
				return len(c.Get(t.Context(), []string{"k"})) == 0
			})
		})
	}
}

func TestServersThatAreGoneCostMissesAndComeBack(t *testing.T) {
	for name, s := range kinds() {
		t.Run(name, func(t *testing.T) {
			port := freePort(t)
			stop := s.start(t, port)
			c, reg, log := open(t, s.config("127.0.0.1:"+port))
			found := func() bool {
				c.Set("k", []byte("v"))
				return len(c.Get(t.Context(), []string{"k"})) == 1
			}
			logtest.Eventually(t, "a value to be found", found)
			stop()
			logtest.Eventually(t, "the servers to be tried several times and left alone", func() bool {
				return len(c.Get(t.Context(), []string{"k"})) == 0 && value(t, reg, "errors_total") > 5 && value(t, reg, "up") == 0
			})
			if n := strings.Count(log.String(), "left alone"); n != 1 {
				t.Errorf("log says %d times that servers are left alone, want once:\n%s", n, log)
			}
			s.start(t, port)
			logtest.Eventually(t, "a value to be found again", func() bool { return found() && value(t, reg, "up") == 1 })
		})
	}
}

// value returns a metric of the cache.
func value(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	return metrictest.Value(t, reg, "varve_sharedcache_"+name)
}

func TestValuesThatAreTooLargeAreNotWritten(t *testing.T) {
	for name, s := range kinds() {
		t.Run(name, func(t *testing.T) {
			port := freePort(t)
			s.start(t, port)
			c, reg, _ := open(t, s.config("127.0.0.1:"+port))
			c.Set("large", make([]byte, 2<<20))
			if n := value(t, reg, "skipped_total"); n != 1 {
				t.Errorf("values not written: got %g, want 1", n)
			}
		})
	}
}

func TestAnEndedRequestIsNoFailureOfTheServers(t *testing.T) {
	for name, s := range kinds() {
		t.Run(name, func(t *testing.T) {
			port := freePort(t)
			s.start(t, port)
			c, reg, _ := open(t, s.config("127.0.0.1:"+port))
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			for range 10 {
				c.Get(ctx, []string{"k"})
			}
			if value(t, reg, "up") != 1 {
				t.Error("servers are left alone because a request ended")
			}
		})
	}
}

func TestTheSameServerIsChosenByAll(t *testing.T) {
	s := kinds()["memcached"]
	var addresses []string
	for range 3 {
		port := freePort(t)
		s.start(t, port)
		addresses = append(addresses, "127.0.0.1:"+port)
	}
	config := func(order ...int) string {
		var a []string
		for _, i := range order {
			a = append(a, "'"+addresses[i]+"'")
		}
		return "{type: MEMCACHED, config: {timeout: 5s, addresses: [" + strings.Join(a, ",") + "]}}"
	}
	writer, _, _ := open(t, config(0, 1, 2))
	reader, _, _ := open(t, config(2, 0, 1))
	var keys []string
	for i := range 60 {
		keys = append(keys, fmt.Sprintf("key-%d", i))
	}
	logtest.Eventually(t, "all keys to be found", func() bool {
		for _, k := range keys {
			writer.Set(k, []byte(k))
		}
		return len(reader.Get(t.Context(), keys)) == len(keys)
	})
}
