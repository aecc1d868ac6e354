// Command sidecar stands beside one Prometheus: it ships its blocks to object
// storage and answers Store API requests for its recent data.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/oklog/run"
	"github.com/prometheus/common/version"
	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/daemon"
	"github.com/varve-io/varve/pkg/promclient"
	"github.com/varve-io/varve/pkg/proxyapi"
	"github.com/varve-io/varve/pkg/sidecar"
	"github.com/varve-io/varve/pkg/storeapi"
)

func main() {
	err := serve(context.Background(), os.Args[1:], os.Stderr)
	if err != nil && !errors.Is(err, daemon.ErrHelp) {
		fmt.Fprintln(os.Stderr, "sidecar:", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, args []string, stderr io.Writer) (err error) {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}

	// Logger, metrics registry, readiness probe, bound listeners.
	d, err := daemon.New("sidecar", o.daemon, stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()

	client, err := promclient.New(o.client)
	if err != nil {
		return err
	}
	defer client.Close()
	prom, err := sidecar.NewPrometheus(client, o.prometheus, d.Logger, d.Registry)
	if err != nil {
		return err
	}
	store, err := sidecar.NewStore(client, prom, o.store, d.Registry)
	if err != nil {
		return err
	}
	stores := storeapi.Register(store, storeapi.ServerOptions{APIs: sidecar.ProxyAPIs, Version: version.Version})
	proxies := proxyapi.Register(sidecar.NewProxy(client, prom).Services())

	checkFlags := func(promclient.Flags) error { return nil }
	var ship func(context.Context) error // nil without object storage
	if o.bucket.Configured() {
		bkt, err := bucket.Open(ctx, o.bucket, d.Logger, d.Registry)
		if err != nil {
			return fmt.Errorf("open bucket: %w", err)
		}
		defer func() { err = errors.Join(err, bkt.Close()) }()
		shipper, err := sidecar.NewShipper(bkt, o.shipper, d.Logger, d.Registry)
		if err != nil {
			return err
		}
		checkFlags, ship = o.shipper.CheckFlags, shipping(bkt, prom, shipper)
	} else {
		d.Logger.Info("no object storage is configured; blocks are not shipped")
	}

	// Interrupted in this order: stop answering, stop working, stop reporting.
	return d.Run(ctx, func(g *run.Group) {
		g.Add(d.GRPC(storeapi.ServerOption(), stores, proxies))
		if ship != nil {
			g.Add(d.Every("ship", shipEvery, ship))
		}
		g.Add(d.Once(func(ctx context.Context) error { return prom.Run(ctx, d.Probe, checkFlags) }))
		g.Add(d.HTTP(nil))
	})
}

// shipping returns one round of shipping. The first ones look at the bucket before
// there is anything to ship, so that wrong credentials are known at once.
func shipping(bkt objstore.Bucket, prom *sidecar.Prometheus, shipper *sidecar.Shipper) func(context.Context) error {
	checked := false
	return func(ctx context.Context) error {
		state, err := prom.Await(ctx)
		if err != nil {
			return fmt.Errorf("ship blocks: %w", err)
		}
		if !checked {
			if err := bucket.Check(ctx, bkt); err != nil {
				return fmt.Errorf("check bucket: %w", err)
			}
			checked = true
		}
		return shipper.Ship(ctx, state.External)
	}
}
