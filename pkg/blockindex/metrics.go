package blockindex

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	builds prometheus.Counter
	misses prometheus.Counter
	bytes  prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		builds: f.NewCounter(prometheus.CounterOpts{Name: "varve_blockindex_directory_builds_total", Help: "Page directories made from the tail and the symbols of an index."}),
		misses: f.NewCounter(prometheus.CounterOpts{Name: "varve_blockindex_page_misses_total", Help: "Pages of directories read from local disk."}),
		bytes:  f.NewGauge(prometheus.GaugeOpts{Name: "varve_blockindex_page_bytes", Help: "Bytes of pages of directories in memory."}),
	}
}
