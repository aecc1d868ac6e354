// Package store is the store gateway: it answers Store API requests from the
// blocks of one bucket.
//
// It stands on floor 6. It is handed the set of blocks (Sync) and reads the
// bucket, never writes to it. Indexes are fetched whole when a request first
// needs them and kept as files in the data directory, which may be deleted while
// the process is stopped. Chunks are read by exact ranges, in batches, so that a
// request holds a bounded number of bytes however large its answer is.
//
// A block that cannot be read never ends an answer that may be partial: a
// warning names the block and the range that is missing.
package store
