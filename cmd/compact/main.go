// Command compact keeps one bucket in shape: it merges, deduplicates,
// downsamples, expires and deletes blocks.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/oklog/run"

	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/compact"
	"github.com/varve-io/varve/pkg/daemon"
	"github.com/varve-io/varve/pkg/fetcher"
	"github.com/varve-io/varve/pkg/garbage"
)

func main() {
	err := serve(context.Background(), os.Args[1:], os.Stderr)
	if err != nil && !errors.Is(err, daemon.ErrHelp) {
		fmt.Fprintln(os.Stderr, "compact:", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, args []string, stderr io.Writer) (err error) {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}

	// Logger, metrics registry, readiness probe, bound listeners.
	d, err := daemon.New("compact", o.daemon, stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()

	// The floor allows for what a job of many blocks reads ahead and uploads.
	garbage.Budget{Floor: 144 << 20, Share: 30, Loose: 48 << 20}.Tune()

	bkt, err := bucket.Open(ctx, o.bucket, d.Logger, d.Registry)
	if err != nil {
		return fmt.Errorf("open bucket: %w", err)
	}
	defer func() { err = errors.Join(err, bkt.Close()) }()
	if err := bucket.Check(ctx, bkt); err != nil {
		return fmt.Errorf("check bucket: %w", err)
	}

	o.fetcher.CacheDir = filepath.Join(o.compact.Dir, "metas")
	blocks := fetcher.New(bkt, o.fetcher, d.Logger, d.Registry)
	executor, err := compact.New(bkt, blocks, o.compact, d.Logger, d.Registry)
	if err != nil {
		return err
	}

	work := func(ctx context.Context) error {
		d.Probe.Ready()
		err := executor.Run(ctx)
		if run := executor.LastRun(); !o.wait || run.Done+run.Failed > 0 {
			d.Logger.Info("run ended", "ok", err == nil, "run", run)
			if o.wait {
				debug.FreeOSMemory() // what jobs took; the next may be hours away
			}
		}
		return err
	}
	// Interrupted in this order: stop working, stop reporting.
	return d.Run(ctx, func(g *run.Group) {
		if o.wait {
			g.Add(d.Every("compact", o.every, work))
		} else {
			g.Add(d.Once(work))
		}
		g.Add(d.HTTP(executor.Handler()))
	})
}
