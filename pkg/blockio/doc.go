// Package blockio writes blocks to a bucket, from local files or while they are
// made, marks them, removes them and reads them, by range or to local disk, each in
// the only order that is safe at any crash.
//
// Floor 4: it knows buckets and blocks and decides nothing; what to upload or
// delete, and when, is the caller's. The invariants:
//
//   - meta.json is the last object written and the first deleted, so a block
//     without it is in progress or on its way out, and no reader looks at it.
//   - A deletion mark is the last object deleted, so a half-deleted block is known as one.
//   - Every operation can be repeated after a crash at any point and then ends in
//     the same objects. Nothing is cleaned up on the way out of an error.
//   - A block without external labels, and tombstones, never reach a bucket.
//
// docs/format/bucket.md describes the objects.
package blockio
