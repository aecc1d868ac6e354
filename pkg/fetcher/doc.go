// Package fetcher looks at a bucket and says what it holds: one flat listing,
// and the meta.json and marks that are new since the last look, become a
// block.Set.
//
// Floor 4: it reads buckets and knows blocks, but no policy: marked, fresh and
// superseded blocks are all in the set, and the caller selects. The invariants:
//
//   - A set is the state of one listing, begun after Fetch was called. A listing
//     that does not come to its end gives an error and no set, never a smaller set.
//   - What is wrong with one block is said of that block alone (block.Unreadable).
//   - An object is read once for each version of it, as told by ETag, size and time,
//     also across restarts, as long as the local journal is there.
//   - n objects are listed in at most ceil(n/1000)+4 requests.
package fetcher
