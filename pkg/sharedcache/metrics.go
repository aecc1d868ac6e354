package sharedcache

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	up      prometheus.Gauge
	wanted  prometheus.Counter
	hits    prometheus.Counter
	written prometheus.Counter
	skipped prometheus.Counter
	errors  prometheus.Counter
	lookup  prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, servers string) *metrics {
	labels := prometheus.Labels{"servers": servers}
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "varve_sharedcache_" + name, Help: help, ConstLabels: labels})
	}
	return &metrics{
		up: f.NewGauge(prometheus.GaugeOpts{
			Name: "varve_sharedcache_up", ConstLabels: labels,
			Help: "0 while the servers are left alone after errors, else 1.",
		}),
		wanted:  counter("wanted_total", "Keys that were looked up."),
		hits:    counter("hits_total", "Keys that were there."),
		written: counter("written_bytes_total", "Bytes of values that were written."),
		skipped: counter("skipped_total", "Values not written: too large, too many waiting, or servers left alone."),
		errors:  counter("errors_total", "Operations that ended in an error."),
		lookup: f.NewHistogram(prometheus.HistogramOpts{
			Name: "varve_sharedcache_lookup_seconds", ConstLabels: labels,
			Help: "Time of a lookup of one or many keys.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 12),
		}),
	}
}
