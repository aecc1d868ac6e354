// Package chunkcodec turns the bytes of a chunk into samples and back, for
// every encoding that Prometheus 3.15 can write.
//
// It stands on floor 2. Whole chunks are decoded into, and encoded from, arrays
// that the caller owns; samples and bytes are those of Prometheus' own codec,
// which the tests run beside ours (docs/design/0012). A Decoder and an
// Encoder that serve again allocate nothing; the function Decode gives histograms
// memory of their own, because they may outlive the arrays.
//
// Bytes come from outside: whatever they say, nothing here panics or reads
// beyond them, and what is allocated is bounded by the length of the input.
// Whoever wants an iterator opens chunks through Open, because Prometheus' own
// decoders trust the header of a chunk.
package chunkcodec
