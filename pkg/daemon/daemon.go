package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/oklog/run"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/common/version"
	"github.com/prometheus/exporter-toolkit/web"

	"github.com/varve-io/varve/pkg/panics"
)

// Daemon is the plumbing of one process. Its methods that return an (execute,
// interrupt) pair build actors for Run; each is called once at most.
type Daemon struct {
	Logger   *slog.Logger
	Registry *prometheus.Registry // holds the metrics of this process alone
	Probe    *Probe

	opts    Options
	metrics *metrics
	http    net.Listener
	grpc    net.Listener // nil without a gRPC server
	tls     *tls.Config  // of the gRPC server; nil without TLS
}

// New sets the process up: it reads certificates and web configuration, binds
// the listeners (nobody is served before Run, so what takes long belongs in an
// actor), and logs each flag that was given without effect. Logs go to stderr.
// The caller closes the daemon.
func New(component string, o Options, stderr io.Writer) (_ *Daemon, err error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	log, err := o.Logger(stderr)
	if err != nil {
		return nil, err
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		versioncollector.NewCollector("varve"),
	)
	d := &Daemon{Logger: log, Registry: reg, Probe: newProbe(component, log, reg), opts: o, metrics: newMetrics(reg)}
	if o.AutoMemLimit {
		limitMemory(o.MemLimitRatio, log)
	}
	if err := d.listen(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	log.Info("starting", "component", component, "version", version.Info(), "build", version.BuildContext())
	return d, nil
}

// Logger returns a log to w as the options say, with a line on each flag that was
// given without effect. New calls it; so does a program that is no daemon.
func (o Options) Logger(w io.Writer) (*slog.Logger, error) {
	c := &promslog.Config{Level: promslog.NewLevel(), Format: promslog.NewFormat(), Writer: w}
	format := o.LogFormat
	if format == "journald" { // journald reads logfmt lines as they are
		format = "logfmt"
	}
	if err := errors.Join(c.Level.Set(o.LogLevel), c.Format.Set(format)); err != nil {
		return nil, fmt.Errorf("set up log: %w", err)
	}
	log := promslog.New(c)
	if o.DebugName != "" {
		log = log.With("name", o.DebugName)
	}
	if o.flags != nil {
		o.flags.logIgnored(log)
	}
	return log, nil
}

// listen reads what the servers need and binds their addresses.
func (d *Daemon) listen() (err error) {
	if err := web.Validate(d.opts.HTTPConfig); err != nil {
		return fmt.Errorf("read --http.config=%s: %w", d.opts.HTTPConfig, err)
	}
	if d.http, err = net.Listen("tcp", d.opts.HTTPAddress); err != nil {
		return fmt.Errorf("serve HTTP: %w; change --http-address", err)
	}
	if d.opts.GRPC.Address == "" {
		return nil
	}
	if d.opts.GRPC.Cert != "" {
		if d.tls, err = d.opts.GRPC.serverTLS(d.Logger); err != nil {
			return err
		}
	}
	if d.grpc, err = net.Listen("tcp", d.opts.GRPC.Address); err != nil {
		return fmt.Errorf("serve gRPC: %w; change --grpc-address", err)
	}
	return nil
}

// HTTPAddr is the address that the HTTP server is bound to.
func (d *Daemon) HTTPAddr() net.Addr { return d.http.Addr() }

// GRPCAddr is the address that the gRPC server is bound to; the component must
// have one.
func (d *Daemon) GRPCAddr() net.Addr { return d.grpc.Addr() }

// Close releases the listeners. It is called after Run has returned, or instead
// of it.
func (d *Daemon) Close() error {
	var errs []error
	for _, l := range []net.Listener{d.http, d.grpc} {
		if l == nil {
			continue
		}
		if err := l.Close(); !errors.Is(err, net.ErrClosed) { // its server may have closed it
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Run runs the actors that add adds until the first of them returns, a signal
// asks the process to stop, or ctx ends; it then interrupts them one after
// another in the order of adding, readiness first, and waits for all. The error
// is that of the actor that ended first, nil after a signal or the end of ctx.
func (d *Daemon) Run(ctx context.Context, add func(*run.Group)) error {
	var g run.Group
	g.Add(run.SignalHandler(ctx, os.Interrupt, syscall.SIGTERM))
	g.Add(d.Probe.Actor())
	add(&g)
	err := g.Run()
	if errors.Is(err, run.ErrSignal) || (ctx.Err() != nil && errors.Is(err, ctx.Err())) {
		d.Logger.Info("stopped", "reason", err)
		return nil
	}
	return err
}

// Every returns an actor that calls fn at once and then each interval (above 0),
// one call at a time. An error, or a panic, is logged and counted under the task's name, and
// the next call is made all the same. The interrupt ends fn's context; the actor returns
// after fn has.
func (d *Daemon) Every(task string, interval time.Duration, fn func(context.Context) error) (execute func() error, interrupt func(error)) {
	failures := d.metrics.taskFailures.WithLabelValues(task)
	success := d.metrics.taskSuccess.WithLabelValues(task)
	return d.Once(func(ctx context.Context) error {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for ctx.Err() == nil {
			switch err := panics.Caught(func() error { return fn(ctx) }); {
			case err == nil:
				success.SetToCurrentTime()
			case ctx.Err() == nil:
				failures.Inc()
				d.Logger.Error("task ended with an error", "task", task, "retry_in", interval, "err", err)
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
			}
		}
		return nil
	})
}

// Once returns an actor that calls fn and ends the process when fn returns, with
// its error. The interrupt ends fn's context.
func (d *Daemon) Once(fn func(context.Context) error) (execute func() error, interrupt func(error)) {
	ctx, cancel := context.WithCancel(context.Background())
	return func() error { return fn(ctx) }, func(error) { cancel() }
}
