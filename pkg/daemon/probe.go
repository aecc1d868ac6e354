package daemon

import (
	"io"
	"log/slog"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// Probe knows whether the process wants requests; it begins not ready. (That the
// process is healthy needs no state: it answers.) Its methods may be called
// concurrently.
type Probe struct {
	log   *slog.Logger
	ready prometheus.Gauge
	grpc  *health.Server // says the same to gRPC health checks of the whole server

	mu       sync.Mutex
	notReady string // why; empty when ready
	stopping bool   // not ready any more, whatever is said
}

func newProbe(component string, log *slog.Logger, reg prometheus.Registerer) *Probe {
	status := promauto.With(reg).NewGaugeVec(prometheus.GaugeOpts{
		Name:        "varve_status",
		Help:        "Whether the process is healthy and whether it is ready: 1 or 0.",
		ConstLabels: prometheus.Labels{"component": component},
	}, []string{"check"})
	p := &Probe{
		log:      log,
		ready:    status.WithLabelValues("ready"),
		grpc:     health.NewServer(),
		notReady: "starting",
	}
	status.WithLabelValues("healthy").Set(1)
	p.grpc.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	return p
}

// Ready says that the process wants requests. It has no effect once the process
// is stopping.
func (p *Probe) Ready() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set("")
}

// NotReady says that the process wants no requests, and why.
func (p *Probe) NotReady(reason error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set(reason.Error())
}

// set makes the process ready if the reason against it is empty. The caller
// holds mu.
func (p *Probe) set(reason string) {
	before := p.notReady
	if p.stopping || before == reason {
		return
	}
	p.notReady = reason
	switch {
	case reason == "":
		p.log.Info("ready")
		p.ready.Set(1)
		p.grpc.SetServingStatus("", grpc_health_v1.HealthCheckResponse_SERVING)
	case before == "":
		p.log.Warn("not ready", "reason", reason)
		p.ready.Set(0)
		p.grpc.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	}
}

// Actor ends the readiness when the process is stopping.
func (p *Probe) Actor() (execute func() error, interrupt func(error)) {
	stop := make(chan struct{})
	once := sync.OnceFunc(func() { close(stop) })
	return func() error { <-stop; return nil }, func(error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.set("stopping")
		p.stopping = true
		once()
	}
}

// ServeHTTP answers OK, or 503 with the reason, as Thanos' readiness does.
func (p *Probe) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	reason := p.notReady
	p.mu.Unlock()
	if reason != "" {
		http.Error(w, "NOT OK: "+reason, http.StatusServiceUnavailable)
		return
	}
	serveOK(w, nil)
}

func serveOK(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "OK") }
