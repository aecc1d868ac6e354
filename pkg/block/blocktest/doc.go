// Package blocktest builds real TSDB blocks for tests, from promqltest's load
// text or from explicit samples, through Prometheus' own head and block writer,
// and reads them back.
//
// It may import any floor and is imported by tests alone.
package blocktest
