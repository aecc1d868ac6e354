package store

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	blocks        prometheus.Gauge
	lastSync      prometheus.Gauge
	indexFailures prometheus.Counter
	waited        prometheus.Histogram
	inFlight      prometheus.Gauge
	blocksQueried prometheus.Histogram
	chunks        prometheus.Counter
	chunkBytes    prometheus.Counter
	refetches     prometheus.Counter
	warnings      prometheus.Counter
	refused       prometheus.Counter
	replanned     prometheus.Counter

	took           prometheus.Histogram
	requestGets    prometheus.Histogram
	requestFetched prometheus.Histogram
	stages         *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "varve_store_" + name, Help: help})
	}
	return &metrics{
		blocks:        f.NewGauge(prometheus.GaugeOpts{Name: "varve_store_blocks", Help: "Blocks that are answered for."}),
		lastSync:      f.NewGauge(prometheus.GaugeOpts{Name: "varve_store_last_sync_timestamp_seconds", Help: "When the set of blocks was taken over last."}),
		indexFailures: counter("index_failures_total", "Attempts to open an index that ended in an error."),
		waited:        f.NewHistogram(prometheus.HistogramOpts{Name: "varve_store_series_wait_seconds", Help: "Time that Series requests waited for their turn.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 9)}),
		inFlight:      f.NewGauge(prometheus.GaugeOpts{Name: "varve_store_series_in_flight", Help: "Series requests that are being answered."}),
		blocksQueried: f.NewHistogram(prometheus.HistogramOpts{Name: "varve_store_series_blocks", Help: "Blocks that a Series request reads.", Buckets: prometheus.ExponentialBuckets(1, 2, 12)}),
		chunks:        counter("chunks_total", "Chunks read for answers."),
		chunkBytes:    counter("chunk_bytes_total", "Bytes of chunks that answers needed, from caches or the bucket."),
		refetches:     counter("chunk_refetches_total", "Chunks that were longer than expected and were read again."),
		warnings:      counter("warnings_total", "Blocks or chunks that an answer had to do without."),
		refused:       counter("refused_total", "Requests that were ended by a limit."),
		replanned:     counter("replanned_total", "Blocks that vanished under a request and were replaced by others."),

		took:           f.NewHistogram(prometheus.HistogramOpts{Name: "varve_store_series_seconds", Help: "Time from a Series request's turn to its end.", Buckets: prometheus.ExponentialBuckets(0.005, 3, 10)}),
		requestGets:    f.NewHistogram(prometheus.HistogramOpts{Name: "varve_store_series_bucket_requests", Help: "Reads of the bucket that a Series request needed.", Buckets: prometheus.ExponentialBuckets(1, 4, 9)}),
		requestFetched: f.NewHistogram(prometheus.HistogramOpts{Name: "varve_store_series_fetched_bytes", Help: "Bytes of the bucket that a Series request read.", Buckets: prometheus.ExponentialBuckets(16<<10, 4, 10)}),
		stages:         f.NewCounterVec(prometheus.CounterOpts{Name: "varve_store_series_stage_seconds_total", Help: "Time of Series requests: looking up matchers (select) and reading chunks (chunks), all blocks added up, and waiting for both (wait)."}, []string{"stage"}),
	}
}
