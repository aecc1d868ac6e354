// Package cmdtest runs a command of this module inside a test, asks its HTTP port,
// and finds the real programs that tests run beside it.
//
// It stands beside the floors; only tests import it.
package cmdtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/varve-io/varve/internal/golden"
	"github.com/varve-io/varve/internal/logtest"
	"github.com/varve-io/varve/pkg/daemon"
)

// Serve is what a command's main calls: it works until ctx ends and logs to stderr.
type Serve func(ctx context.Context, args []string, stderr io.Writer) error

// Running is a command that Start has started.
type Running struct {
	Log  *logtest.Buffer
	stop func() error
}

// Start runs a command until Stop or the end of the test. The name of the command is
// the first argument; it gets free loopback ports.
func Start(t testing.TB, serve Serve, args ...string) *Running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &Running{Log: new(logtest.Buffer)}
	done := make(chan error, 1)
	go func() { done <- serve(ctx, append(args, "--http-address=127.0.0.1:0"), r.Log) }()
	r.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() { r.Stop(t) })
	return r
}

// Stop ends the command; an error of it is the test's.
func (r *Running) Stop(t testing.TB) {
	t.Helper()
	if err := r.stop(); err != nil {
		t.Errorf("the command ended with %v\n%s", err, r.Log)
	}
}

// URL waits for the command's HTTP port.
func (r *Running) URL(t testing.TB) string {
	t.Helper()
	return "http://" + r.Log.Address(t, "Listening on")
}

// GRPC waits for the command's gRPC port and returns its address.
func (r *Running) GRPC(t testing.TB) string {
	t.Helper()
	return r.Log.Address(t, "listening for gRPC")
}

// Ready waits until the command says that it is ready.
func (r *Running) Ready(t testing.TB) {
	t.Helper()
	url := r.URL(t) + "/-/ready"
	logtest.Eventually(t, "readiness", func() bool {
		status, _ := Get(t, url)
		return status == http.StatusOK
	})
}

// Get asks an HTTP server once, on a connection of its own. Where nobody answers the
// status is 0 and the body says why.
func Get(t testing.TB, url string) (status int, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(text)
}

// Help compares what a command says of itself with testdata/help.txt.
func Help(t *testing.T, serve Serve, name string) {
	t.Helper()
	var out bytes.Buffer
	if err := serve(t.Context(), []string{name, "--help"}, &out); !errors.Is(err, daemon.ErrHelp) {
		t.Errorf("got error %v, want %v", err, daemon.ErrHelp)
	}
	golden.Check(t, filepath.Join("testdata", "help.txt"), out.String())
}

// Ignored gives each flag without effect a value that it may have.
func Ignored(flags []daemon.Ignored) (args []string) {
	for _, f := range flags {
		switch {
		case f.Switch:
			args = append(args, "--"+f.Name)
		case f.Values != nil:
			args = append(args, "--"+f.Name+"="+f.Values[0])
		default:
			args = append(args, "--"+f.Name+"=1")
		}
	}
	return args
}

// Tool is the path of a real program in the directory that VARVE_TOOLS names. Without
// the variable the test is skipped; make test sets it.
func Tool(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("VARVE_TOOLS")
	if dir == "" {
		t.Skipf("VARVE_TOOLS names no directory with %s; make test sets it", name)
	}
	path, err := filepath.Abs(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}
