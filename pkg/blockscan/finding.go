package blockscan

import (
	"fmt"

	"github.com/varve-io/varve/pkg/block"
)

// Kind tells findings apart, for people as well as for scripts.
type Kind string

// What can be wrong with a block.
const (
	Missing   Kind = "missing"   // a file is not there
	Size      Kind = "size"      // a file has another size than meta.json says
	Magic     Kind = "magic"     // a file begins as no file of its kind does
	Checksum  Kind = "checksum"  // bytes differ from what was written
	Truncated Kind = "truncated" // a file ends inside an entry, or a reference leads beyond its end
	Malformed Kind = "malformed" // the checksum is right and the content makes no sense
	Order     Kind = "order"     // series, labels, chunks or samples are out of order
	Duplicate Kind = "duplicate" // a series comes twice
	Overlap   Kind = "overlap"   // chunks of one series overlap
	Outside   Kind = "outside"   // samples lie outside the block's time range, or that of their chunk
	Postings  Kind = "postings"  // postings and series contradict each other
	Count     Kind = "count"     // meta.json counts other than there is
)

// Whole stands for an offset where a finding is about a file as a whole.
const Whole int64 = -1

// Finding is one thing that is wrong with a block.
type Finding struct {
	Kind Kind `json:"kind"`
	// File is the name relative to the block's directory, Offset the position in it.
	File   string `json:"file"`
	Offset int64  `json:"offset"`
	Detail string `json:"detail"`
}

// String names the place, then what is wrong there.
func (f Finding) String() string {
	if f.Offset == Whole {
		return fmt.Sprintf("%s: %s: %s", f.File, f.Kind, f.Detail)
	}
	return fmt.Sprintf("%s at %d: %s: %s", f.File, f.Offset, f.Kind, f.Detail)
}

// Loss is a span of a series whose samples cannot be read.
type Loss struct {
	block.TimeRange
	// File and Offset are where the samples should have been.
	File   string
	Offset int64
}
