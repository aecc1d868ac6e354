// Command bench measures the store gateway over a real S3 server, and beside it
// another gateway of the same Store API where VARVE_PEER_THANOS names its binary.
//
// Between gateway and server stands a proxy that makes the server as far away as
// S3 is, counts what is asked of it and, on demand, breaks it. Every answer is
// compared with the truth, which the generator of the data knows; a number of an
// answer that is wrong is no number. Data are generated once, into -cache.
package main
