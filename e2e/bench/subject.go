package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/varve-io/varve/e2e/harness"
)

// subject is a program that is measured.
type subject struct {
	name string
	// binary is the path of a peer's; empty means Varve's own.
	binary string
}

// peerVariable names the environment variable with the path of the peer's binary.
const peerVariable = "VARVE_PEER_THANOS"

// subjects are Varve and, if there is one, the peer.
func subjects() []subject {
	s := []subject{{name: "varve"}}
	if path := os.Getenv(peerVariable); path != "" {
		s = append(s, subject{name: "thanos", binary: path})
	}
	return s
}

// gateway is a running store gateway.
type gateway struct {
	*harness.Process
	*client
	meter
}

// options of one start of a gateway.
type gatewayOptions struct {
	bucket, endpoint string
	// dir is its data directory, relative to the cluster's.
	dir  string
	env  []string
	cage *cage
	// until is the end of the data, by which a gateway is known to be ready.
	until time.Time
}

// open starts a gateway and waits until it knows the data. Both kinds get the same
// flags, and their own defaults for everything else. The caller closes it.
func (s subject) open(ctx context.Context, c *harness.Cluster, o gatewayOptions) (_ *gateway, err error) {
	data, err := c.Dir(s.name, o.dir)
	if err != nil {
		return nil, err
	}
	binary := s.binary
	if binary == "" {
		if binary, err = c.Varve("store"); err != nil {
			return nil, err
		}
	}
	http, err := harness.FreeAddress()
	if err != nil {
		return nil, err
	}
	grpc, err := harness.FreeAddress()
	if err != nil {
		return nil, err
	}
	server := harness.S3{Endpoint: o.endpoint}
	path, args := o.cage.command(binary, []string{
		"store", "--http-address=" + http, "--grpc-address=" + grpc, "--data-dir=" + data,
		"--sync-block-duration=15m", "--objstore.config=" + server.ObjstoreConfig(o.bucket),
	})
	name := s.name + "-" + strings.ReplaceAll(o.dir, string(filepath.Separator), "-")
	p, err := c.Start(harness.Command{Name: name, Path: path, Args: args, Env: o.env})
	if err != nil {
		return nil, err
	}
	g := &gateway{Process: p, meter: meter{pid: p.PID()}}
	if g.client, err = dial(grpc); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	if err := g.waitUntil(ctx, o.until); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// poll is how often a starting gateway is asked, and so how precisely its start is measured.
const poll = 10 * time.Millisecond

// waitUntil waits until the gateway knows the data up to a time.
func (g *gateway) waitUntil(ctx context.Context, until time.Time) error {
	for {
		err := g.knows(ctx, until)
		if err == nil {
			return nil
		}
		select {
		case <-g.Done():
			out, _ := g.Output()
			return fmt.Errorf("%s ended: %s; its log:\n%s", g.Name, g.State(), out)
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w: %w", g.Name, context.Cause(ctx), err)
		case <-time.After(poll):
		}
	}
}

// Close ends the gateway.
func (g *gateway) Close() error { return errors.Join(g.client.Close(), g.Stop()) }

// knows is an error until the gateway announces data up to a time.
func (c *client) knows(ctx context.Context, until time.Time) error {
	info, err := c.info(ctx)
	if err != nil {
		return err
	}
	if got := time.UnixMilli(info.GetStore().GetMaxTime()); got.Before(until.Add(-time.Minute)) {
		return fmt.Errorf("it knows the data until %s, not yet those until %s", got.UTC(), until.UTC())
	}
	return nil
}
