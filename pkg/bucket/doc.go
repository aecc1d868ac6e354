// Package bucket gives names to bytes: it opens object storage from objstore's
// YAML, and says of it what objstore's interface cannot.
//
// Floor 1: it imports nothing of ours but its own s3, and knows nothing of
// blocks, labels or samples.
//
// The contract is objstore.Bucket, made exact where its providers disagree:
//
//   - Get and GetRange return a reader of known size (objstore.ObjectSizer).
//     GetRange takes a length of -1 for "up to the end", cuts a range that passes
//     the end, and returns an empty reader when it starts at or past the end.
//     A negative offset and any other length below 1 are errors.
//   - Upload replaces an object atomically: readers see the old or the new one,
//     never a part. Memory in use is bounded, whatever the length of the stream.
//   - Delete of an absent object succeeds.
//   - Iter takes a directory with or without its trailing slash and yields, in
//     ascending byte order, the objects in it and, ending in a slash, its
//     directories; recursively only objects. The directory itself is not yielded.
//   - An error carries one of the marks ErrNotFound, ErrAccessDenied,
//     ErrThrottled, ErrTransient, ErrExists or ErrChanged, or none.
//     What a client repeats by itself meanwhile, WithThrottled tells as far as it knows.
//
// Three capabilities go beyond it: Lister (one flat listing from a name on),
// Versioned (conditional writes), and batch deletion (DeleteAll). Every bucket that
// Open returns is a Lister; S3, FILESYSTEM and memory are Versioned. GCS and
// AZURE, through objstore, are not: they can have only one compactor.
// The wrappers for prefix and metrics keep the capabilities of what they wrap.
//
// Package buckettest holds the acceptance suite.
package bucket
