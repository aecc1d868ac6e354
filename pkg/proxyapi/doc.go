// Package proxyapi holds the services that stand beside the Store API: rules,
// targets, metric metadata, exemplars and TSDB statistics of the Prometheis
// behind an endpoint. It has their contracts in plain Go, with the JSON form of
// Prometheus' HTTP API, a gRPC client and server, and the pure functions by which
// a querier makes one answer of many.
//
// It stands on floor 5 and imports nothing of ours but the generated messages,
// which stay inside. They are wire-compatible with thanos.Rules, thanos.Targets,
// thanos.Metadata, thanos.Exemplars and thanos.Status (docs/format/wire.md).
package proxyapi
