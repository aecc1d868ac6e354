package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/varve-io/varve/e2e/harness"
	"github.com/varve-io/varve/e2e/history"
)

// The two replicas and how often they scrape.
const (
	bucketName      = "metrics"
	historyInterval = 30 * time.Second
	liveInterval    = 5 * time.Second
)

// demo is the running demonstration.
type demo struct {
	options
	cluster *harness.Cluster
	out     io.Writer
	began   time.Time

	bucket  history.Bucket
	config  string // objstore YAML of the bucket
	query   *harness.Component
	compact *harness.Component
	done    atomic.Int64 // blocks of history uploaded
}

// say prints a line with the time since the start.
func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.out, "%6.1fs  %s\n", time.Since(d.began).Seconds(), fmt.Sprintf(format, args...))
}

// start brings everything up, live data first, so that history ends where they begin.
func (d *demo) start(ctx context.Context) error {
	d.say("starting the S3 server")
	s3, err := d.cluster.S3(ctx, bucketName)
	if err != nil {
		return err
	}
	d.config = s3.ObjstoreConfig(bucketName)
	d.bucket = history.Bucket{Endpoint: s3.Endpoint, Name: bucketName, AccessKey: harness.AccessKey, SecretKey: harness.SecretKey}

	processes := history.Processes(d.series)
	exporter, err := serveExporter(processes)
	if err != nil {
		return err
	}
	addresses, err := freeAddresses()
	if err != nil {
		return err
	}
	begin := time.Now()
	endpoints, err := d.startReplicas(ctx, addresses, exporter)
	if err != nil {
		return err
	}
	d.say("laying %d days of history into the bucket, %d series from each of two replicas", d.days, len(processes))
	if err := d.layHistory(ctx, processes, begin); err != nil {
		return err
	}
	return d.startReaders(ctx, addresses, endpoints)
}

// addresses are the HTTP addresses that the Prometheis scrape; they are known before anything starts.
type addresses struct {
	prometheus, sidecar [2]string
	store, compact      string
}

func freeAddresses() (a addresses, err error) {
	for _, p := range []*string{&a.prometheus[0], &a.prometheus[1], &a.sidecar[0], &a.sidecar[1], &a.store, &a.compact} {
		if *p, err = harness.FreeAddress(); err != nil {
			return a, err
		}
	}
	return a, nil
}

// serveExporter serves the generated processes until the demo ends.
func serveExporter(processes []history.Process) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	srv := &http.Server{Handler: history.Exporter(processes), ReadHeaderTimeout: time.Minute}
	go func() { _ = srv.Serve(l) }() // ends with the process
	return l.Addr().String(), nil
}

// startReplicas starts both Prometheis, which scrape each other and Varve, and their sidecars.
func (d *demo) startReplicas(ctx context.Context, a addresses, exporter string) (endpoints []string, err error) {
	for i, name := range []string{"a", "b"} {
		p, err := d.cluster.Prometheus(ctx, harness.PrometheusOptions{
			Name:           "prometheus-" + name,
			Address:        a.prometheus[i],
			ExternalLabels: replica(name).Labels,
			Interval:       liveInterval,
			Targets: map[string][]string{
				"demo":       {exporter},
				"prometheus": a.prometheus[:],
				"varve":      {a.sidecar[0], a.sidecar[1], a.store, a.compact, d.options.query},
			},
		})
		if err != nil {
			return nil, err
		}
		s, err := d.cluster.SidecarAt(ctx, p, harness.ComponentOptions{HTTP: a.sidecar[i], Args: []string{"--objstore.config=" + d.config}})
		if err != nil {
			return nil, err
		}
		d.say("Prometheus replica %s at http://%s, scraping every %s", name, a.prometheus[i], liveInterval)
		endpoints = append(endpoints, s.GRPC)
	}
	return endpoints, nil
}

// replica describes one of the pair. They scrape at different moments, and each
// was down for an hour now and then, never both.
func replica(name string) history.Replica {
	r := history.Replica{
		Labels: map[string]string{"cluster": "demo", "prometheus_replica": name},
		Phase:  2 * time.Second,
	}
	first := time.Duration(0)
	if name == "b" {
		r.Phase, first = 17*time.Second, 12*time.Hour
	}
	for ago := first + 36*time.Hour; ago < 60*24*time.Hour; ago += 4 * 24 * time.Hour {
		at := time.Now().Add(-ago)
		r.Outages = append(r.Outages, history.Outage{From: at, To: at.Add(time.Hour)})
	}
	return r
}

// layHistory generates and uploads the blocks of both replicas up to end.
func (d *demo) layHistory(ctx context.Context, processes []history.Process, end time.Time) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, name := range []string{"a", "b"} {
		g.Go(func() error {
			dirs, err := history.Write(ctx, filepath.Join(d.dir, "history-"+name), replica(name), history.Options{
				Start: end.Add(-time.Duration(d.days) * 24 * time.Hour), End: end,
				Interval: historyInterval, BlockRange: 2 * time.Hour, Processes: processes,
			})
			if err != nil {
				return err
			}
			return d.bucket.Upload(ctx, dirs, func() { d.done.Add(1) })
		})
	}
	err := g.Wait()
	d.say("%d blocks of history are in the bucket", d.done.Load())
	return err
}

// startReaders starts store, query and compact.
func (d *demo) startReaders(ctx context.Context, a addresses, endpoints []string) (err error) {
	d.compact, err = d.cluster.Launch(harness.ComponentOptions{Binary: "compact", HTTP: a.compact, Args: []string{
		"--objstore.config=" + d.config,
		"--data-dir=" + filepath.Join(d.dir, "compact"),
		"--wait", "--wait-interval=15s", "--consistency-delay=0s", "--delete-delay=2m",
		"--deduplication.replica-label=prometheus_replica",
	}})
	if err != nil {
		return err
	}
	store, err := d.cluster.Launch(harness.ComponentOptions{Binary: "store", HTTP: a.store, Args: []string{
		"--objstore.config=" + d.config,
		"--data-dir=" + filepath.Join(d.dir, "store"),
		"--sync-block-duration=5s", "--ignore-deletion-marks-delay=30s",
	}})
	if err != nil {
		return err
	}
	args := []string{"--query.replica-label=prometheus_replica"}
	for _, e := range append(endpoints, store.GRPC) {
		args = append(args, "--endpoint="+e)
	}
	if d.query, err = d.cluster.Launch(harness.ComponentOptions{Binary: "query", HTTP: d.options.query, Args: args}); err != nil {
		return err
	}
	return errors.Join(store.Ready(ctx), d.query.Ready(ctx))
}
