package daemon

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics of the servers carry the names that the field's dashboards read.
type metrics struct {
	requests     *prometheus.CounterVec
	duration     *prometheus.HistogramVec
	requestSize  *prometheus.HistogramVec
	responseSize *prometheus.HistogramVec
	inflight     *prometheus.GaugeVec
	panics       prometheus.Counter
	taskFailures *prometheus.CounterVec
	taskSuccess  *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	labels := []string{"code", "handler", "method"}
	sizes := prometheus.ExponentialBuckets(64, 2, 10)
	return &metrics{
		requests:     f.NewCounterVec(prometheus.CounterOpts{Name: "http_requests_total", Help: "HTTP requests answered."}, labels),
		duration:     f.NewHistogramVec(histogram("http_request_duration_seconds", "Seconds until an HTTP request was answered.", durationBuckets()), labels),
		requestSize:  f.NewHistogramVec(histogram("http_request_size_bytes", "Size of HTTP requests.", sizes), labels),
		responseSize: f.NewHistogramVec(histogram("http_response_size_bytes", "Size of HTTP responses.", sizes), labels),
		inflight:     f.NewGaugeVec(prometheus.GaugeOpts{Name: "http_inflight_requests", Help: "HTTP requests being answered."}, []string{"handler"}),
		panics:       f.NewCounter(prometheus.CounterOpts{Name: "grpc_req_panics_recovered_total", Help: "Panics of gRPC handlers, answered as Internal."}),
		taskFailures: f.NewCounterVec(prometheus.CounterOpts{Name: "varve_task_failures_total", Help: "Runs of a periodic task that ended in an error."}, []string{"task"}),
		taskSuccess:  f.NewGaugeVec(prometheus.GaugeOpts{Name: "varve_task_last_success_timestamp_seconds", Help: "When a periodic task last ended without an error."}, []string{"task"}),
	}
}

// histogram has classic buckets and, for scrapers that ask, native ones.
func histogram(name, help string, buckets []float64) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Name:                            name,
		Help:                            help,
		Buckets:                         buckets,
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  100,
		NativeHistogramMinResetDuration: time.Hour,
	}
}

// durationBuckets are seconds, from a cached answer to a query of years.
func durationBuckets() []float64 {
	return []float64{0.001, 0.01, 0.1, 0.3, 0.6, 1, 3, 6, 9, 20, 30, 60, 90, 120, 240, 360, 720}
}
