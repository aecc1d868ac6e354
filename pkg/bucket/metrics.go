package bucket

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// The operations, as the label "operation" names them: those of objstore, so that
// dashboards carry over, and those of our capabilities.
const (
	opIter        = "iter"
	opList        = "list"
	opGet         = "get"
	opGetRange    = "get_range"
	opGetVersion  = "get_version"
	opExists      = "exists"
	opAttributes  = "attributes"
	opUpload      = "upload"
	opPutIfAbsent = "put_if_absent"
	opPutIfMatch  = "put_if_match"
	opDelete      = "delete"
)

// metrics counts the operations on one bucket. One operation may be many requests.
type metrics struct {
	operations  *prometheus.CounterVec
	failures    *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	transferred *prometheus.HistogramVec
	lastUpload  prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, bucket string) *metrics {
	f := promauto.With(reg)
	labels := prometheus.Labels{"bucket": bucket}
	m := &metrics{
		operations: f.NewCounterVec(prometheus.CounterOpts{
			Name: "varve_objstore_bucket_operations_total", ConstLabels: labels,
			Help: "Operations on the bucket that were begun.",
		}, []string{"operation"}),
		failures: f.NewCounterVec(prometheus.CounterOpts{
			Name: "varve_objstore_bucket_operation_failures_total", ConstLabels: labels,
			Help: "Operations on the bucket that ended in an error; absent objects, lost races of conditional writes and cancelled calls are none.",
		}, []string{"operation"}),
		duration: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "varve_objstore_bucket_operation_duration_seconds", ConstLabels: labels,
			Help:    "Duration of the operations that succeeded: of reads until the reader was closed, of listings with what was done per entry.",
			Buckets: []float64{0.001, 0.01, 0.1, 0.3, 0.6, 1, 3, 6, 9, 20, 30, 60, 90, 120},

			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
		}, []string{"operation"}),
		transferred: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "varve_objstore_bucket_operation_transferred_bytes", ConstLabels: labels,
			Help:    "Bytes that a successful operation read or wrote.",
			Buckets: prometheus.ExponentialBuckets(32<<10, 2, 16), // 32 KiB to 1 GiB

			NativeHistogramBucketFactor: 2, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
		}, []string{"operation"}),
		lastUpload: f.NewGauge(prometheus.GaugeOpts{
			Name: "varve_objstore_bucket_last_successful_upload_time", ConstLabels: labels,
			Help: "Unix time in seconds of the last object that was written.",
		}),
	}
	for _, op := range []string{
		opIter, opList, opGet, opGetRange, opGetVersion, opExists, opAttributes, opUpload, opPutIfAbsent, opPutIfMatch, opDelete,
	} {
		m.operations.WithLabelValues(op)
		m.failures.WithLabelValues(op)
		m.duration.WithLabelValues(op)
	}
	for _, op := range []string{opGet, opGetRange, opGetVersion, opUpload, opPutIfAbsent, opPutIfMatch} {
		m.transferred.WithLabelValues(op)
	}
	return m
}
