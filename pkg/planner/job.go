package planner

import (
	"fmt"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/block"
)

// Job is one idempotent piece of work. It is one of Compact, Downsample, Retire,
// Expire, Delete and Clean, and no other type.
type Job interface {
	fmt.Stringer // for logs
	isJob()
}

// Compact asks for one block in place of several of its group. The sources
// retire when it is complete.
type Compact struct {
	Group   block.GroupKey
	Sources []*block.Meta // at least two, in a set's order
	// Range spans the sources; it is the new block's.
	Range block.TimeRange
	// Reason is for people: an overlap, or which range is complete.
	Reason string
}

// Downsample asks for the same samples at the next coarser resolution.
type Downsample struct {
	Source     *block.Meta
	Resolution block.Resolution // of the new block
}

// Retire asks for a deletion mark on a block whose samples are all in another:
// an earlier run ended between writing that one and marking this.
type Retire struct {
	ID ulid.ULID
	By ulid.ULID
}

// Expire asks for a deletion mark on a block past its retention.
type Expire struct {
	Block  *block.Meta
	Reason string
}

// Delete asks to remove a block whose deletion mark is old enough.
type Delete struct{ ID ulid.ULID }

// Clean asks to remove what an upload left that never came to its end.
type Clean struct{ ID ulid.ULID }

func (Compact) isJob()    {}
func (Downsample) isJob() {}
func (Retire) isJob()     {}
func (Expire) isJob()     {}
func (Delete) isJob()     {}
func (Clean) isJob()      {}

func (j Compact) String() string {
	ids := make([]string, len(j.Sources))
	for i, m := range j.Sources {
		ids[i] = m.ULID.String()
	}
	return fmt.Sprintf("compact %s %s: %s", j.Group, strings.Join(ids, " "), j.Reason)
}

func (j Downsample) String() string {
	return fmt.Sprintf("downsample %s to %s", j.Source.ULID, j.Resolution)
}
func (j Retire) String() string { return fmt.Sprintf("retire %s, held by %s", j.ID, j.By) }
func (j Expire) String() string { return fmt.Sprintf("expire %s: %s", j.Block.ULID, j.Reason) }
func (j Delete) String() string { return fmt.Sprintf("delete %s", j.ID) }
func (j Clean) String() string  { return fmt.Sprintf("clean %s", j.ID) }
