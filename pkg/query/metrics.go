package query

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type fanoutMetrics struct {
	asked, silent, missing prometheus.Counter
	bytes                  prometheus.Counter
}

func newFanoutMetrics(reg prometheus.Registerer) *fanoutMetrics {
	f := promauto.With(reg)
	return &fanoutMetrics{
		asked:   f.NewCounter(prometheus.CounterOpts{Name: "varve_query_endpoint_requests_total", Help: "Requests sent to endpoints on behalf of selections."}),
		silent:  f.NewCounter(prometheus.CounterOpts{Name: "varve_query_endpoint_failures_total", Help: "Requests to endpoints that ended in an error or without an answer in time."}),
		missing: f.NewCounter(prometheus.CounterOpts{Name: "varve_query_incomplete_selections_total", Help: "Selections that lacked the data of an endpoint."}),
		bytes:   f.NewCounter(prometheus.CounterOpts{Name: "varve_query_received_bytes_total", Help: "Bytes of series received from endpoints."}),
	}
}

type endpointMetrics struct {
	endpoints    *prometheus.GaugeVec
	dnsLookups   prometheus.Counter
	dnsFailures  prometheus.Counter
	infoFailures prometheus.Counter
}

func newEndpointMetrics(reg prometheus.Registerer) *endpointMetrics {
	f := promauto.With(reg)
	return &endpointMetrics{
		endpoints:    f.NewGaugeVec(prometheus.GaugeOpts{Name: "varve_query_endpoints", Help: "Known endpoints by component and state: up or missing."}, []string{"component", "state"}),
		dnsLookups:   f.NewCounter(prometheus.CounterOpts{Name: "varve_query_endpoints_dns_lookups_total", Help: "DNS look-ups of endpoint addresses."}),
		dnsFailures:  f.NewCounter(prometheus.CounterOpts{Name: "varve_query_endpoints_dns_failures_total", Help: "DNS look-ups without an answer; the last good answer stays in use."}),
		infoFailures: f.NewCounter(prometheus.CounterOpts{Name: "varve_query_endpoint_info_failures_total", Help: "Info calls that ended in an error."}),
	}
}

type engineMetrics struct {
	inFlight  prometheus.Gauge
	rewritten prometheus.Counter
	limited   prometheus.Counter
}

func newEngineMetrics(reg prometheus.Registerer, o Options, budget *Budget) *engineMetrics {
	f := promauto.With(reg)
	f.NewGauge(prometheus.GaugeOpts{Name: "varve_query_concurrent_queries_max", Help: "Queries evaluated at once at most."}).Set(float64(o.MaxConcurrent))
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "varve_query_held_bytes", Help: "Bytes of series that running queries hold."},
		func() float64 { return float64(budget.Used()) })
	return &engineMetrics{
		inFlight:  f.NewGauge(prometheus.GaugeOpts{Name: "varve_query_concurrent_queries", Help: "Queries that wait or are evaluated now."}),
		rewritten: f.NewCounter(prometheus.CounterOpts{Name: "varve_query_coarse_evaluations_total", Help: "Evaluations of an expression rewritten for downsampled data."}),
		limited:   f.NewCounter(prometheus.CounterOpts{Name: "varve_query_limited_total", Help: "Queries ended by a limit."}),
	}
}
