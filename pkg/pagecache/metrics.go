package pagecache

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	hits     prometheus.Counter
	misses   prometheus.Counter
	fetched  prometheus.Counter
	requests prometheus.Counter
	bytes    prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		hits:     f.NewCounter(prometheus.CounterOpts{Name: "varve_pagecache_hits_total", Help: "Pages found in memory or already on their way."}),
		misses:   f.NewCounter(prometheus.CounterOpts{Name: "varve_pagecache_misses_total", Help: "Pages read from the bucket."}),
		fetched:  f.NewCounter(prometheus.CounterOpts{Name: "varve_pagecache_fetched_bytes_total", Help: "Bytes read from the bucket."}),
		requests: f.NewCounter(prometheus.CounterOpts{Name: "varve_pagecache_requests_total", Help: "Range requests to the bucket."}),
		bytes:    f.NewGauge(prometheus.GaugeOpts{Name: "varve_pagecache_bytes", Help: "Bytes of pages in memory."}),
	}
}
