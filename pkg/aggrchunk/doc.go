// Package aggrchunk is the chunk format of downsampled series: up to five
// sub-chunks (count, sum, min, max, counter) with one sample per window, held
// as one payload under the encoding byte 0xff.
//
// It stands on floor 2. The bytes are those of Thanos' downsampled blocks
// (docs/format/aggregate-chunk.md); outside data never panics.
package aggrchunk
