// Package harness starts the real processes that the end-to-end tests and the
// demo run against, and takes them down again: Varve's binaries, Prometheus and
// an S3 server, all on free ports of the loopback address, no container needed.
//
// A Cluster owns a directory and every process started in it. Processes are
// ended through their handles, youngest first. Each writes standard output and
// error into one log file; a test that did not pass prints the end of each.
//
// The package talks to what it starts over HTTP and gRPC alone and knows nothing
// of the product's packages. It does not import testing, so that a program can
// use it as well: ForTest accepts anything shaped like a *testing.T.
package harness
