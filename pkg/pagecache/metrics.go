package pagecache

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	needed  prometheus.Counter
	memory  prometheus.Counter
	disk    prometheus.Counter
	remote  prometheus.Counter
	shared  prometheus.Counter
	fetched prometheus.Counter

	requests  prometheus.Counter
	retries   prometheus.Counter
	throttled prometheus.Counter
	hedges    prometheus.Counter
	hedgesWon prometheus.Counter

	concurrency prometheus.Gauge
	firstByte   prometheus.Gauge
	bandwidth   prometheus.Gauge
	memoryBytes prometheus.Gauge
	memoryPages prometheus.Gauge

	remoteCorrupt prometheus.Counter

	diskUp        prometheus.Gauge
	diskBytes     prometheus.Gauge
	diskRecords   prometheus.Gauge
	diskWritten   prometheus.Counter
	diskSkipped   prometheus.Counter
	diskCorrupt   prometheus.Counter
	diskErrors    prometheus.Counter
	diskEvictions prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "varve_pagecache_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "varve_pagecache_" + name, Help: help})
	}
	served := f.NewCounterVec(prometheus.CounterOpts{
		Name: "varve_pagecache_served_bytes_total",
		Help: "Bytes that were wanted and not asked of the bucket, by where they were: memory, disk, a cache that processes share (remote), or under way for another reader (shared).",
	}, []string{"from"})
	return &metrics{
		needed:  counter("needed_bytes_total", "Bytes that were wanted."),
		memory:  served.WithLabelValues("memory"),
		disk:    served.WithLabelValues("disk"),
		remote:  served.WithLabelValues("remote"),
		shared:  served.WithLabelValues("shared"),
		fetched: counter("fetched_bytes_total", "Bytes that came from the bucket."),

		requests:  counter("requests_total", "Range requests to the bucket, repeated and hedged ones included."),
		retries:   counter("retries_total", "Requests repeated after an error that passes."),
		throttled: counter("throttled_total", "Requests that the bucket refused because of their rate."),
		hedges:    counter("hedges_total", "Second requests for what is late."),
		hedgesWon: counter("hedges_won_total", "Second requests that were answered first."),

		concurrency: gauge("concurrency_limit", "Requests in flight that are allowed now; throttling lowers it."),
		firstByte:   gauge("first_byte_seconds", "Time to the first byte of a request, moving average."),
		bandwidth:   gauge("bandwidth_bytes_per_second", "Bandwidth of one connection after its first byte, moving average."),
		memoryBytes: gauge("memory_bytes", "Memory of cached pages, bookkeeping included."),
		memoryPages: gauge("memory_pages", "Pages in memory."),

		remoteCorrupt: counter("remote_corrupt_total", "Records of a remote cache that were not what was written, and were dropped."),

		diskUp:        gauge("disk_up", "1 if pages are kept on local disk, 0 if they should be and cannot."),
		diskBytes:     gauge("disk_bytes", "Bytes of the files of cached pages."),
		diskRecords:   gauge("disk_records", "Records of pages on disk."),
		diskWritten:   counter("disk_written_bytes_total", "Bytes written to disk, those of records that move included."),
		diskSkipped:   counter("disk_skipped_total", "Records not written because too many waited."),
		diskCorrupt:   counter("disk_corrupt_total", "Records and files that were not what was written, and were dropped."),
		diskErrors:    counter("disk_errors_total", "Writes to disk that ended in an error."),
		diskEvictions: counter("disk_evictions_total", "Files removed to make room."),
	}
}

// hit books n bytes that were in memory.
func (m *metrics) hit(u *Usage, n int64) {
	m.needed.Add(float64(n))
	m.memory.Add(float64(n))
	if u != nil {
		u.Ranges.Add(1)
		u.Needed.Add(n)
		u.FromMemory.Add(n)
	}
}
