// Package series is the one currency of a Varve process: a series with its
// labels, the replica it came from and its encoded chunks, in sorted sets that
// merge, dedup, store and query all speak.
//
// It stands on floor 2. Protobuf exists only in the wire packages; Prometheus'
// storage interfaces only at the engine, through the adapters here.
package series
