// Package querytest runs PromQL over the whole query path: what is loaded is
// cut into real blocks, uploaded to a bucket in memory, served by store gateways
// behind gRPC, fanned out to, merged and deduplicated.
//
// It may import any floor and is imported by tests alone. Storage carries the
// upstream PromQL suite; Run adds lines for stores, replicas, gaps and
// resolutions to upstream's script language.
package querytest
