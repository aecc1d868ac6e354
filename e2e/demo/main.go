// Command demo runs all of Varve on this machine: two Prometheus replicas with
// sidecars, an S3 server, store, query and compact, and thirty days of history
// in the bucket. It ends with Ctrl-C, and everything it started with it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/varve-io/varve/e2e/harness"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// options are the demo's flags.
type options struct {
	dir     string
	days    int
	series  int
	query   string
	stop    time.Duration
	verbose bool
}

func parse(args []string, usage io.Writer) (o options, err error) {
	fs := flag.NewFlagSet("demo", flag.ContinueOnError)
	fs.SetOutput(usage)
	fs.StringVar(&o.dir, "dir", filepath.Join(os.TempDir(), "varve-demo"), "data and logs; emptied at the start")
	fs.IntVar(&o.days, "days", 30, "days of history to lay into the bucket")
	fs.IntVar(&o.series, "series", 200, "series of each replica's history")
	fs.StringVar(&o.query, "query.address", "127.0.0.1:10904", "where query serves its HTTP API")
	fs.DurationVar(&o.stop, "stop-after", 0, "end by itself this long after everything is up; 0 waits for Ctrl-C")
	fs.BoolVar(&o.verbose, "verbose", false, "print the processes as they start")
	return o, fs.Parse(args)
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	o, err := parse(args, out)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := emptyDir(o.dir); err != nil {
		return err
	}
	d := &demo{options: o, out: out, began: time.Now()}
	logf := func(string, ...any) {}
	if o.verbose {
		logf = d.say
	}
	if d.cluster, err = harness.New(harness.FromEnv(o.dir, logf)); err != nil {
		return err
	}
	defer func() {
		d.say("stopping everything")
		err = errors.Join(err, d.cluster.Close())
	}()
	if err := d.start(ctx); err != nil {
		return err
	}
	d.explain()
	if o.stop > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.stop)
		defer cancel()
	}
	return d.watch(ctx)
}

// marker is a file that says whose a directory is.
const marker = ".varve-demo"

// emptyDir makes an empty directory. What is in it already goes, if an earlier demo left it.
func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, marker)); len(entries) > 0 && err != nil {
		return fmt.Errorf("%s holds files that are not the demo's; give another -dir, or empty it", dir)
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, marker), nil, 0o644)
}
