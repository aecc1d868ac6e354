// Command query answers PromQL over many Store APIs, for Grafana.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/oklog/run"
	"github.com/prometheus/common/version"

	"github.com/varve-io/varve/pkg/daemon"
	"github.com/varve-io/varve/pkg/proxyapi"
	"github.com/varve-io/varve/pkg/query"
	"github.com/varve-io/varve/pkg/query/promapi"
	"github.com/varve-io/varve/pkg/storeapi"
)

func main() {
	err := serve(context.Background(), os.Args[1:], os.Stderr)
	if err != nil && !errors.Is(err, daemon.ErrHelp) {
		fmt.Fprintln(os.Stderr, "query:", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, args []string, stderr io.Writer) (err error) {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}

	// Logger, metrics registry, readiness probe, bound listeners.
	d, err := daemon.New("query", o.daemon, stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()

	connect, err := query.Dialer(o.client, o.fanout.ResponseTimeout, d.Registry)
	if err != nil {
		return fmt.Errorf("set up connections to endpoints: %w", err)
	}
	endpoints := query.NewEndpoints(o.endpoints, connect, nil, d.Logger, d.Registry)
	defer func() { err = errors.Join(err, endpoints.Close()) }()

	fanout := query.NewFanout(endpoints, o.fanout, d.Registry)
	engine := query.NewEngine(fanout, o.query, d.Logger, d.Registry)
	proxy := query.NewProxy(fanout, o.query.ReplicaLabels)
	api := promapi.New(promapi.Backend{Engine: engine, Endpoints: endpoints, Proxy: proxy}, o.api, d.Logger, d.Instrument)

	// Our own Store API, so that queriers stack.
	stores := storeapi.Register(engine.StoreAPI(o.limits), storeapi.ServerOptions{APIs: query.ProxyAPIs, Version: version.Version})
	proxies := proxyapi.Register(proxyapi.Services{Rules: proxy, Targets: proxy, Metadata: proxy, Exemplars: proxy, Status: proxy})

	refresh := func(ctx context.Context) error {
		if err := endpoints.Refresh(ctx); err != nil {
			return err
		}
		if err := endpoints.Ready(); err != nil {
			d.Probe.NotReady(err)
			return nil
		}
		d.Probe.Ready()
		return nil
	}

	// Interrupted in this order: stop answering, stop looking around.
	return d.Run(ctx, func(g *run.Group) {
		g.Add(d.HTTP(api))
		g.Add(d.GRPC(storeapi.ServerOption(), stores, proxies))
		g.Add(d.Every("endpoints", o.endpoints.InfoTimeout, refresh))
	})
}
