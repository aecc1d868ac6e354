package daemon

import (
	"context"
	"errors"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/run"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
)

func TestATakenPortIsASetupErrorThatNamesTheFlag(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, flag := range []string{"--http-address", "--grpc-address"} {
		t.Run(flag, func(t *testing.T) {
			o := parsed(t)
			if flag == "--http-address" {
				o.HTTPAddress = taken.Addr().String()
			} else {
				o.GRPC.Address = taken.Addr().String()
			}
			_, err := New("store", o, new(logs))
			if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "change "+flag) {
				t.Errorf("got %v, want address in use and a hint at %s", err, flag)
			}
		})
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"a web configuration that is absent": {[]string{"--http.config=/nowhere"}, "read --http.config=/nowhere"},
		"a certificate that is absent": {
			[]string{"--grpc-server-tls-cert=/nowhere", "--grpc-server-tls-key=/nowhere"}, "read --grpc-server-tls-cert=/nowhere",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New("store", parsed(t, tc.args...), new(logs))
			if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}

func TestLogFollowsItsFlags(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"logfmt":              {nil, `level=INFO`},
		"journald is logfmt":  {[]string{"--log.format=journald"}, `level=INFO`},
		"json":                {[]string{"--log.format=json"}, `"level":"INFO"`},
		"a name in each line": {[]string{"--debug.name=left"}, "name=left"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, log := newDaemon(t, parsed(t, tc.args...)); len(log.lines(tc.want)) == 0 {
				t.Errorf("no line with %s in:\n%s", tc.want, log)
			}
		})
	}
	if _, log := newDaemon(t, parsed(t, "--log.level=error")); log.String() != "" {
		t.Errorf("at level error the start logs:\n%s", log)
	}
}

func TestASignalEndsRunWithoutError(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			// Until Run listens for it, the signal must not end the test itself.
			guard := make(chan os.Signal, 1)
			signal.Notify(guard, sig)
			defer signal.Stop(guard)
			d, log := newDaemon(t, parsed(t))
			err := d.Run(t.Context(), func(g *run.Group) {
				g.Add(d.GRPC(grpc.EmptyServerOption{}))
				g.Add(d.HTTP(nil))
				g.Add(d.Every("send the signal", time.Millisecond, func(context.Context) error {
					defer func() { <-guard }() // it has arrived
					return syscall.Kill(os.Getpid(), sig)
				}))
			})
			if err != nil {
				t.Errorf("got %v, want nil", err)
			}
			if len(log.lines("msg=stopped")) != 1 {
				t.Errorf("no line says why the process stopped:\n%s", log)
			}
		})
	}
}

func TestRunInterruptsInOrderAndReturnsTheFirstError(t *testing.T) {
	d, _ := newDaemon(t, parsed(t))
	d.Probe.Ready()
	broken := errors.New("broken")
	var order []string
	stopped := func(name string) func(error) {
		return func(error) {
			if got := get(t, d.mux(nil), "/-/ready"); got.Code != 503 {
				t.Errorf("still ready while %s is interrupted", name)
			}
			order = append(order, name)
		}
	}
	err := d.Run(t.Context(), func(g *run.Group) {
		first, interrupt := d.Once(func(ctx context.Context) error { <-ctx.Done(); return errors.New("too late") })
		g.Add(first, func(err error) { stopped("first")(err); interrupt(err) })
		g.Add(func() error { return broken }, stopped("second"))
	})
	if len(order) != 2 || order[0] != "first" || order[1] != "second" {
		t.Errorf("interrupted in the order %v", order)
	}
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want the error of the actor that ended first", err)
	}
}

func TestOnceEndsTheProcessWithItsError(t *testing.T) {
	d, _ := newDaemon(t, parsed(t))
	broken := errors.New("broken")
	if err := d.Run(t.Context(), func(g *run.Group) {
		g.Add(d.Once(func(context.Context) error { return broken }))
		g.Add(d.HTTP(nil))
	}); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
}

func TestEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, log := newDaemon(t, parsed(t))
		begin, times := time.Now(), []time.Duration{}
		execute, interrupt := d.Every("sync", time.Minute, func(ctx context.Context) error {
			times = append(times, time.Since(begin))
			switch len(times) {
			case 1:
				return errors.New("bucket is away")
			case 2: // longer than an interval
				<-time.After(90 * time.Second)
				return nil
			case 3:
				panic("at the third time")
			case 4: // at work when interrupted
				<-ctx.Done()
				<-time.After(time.Hour)
				times = append(times, time.Since(begin))
				return ctx.Err()
			}
			return nil
		})
		done := make(chan error)
		go func() { done <- execute() }()
		<-time.After(10 * time.Minute)
		interrupt(nil)
		interrupt(nil) // harmless
		if err := <-done; err != nil {
			t.Errorf("interrupted actor returned %v", err)
		}
		want := []time.Duration{0, time.Minute, 150 * time.Second, 3 * time.Minute, 70 * time.Minute}
		if len(times) != len(want) {
			t.Fatalf("ran at %v, want %v", times, want)
		}
		for i := range want {
			if times[i] != want[i] {
				t.Errorf("ran at %v, want %v", times, want)
			}
		}
		for _, about := range []string{"bucket is away", "at the third time"} {
			if lines := log.lines(about); len(lines) != 1 || !strings.Contains(lines[0], "task=sync") {
				t.Errorf("want one line that says %q:\n%s", about, log)
			}
		}
		if n := len(log.lines("level=ERROR")); n != 2 {
			t.Errorf("%d errors logged, want 2:\n%s", n, log)
		}
		if got := testutil.ToFloat64(d.metrics.taskFailures.WithLabelValues("sync")); got != 2 {
			t.Errorf("%v failures counted, want 2", got)
		}
		if got := testutil.ToFloat64(d.metrics.taskSuccess.WithLabelValues("sync")); got != float64(begin.Add(3*time.Minute-30*time.Second).Unix()) {
			t.Errorf("last success at %v", got)
		}
	})
}
