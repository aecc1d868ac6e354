package sidecar

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type shipperMetrics struct {
	shipped, found, failures prometheus.Counter
	rounds                   prometheus.Counter
	unshipped                prometheus.Gauge
}

// newShipperMetrics registers the metrics of a shipper. oldest gives the time of
// the oldest block that waits, zero if none does.
func newShipperMetrics(reg prometheus.Registerer, oldest func() time.Time) *shipperMetrics {
	f := promauto.With(reg)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "varve_sidecar_oldest_unshipped_block_age_seconds",
		Help: "Age of the oldest finished block that is not in the bucket yet; 0 if there is none.",
	}, func() float64 {
		if at := oldest(); !at.IsZero() {
			return time.Since(at).Seconds()
		}
		return 0
	})
	return &shipperMetrics{
		shipped:   f.NewCounter(prometheus.CounterOpts{Name: "varve_sidecar_blocks_shipped_total", Help: "Blocks uploaded completely."}),
		found:     f.NewCounter(prometheus.CounterOpts{Name: "varve_sidecar_blocks_found_total", Help: "Blocks that need no upload: complete in the bucket already, or merged from such."}),
		failures:  f.NewCounter(prometheus.CounterOpts{Name: "varve_sidecar_ship_failures_total", Help: "Attempts to ship a block that ended in an error."}),
		rounds:    f.NewCounter(prometheus.CounterOpts{Name: "varve_sidecar_ship_rounds_total", Help: "Looks at the local blocks."}),
		unshipped: f.NewGauge(prometheus.GaugeOpts{Name: "varve_sidecar_unshipped_blocks", Help: "Finished blocks that are not in the bucket yet."}),
	}
}

type prometheusMetrics struct {
	up        prometheus.Gauge
	heartbeat prometheus.Gauge
}

func newPrometheusMetrics(reg prometheus.Registerer) *prometheusMetrics {
	f := promauto.With(reg)
	return &prometheusMetrics{
		up:        f.NewGauge(prometheus.GaugeOpts{Name: "varve_sidecar_prometheus_up", Help: "Whether Prometheus answered the last look, with external labels."}),
		heartbeat: f.NewGauge(prometheus.GaugeOpts{Name: "varve_sidecar_last_heartbeat_success_timestamp_seconds", Help: "When Prometheus last answered."}),
	}
}

type storeMetrics struct {
	held    prometheus.Histogram
	refused *prometheus.CounterVec
}

func newStoreMetrics(reg prometheus.Registerer) *storeMetrics {
	f := promauto.With(reg)
	return &storeMetrics{
		held: f.NewHistogram(prometheus.HistogramOpts{
			Name: "varve_sidecar_series_held_bytes", Help: "Most bytes of series that a request held back at a time to put them in order.",
			Buckets: prometheus.ExponentialBuckets(1<<10, 8, 7), NativeHistogramBucketFactor: 1.1,
		}),
		refused: f.NewCounterVec(prometheus.CounterOpts{Name: "varve_sidecar_requests_refused_total", Help: "Series requests ended by a limit."}, []string{"limit"}),
	}
}
