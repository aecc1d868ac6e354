// Command store answers Store API requests from the blocks of one bucket.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/oklog/run"
	"github.com/prometheus/common/version"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/daemon"
	"github.com/varve-io/varve/pkg/fetcher"
	"github.com/varve-io/varve/pkg/garbage"
	"github.com/varve-io/varve/pkg/store"
	"github.com/varve-io/varve/pkg/storeapi"
)

func main() {
	err := serve(context.Background(), os.Args[1:], os.Stderr)
	if err != nil && !errors.Is(err, daemon.ErrHelp) {
		fmt.Fprintln(os.Stderr, "store:", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, args []string, stderr io.Writer) (err error) {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}

	// Logger, metrics registry, readiness probe, bound listeners.
	d, err := daemon.New("store", o.daemon, stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()

	bkt, err := bucket.Open(ctx, o.bucket, d.Logger, d.Registry)
	if err != nil {
		return fmt.Errorf("open bucket: %w", err)
	}
	defer func() { err = errors.Join(err, bkt.Close()) }()
	if err := bucket.Check(ctx, bkt); err != nil {
		return fmt.Errorf("check bucket: %w", err)
	}

	shared, err := o.shared.open(ctx, d.Logger, d.Registry)
	if err != nil {
		return err
	}
	if shared != nil {
		defer func() { err = errors.Join(err, shared.Close()) }()
		o.store.Cache.Remote = shared
	}
	gateway, err := store.New(bkt, o.store, d.Logger, d.Registry)
	if err != nil {
		return fmt.Errorf("open store in %s: %w", o.store.Dir, err)
	}
	defer func() { err = errors.Join(err, gateway.Close()) }()
	// The floor allows for full caches and a wide request. Only now: the gateway's own budget asks for the limit that was given.
	garbage.Budget{Floor: 128 << 20, Share: 12, Loose: 48 << 20}.Tune()
	o.fetcher.CacheDir = filepath.Join(o.store.Dir, "metas")
	blocks := fetcher.New(bkt, o.fetcher, d.Logger, d.Registry)

	var known *block.Set
	syncBlocks := func(ctx context.Context) error {
		set, err := blocks.Fetch(ctx)
		switch {
		case err != nil && known != nil:
			return fmt.Errorf("look at the bucket (the %d blocks of %s are answered for on): %w", len(known.Blocks), known.Listed.UTC().Format(time.RFC3339), err)
		case err != nil:
			return fmt.Errorf("look at the bucket: %w", err)
		}
		known = set
		if err := gateway.Sync(ctx, set); err != nil {
			return fmt.Errorf("sync blocks: %w", err)
		}
		return nil
	}
	register := storeapi.Register(gateway, storeapi.ServerOptions{Version: version.Version})

	// Interrupted in this order: stop answering, stop working, stop reporting.
	return d.Run(ctx, func(g *run.Group) {
		g.Add(d.GRPC(storeapi.ServerOption(), register))
		g.Add(d.Every("sync", o.every, retried(announced(syncBlocks, d.Probe), d.Logger)))
		g.Add(d.HTTP(pages(gateway)))
	})
}

// pages are what the HTTP port has of this component's own.
func pages(gateway *store.Gateway) http.Handler {
	const landing = `<!doctype html><title>Varve store</title><h1>Varve store</h1>
<p><a href="/api/v1/blocks">blocks</a>, <a href="/metrics">metrics</a>, <a href="/-/healthy">healthy</a>, <a href="/-/ready">ready</a>,
<a href="/debug/pprof/">profiles</a></p>
`
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, landing) })
	mux.HandleFunc("GET /api/v1/blocks", gateway.ServeBlocks)
	return mux
}

// announced makes the process ready when sync has come to its end once; until then
// the probe says what keeps it. A later error changes nothing: the last known blocks
// are served on.
func announced(sync func(context.Context) error, probe *daemon.Probe) func(context.Context) error {
	synced := false
	return func(ctx context.Context) error {
		err := sync(ctx)
		switch {
		case err == nil:
			synced = true
			probe.Ready()
		case !synced && ctx.Err() == nil:
			probe.NotReady(err)
		}
		return err
	}
}

// retried repeats fn after an error a few times at a short distance, so that a
// store that starts beside its bucket is not late by a whole interval. It logs the
// errors that it does not return.
func retried(fn func(context.Context) error, log *slog.Logger) func(context.Context) error {
	const attempts, pause = 4, 5 * time.Second
	return func(ctx context.Context) error {
		err := fn(ctx)
		for range attempts - 1 {
			if err == nil {
				return nil
			}
			if ctx.Err() == nil {
				log.Warn("bucket not looked at, trying again", "retry_in", pause, "err", err)
			}
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return err
			}
			err = fn(ctx)
		}
		return err
	}
}
