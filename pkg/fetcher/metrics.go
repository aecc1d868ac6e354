package fetcher

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/varve-io/varve/pkg/block"
)

type metrics struct {
	syncs    prometheus.Counter
	failures prometheus.Counter
	duration prometheus.Histogram
	lastSync prometheus.Gauge
	reads    *prometheus.CounterVec
	blocks   *prometheus.GaugeVec
}

// The places that a meta.json or a mark is read from.
const (
	fromBucket = "bucket"
	fromDisk   = "disk"
)

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		syncs:    f.NewCounter(prometheus.CounterOpts{Name: "varve_blocks_meta_syncs_total", Help: "Looks at the bucket."}),
		failures: f.NewCounter(prometheus.CounterOpts{Name: "varve_blocks_meta_sync_failures_total", Help: "Looks at the bucket that ended in an error."}),
		duration: f.NewHistogram(prometheus.HistogramOpts{
			Name: "varve_blocks_meta_sync_duration_seconds", Help: "How long a look at the bucket takes.",
			Buckets: []float64{0.01, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000},
		}),
		lastSync: f.NewGauge(prometheus.GaugeOpts{Name: "varve_blocks_meta_last_sync_timestamp_seconds", Help: "When a look at the bucket last came to its end."}),
		reads:    f.NewCounterVec(prometheus.CounterOpts{Name: "varve_blocks_meta_reads_total", Help: "meta.json files and marks read, by place."}, []string{"from"}),
		blocks:   f.NewGaugeVec(prometheus.GaugeOpts{Name: "varve_blocks", Help: "Blocks in the bucket by state; those marked for deletion are not among the complete ones."}, []string{"state"}),
	}
}

// show publishes the size of the set.
func (m *metrics) show(set *block.Set) {
	marked := 0
	for _, e := range set.Blocks {
		if e.Deletion != nil {
			marked++
		}
	}
	for state, n := range map[string]int{
		"complete": len(set.Blocks) - marked, "marked": marked, "partial": len(set.Partial), "unreadable": len(set.Unreadable),
	} {
		m.blocks.WithLabelValues(state).Set(float64(n))
	}
}
