// Package sidecar is the engine beside one Prometheus: it ships the blocks that
// Prometheus cuts to a bucket, answers the Store API from what Prometheus holds,
// and passes its rules, targets, metadata and exemplars on.
//
// Floor 6. Its parts do not know each other; cmd/sidecar joins them:
//
//   - Prometheus follows the state of the one Prometheus: up or not, external
//     labels, version, oldest sample. The others ask it first.
//   - Shipper ships blocks. A block is in the bucket completely or not at all,
//     whatever crashes; no block waits for another; nothing is shipped without
//     external labels.
//   - Store answers from remote read and the labels APIs in bounded memory. Series
//     come out in the order of their final labels while they stream.
//   - Proxy answers the other services.
//
// docs/design/0009-sidecar.md has the decisions.
package sidecar
