package harness

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
)

// Component is a running Varve process.
type Component struct {
	*Process
	// HTTP and GRPC are the addresses, host:port, that it serves on.
	HTTP, GRPC string
}

// ComponentOptions describe a Varve process.
type ComponentOptions struct {
	// Binary is sidecar, store, query or compact.
	Binary string
	// Name is unique in the cluster; empty means the binary's name.
	Name string
	// Args are added to those that give the addresses, Env to the environment.
	Args, Env []string
	// HTTP and GRPC are the addresses to serve on; empty means a free port.
	HTTP, GRPC string
}

// Launch starts a Varve process without waiting for anything.
func (c *Cluster) Launch(o ComponentOptions) (*Component, error) {
	if o.Name == "" {
		o.Name = o.Binary
	}
	binary, err := c.Varve(o.Binary)
	if err != nil {
		return nil, err
	}
	args := []string{o.Binary}
	for _, server := range []struct {
		flag    string
		address *string
	}{{"--http-address=", &o.HTTP}, {"--grpc-address=", &o.GRPC}} {
		if *server.address == "" {
			if *server.address, err = FreeAddress(); err != nil {
				return nil, err
			}
		}
		given := slices.ContainsFunc(o.Args, func(arg string) bool { return strings.HasPrefix(arg, server.flag) })
		if !given && (server.flag == "--http-address=" || o.Binary != "compact") { // compact serves no gRPC
			args = append(args, server.flag+*server.address)
		}
	}
	p, err := c.Start(Command{Name: o.Name, Path: binary, Args: append(args, o.Args...), Env: o.Env})
	if err != nil {
		return nil, err
	}
	return &Component{Process: p, HTTP: o.HTTP, GRPC: o.GRPC}, nil
}

// Ready waits until the component says so itself.
func (c *Component) Ready(ctx context.Context) error {
	return c.WaitReady(ctx, HTTPReady("http://"+c.HTTP+"/-/ready"))
}

// API is the Prometheus API of a query component.
func (c *Component) API() PromAPI { return PromAPI{URL: "http://" + c.HTTP} }

// startReady launches a component and waits until it is ready.
func (c *Cluster) startReady(ctx context.Context, o ComponentOptions) (*Component, error) {
	p, err := c.Launch(o)
	if err != nil {
		return nil, err
	}
	return p, p.Ready(ctx)
}

// Sidecar starts a sidecar beside a Prometheus and waits until it is ready. It
// ships blocks into the bucket unless objstore, a configuration, is empty.
func (c *Cluster) Sidecar(ctx context.Context, p *Prometheus, objstore string, args ...string) (*Component, error) {
	flags := []string{"--prometheus.get_config_interval=1s"}
	if objstore != "" {
		flags = append(flags, "--objstore.config="+objstore)
	}
	return c.SidecarAt(ctx, p, ComponentOptions{Args: slices.Concat(flags, args)})
}

// SidecarAt is Sidecar with addresses of the caller's choice.
func (c *Cluster) SidecarAt(ctx context.Context, p *Prometheus, o ComponentOptions) (*Component, error) {
	o.Binary, o.Name = "sidecar", "sidecar-"+p.Name
	o.Args = append([]string{"--prometheus.url=" + p.URL, "--tsdb.path=" + p.Dir}, o.Args...)
	return c.startReady(ctx, o)
}

// Store starts a store gateway over a bucket and waits until it is ready. It
// looks for new blocks every second.
func (c *Cluster) Store(ctx context.Context, name, objstore string, args ...string) (*Component, error) {
	dir, err := c.Dir(name)
	if err != nil {
		return nil, err
	}
	flags := []string{"--objstore.config=" + objstore, "--data-dir=" + filepath.Join(dir, "data"), "--sync-block-duration=1s"}
	return c.startReady(ctx, ComponentOptions{Binary: "store", Name: name, Args: slices.Concat(flags, args)})
}

// Query starts a querier over endpoints and waits until it is ready. It takes
// prometheus_replica for the replica label.
func (c *Cluster) Query(ctx context.Context, name string, endpoints []string, args ...string) (*Component, error) {
	flags := []string{"--query.replica-label=prometheus_replica"}
	for _, e := range endpoints {
		flags = append(flags, "--endpoint="+e)
	}
	return c.startReady(ctx, ComponentOptions{Binary: "query", Name: name, Args: slices.Concat(flags, args)})
}

// CompactArgs are the arguments of a compactor that deduplicates and works at
// once on whatever is in the bucket.
func (c *Cluster) CompactArgs(objstore string, args ...string) ([]string, error) {
	dir, err := c.Dir("compact")
	if err != nil {
		return nil, err
	}
	return slices.Concat([]string{
		"--objstore.config=" + objstore,
		"--data-dir=" + filepath.Join(dir, "data"),
		"--deduplication.replica-label=prometheus_replica",
		"--consistency-delay=0s",
	}, args), nil
}

// GraphURL is where a person can type a query against the component.
func (c *Component) GraphURL(expr string) string {
	return fmt.Sprintf("http://%s/api/v1/query?query=%s", c.HTTP, url.QueryEscape(expr))
}
