package daemon

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/exporter-toolkit/web"
)

// landing is what a component without an HTTP API of its own shows at /.
const landing = `<!doctype html><title>Varve</title><h1>Varve</h1>
<p><a href="/metrics">metrics</a>, <a href="/-/healthy">healthy</a>, <a href="/-/ready">ready</a>,
<a href="/debug/pprof/">profiles</a></p>
`

// HTTP returns the actor of the HTTP server: metrics, probes and profiles, and
// everything else from handler, or from a page that lists those if handler is
// nil. TLS and basic auth follow --http.config, which is read again when it
// changes. The interrupt lets requests end within the grace period.
func (d *Daemon) HTTP(handler http.Handler) (execute func() error, interrupt func(error)) {
	srv := &http.Server{
		Handler:           d.mux(handler),
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          slog.NewLogLogger(d.Logger.Handler(), slog.LevelWarn),
	}
	execute = func() error {
		err := web.Serve(d.http, srv, &web.FlagConfig{WebConfigFile: &d.opts.HTTPConfig}, d.Logger)
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return err
	}
	return execute, func(error) {
		ctx, cancel := context.WithTimeout(context.Background(), d.opts.HTTPGrace)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			d.Logger.Warn("HTTP requests cut off", "grace_period", d.opts.HTTPGrace, "err", errors.Join(err, srv.Close()))
		}
	}
}

func (d *Daemon) mux(handler http.Handler) *http.ServeMux {
	mux := http.NewServeMux()
	if handler != nil {
		mux.Handle("/", handler)
	} else {
		mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, landing) })
	}
	mux.Handle("/metrics", promhttp.HandlerFor(d.Registry, promhttp.HandlerOpts{EnableOpenMetrics: true, Registry: d.Registry}))
	mux.HandleFunc("/-/healthy", serveOK)
	mux.Handle("/-/ready", d.Probe)
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// Instrument counts and times the requests of handler under the label
// handler=name.
func (d *Daemon) Instrument(name string, handler http.Handler) http.Handler {
	l, m := prometheus.Labels{"handler": name}, d.metrics
	handler = promhttp.InstrumentHandlerResponseSize(m.responseSize.MustCurryWith(l), handler)
	handler = promhttp.InstrumentHandlerRequestSize(m.requestSize.MustCurryWith(l), handler)
	handler = promhttp.InstrumentHandlerCounter(m.requests.MustCurryWith(l), handler)
	handler = promhttp.InstrumentHandlerDuration(m.duration.MustCurryWith(l), handler)
	return promhttp.InstrumentHandlerInFlight(m.inflight.With(l), handler)
}
