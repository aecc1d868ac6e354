// Package promapi is the HTTP face of the querier: Prometheus' HTTP API v1, as
// Grafana and everybody else calls it, with the parameters that Thanos added.
//
// It stands on floor 7: HTTP parameters in, query's engine, JSON out, nothing
// else. Answers are Prometheus' byte for byte where Prometheus has the endpoint
// (docs/query-api.md).
package promapi
