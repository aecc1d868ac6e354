package store

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/varve-io/varve/pkg/storeapi"
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

	series         prometheus.Counter
	touched        prometheus.Counter
	took           prometheus.Histogram
	requestGets    prometheus.Histogram
	requestFetched prometheus.Histogram
	requestNeeded  prometheus.Histogram
	labelsTook     prometheus.Histogram
	stageSeconds   *prometheus.CounterVec
	stageBytes     *prometheus.CounterVec
	stageServed    *prometheus.CounterVec
	stageRequests  *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "varve_store_" + name, Help: help})
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return f.NewHistogram(prometheus.HistogramOpts{Name: "varve_store_" + name, Help: help, Buckets: buckets})
	}
	stage := func(name, help string, more ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "varve_store_stage_" + name, Help: help}, append([]string{"stage"}, more...))
	}
	return &metrics{
		blocks:        f.NewGauge(prometheus.GaugeOpts{Name: "varve_store_blocks", Help: "Blocks that are answered for."}),
		lastSync:      f.NewGauge(prometheus.GaugeOpts{Name: "varve_store_last_sync_timestamp_seconds", Help: "When the set of blocks was taken over last."}),
		indexFailures: counter("index_failures_total", "Attempts to open an index that ended in an error."),
		waited:        histogram("series_wait_seconds", "Time that Series requests waited for their turn.", prometheus.ExponentialBuckets(0.001, 4, 9)),
		inFlight:      f.NewGauge(prometheus.GaugeOpts{Name: "varve_store_series_in_flight", Help: "Series requests that are being answered."}),
		blocksQueried: histogram("series_blocks", "Blocks that a Series request reads.", prometheus.ExponentialBuckets(1, 2, 12)),
		chunks:        counter("chunks_total", "Chunks read for answers."),
		chunkBytes:    counter("chunk_bytes_total", "Bytes of chunks that answers needed, from caches or the bucket."),
		refetches:     counter("chunk_refetches_total", "Chunks that were longer than expected and were read again."),
		warnings:      counter("warnings_total", "Blocks or chunks that an answer had to do without."),
		refused:       counter("refused_total", "Requests that were ended by a limit."),
		replanned:     counter("replanned_total", "Blocks that vanished under a request and were replaced by others."),

		series:         counter("answered_series_total", "Series of answers."),
		touched:        counter("touched_series_total", "Series that requests matched, counted in each block."),
		took:           histogram("series_seconds", "Time from a Series request's turn to its end.", prometheus.ExponentialBuckets(0.005, 3, 10)),
		requestGets:    histogram("series_bucket_requests", "Reads of the bucket that a Series request made.", prometheus.ExponentialBuckets(1, 4, 9)),
		requestFetched: histogram("series_fetched_bytes", "Bytes of the bucket that a Series request read.", prometheus.ExponentialBuckets(16<<10, 4, 10)),
		requestNeeded:  histogram("series_needed_bytes", "Bytes that a Series request needed, from caches or the bucket.", prometheus.ExponentialBuckets(16<<10, 4, 10)),
		labelsTook:     histogram("labels_seconds", "Time that LabelNames and LabelValues requests took.", prometheus.ExponentialBuckets(0.005, 3, 10)),
		stageSeconds: stage("seconds_total", "Time of requests by stage: waiting for their turn (turn), finding series (select), reading their entries (entries) and chunks (chunks), these of all blocks added up, "+
			"waiting for them (wait), merging and sending (send), and all of a request for labels (labels)."),
		stageBytes:    stage("needed_bytes_total", "Bytes that requests needed, from caches or the bucket."),
		stageServed:   stage("served_bytes_total", "Bytes that came from memory, disk, a cache that stores share (remote), from what was under way for another request (shared), or from the bucket, gaps between them included.", "from"),
		stageRequests: stage("bucket_requests_total", "Reads of the bucket."),
	}
}

// count books stages of a request.
func (m *metrics) count(stages ...storeapi.Stage) {
	for _, s := range stages {
		m.stageSeconds.WithLabelValues(s.Name).Add(s.Took.Seconds())
		if s.Ranges == 0 {
			continue
		}
		m.stageBytes.WithLabelValues(s.Name).Add(float64(s.Needed))
		m.stageRequests.WithLabelValues(s.Name).Add(float64(s.Requests))
		for from, n := range map[string]int64{"memory": s.FromMemory, "disk": s.FromDisk, "remote": s.FromRemote, "shared": s.Shared, "bucket": s.Fetched} {
			m.stageServed.WithLabelValues(s.Name, from).Add(float64(n))
		}
	}
}
