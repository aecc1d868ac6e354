// Package promclient talks to one Prometheus over HTTP: its state and
// configuration, its API as far as others are served from it, and remote read.
//
// Floor 5: it knows Prometheus' own types and nothing of ours. Answers of the
// API are bounded in size and read whole; remote read is a stream of which one
// frame is in memory at a time.
package promclient
