package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// stopGrace is how long a process may take to end after SIGTERM before it is
// killed. Prometheus needs a second or two to close its head.
const stopGrace = 20 * time.Second

// Options say where a Cluster finds binaries and keeps its files.
type Options struct {
	// Dir holds data and logs; it must exist and be absolute.
	Dir string
	// Bin holds Varve's binaries (sidecar, store, query, compact), Tools those
	// of others (prometheus, versitygw, …).
	Bin, Tools string
	// S3Args are added to those of S3 servers.
	S3Args []string
	// Logf receives one line for each process that starts or ends.
	Logf func(format string, args ...any)
}

// FromEnv reads Bin from VARVE_BIN and Tools from VARVE_TOOLS, which the
// Makefile sets, and fills in the directory and the logger.
func FromEnv(dir string, logf func(format string, args ...any)) Options {
	return Options{Dir: dir, Bin: os.Getenv("VARVE_BIN"), Tools: os.Getenv("VARVE_TOOLS"), Logf: logf}
}

// Validate reports what is missing.
func (o Options) Validate() error {
	var errs []error
	if !filepath.IsAbs(o.Dir) {
		errs = append(errs, fmt.Errorf("directory %q is not absolute", o.Dir))
	}
	if o.Logf == nil {
		errs = append(errs, errors.New("no logger given"))
	}
	return errors.Join(errs...)
}

// Cluster is a set of processes with one directory. It is safe for concurrent use.
type Cluster struct {
	opts Options

	mu        sync.Mutex
	processes []*Process // in starting order
}

// New returns an empty cluster. The caller closes it.
func New(o Options) (*Cluster, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("harness options: %w", err)
	}
	return &Cluster{opts: o}, nil
}

// T is the part of *testing.T that a cluster needs.
type T interface {
	TempDir() string
	Cleanup(f func())
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Failed() bool
}

// ForTest returns a cluster that lives as long as the test, in a directory of
// its own. A test that did not pass gets the end of every process's log.
func ForTest(t T) *Cluster {
	c := &Cluster{opts: FromEnv(t.TempDir(), t.Logf)}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("stop the cluster: %v", err)
		}
		if t.Failed() {
			c.logTails()
		}
	})
	return c
}

// Close ends every process still running, youngest first, and reports those
// that had to be killed.
func (c *Cluster) Close() error {
	c.mu.Lock()
	processes := c.processes
	c.mu.Unlock()

	var errs []error
	for _, p := range slices.Backward(processes) {
		errs = append(errs, p.Stop())
	}
	return errors.Join(errs...)
}

// Dir returns a directory of the cluster, made if absent.
func (c *Cluster) Dir(elem ...string) (string, error) {
	dir := filepath.Join(append([]string{c.opts.Dir}, elem...)...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return dir, nil
}

// Varve returns the path of one of Varve's binaries.
func (c *Cluster) Varve(name string) (string, error) {
	return find(c.opts.Bin, name, "VARVE_BIN", "make build")
}

// Tool returns the path of a binary that is not Varve's.
func (c *Cluster) Tool(name string) (string, error) {
	return find(c.opts.Tools, name, "VARVE_TOOLS", "tools/build.sh "+name)
}

func find(dir, name, variable, remedy string) (string, error) {
	if dir == "" {
		return "", fmt.Errorf("find %s: %s is not set; make sets it, or point it at what `%s` prints or fills", name, variable, remedy)
	}
	path, err := filepath.Abs(filepath.Join(dir, name))
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("find %s (run `%s`): %w", name, remedy, err)
	}
	return path, nil
}

// logTails prints the last lines of each process's log.
func (c *Cluster) logTails() {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := map[string]bool{} // a restarted process shares its log
	for _, p := range c.processes {
		if !seen[p.log] {
			seen[p.log] = true
			c.opts.Logf("---- log of %s (%s)\n%s", p.Name, p.State(), p.tail())
		}
	}
}

// WaitFor calls cond about ten times a second until it returns nil or ctx ends;
// then the error names what was waited for and why the last call was not satisfied.
func WaitFor(ctx context.Context, what string, cond func(context.Context) error) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := cond(ctx)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = err // not the "context deadline exceeded" of the final call
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w: %w", what, context.Cause(ctx), last)
		case <-tick.C:
		}
	}
}
