package daemon

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/oklog/run"
	"go.uber.org/goleak"

	"github.com/varve-io/varve/internal/logtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// logs is what a daemon under test writes.
type logs struct{ logtest.Buffer }

// lines returns the lines that hold text.
func (l *logs) lines(text string) []string {
	var found []string
	for line := range strings.Lines(l.String()) {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found
}

// parsed returns the options that args make of the defaults, on free ports of
// the loopback interface.
func parsed(t *testing.T, args ...string) Options {
	t.Helper()
	o := Defaults()
	f := NewFlags("store", "Test.", t.Output())
	o.Bind(f)
	o.GRPC.Bind(f)
	args = append([]string{"--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0"}, args...)
	if err := f.Parse(args); err != nil {
		t.Fatalf("parse %q: %v", args, err)
	}
	return o
}

// newDaemon returns a daemon that is closed when the test ends, and its log.
func newDaemon(t *testing.T, o Options) (*Daemon, *logs) {
	t.Helper()
	log := new(logs)
	d, err := New("store", o, log)
	if err != nil {
		t.Fatalf("new daemon: %v", err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close daemon: %v", err)
		}
	})
	return d, log
}

// start runs the actors until stop is called or the test ends; stop returns what
// Run returned.
func start(t *testing.T, d *Daemon, add func(*run.Group)) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx, add) }()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("run ended with %v", err)
		}
	})
	return stop
}

// onceDeaf calls then when nobody listens at addr any more.
func onceDeaf(addr net.Addr, then func()) {
	for {
		conn, err := net.Dial(addr.Network(), addr.String())
		if err != nil {
			then()
			return
		}
		conn.Close()
	}
}
