// Package block says what a block of metrics in a bucket is: its metadata
// (meta.json), its marks, the names of its objects, its resolution and its time
// range, and the set of all blocks of a bucket at one instant.
//
// It stands on floor 2: values only, no I/O and no clock. The formats are those
// of Prometheus' TSDB and of Thanos' bucket, written down in
// docs/format/bucket.md.
package block
