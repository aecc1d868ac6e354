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
	// Stream is the text of the stream that the job works on; it is empty where
	// no meta.json tells it.
	Stream() string
	// Blocks are the blocks that the job reads, marks or removes. No other job of
	// the plan has any of them.
	Blocks() []ulid.ULID
}

// Compact asks for one block in place of several of its group, or for several shards
// in place of them. The sources retire when all are complete.
type Compact struct {
	Group   block.GroupKey
	Sources []*block.Meta // at least two, or one that is split; in a set's order
	// Range spans the sources; it is the new block's.
	Range block.TimeRange
	// Into are the shards that are made, mostly one with all series of the group. Where the
	// series are split it has those that are not there yet.
	Into []block.Shard
	// Beside are the coarser resolutions that the new block could be downsampled to at
	// once, each from the one before, which costs less while its samples are at hand. They
	// are made as the jobs Downsample would make them, and those come where this did not work.
	Beside []block.Resolution
	// Reason is for people: an overlap, or which range is complete.
	Reason string
}

// Downsample asks for the same samples at the next coarser resolution.
type Downsample struct {
	Group      block.GroupKey // of the source
	Source     *block.Meta
	Resolution block.Resolution // of the new block
	// Reason is for people: why the block is not left to become longer first.
	Reason string
}

// Retire asks for a deletion mark on a block whose samples are all in another:
// an earlier run ended between writing that one and marking this.
type Retire struct {
	Group  block.GroupKey
	ID, By ulid.ULID
}

// Expire asks for a deletion mark on a block past its retention.
type Expire struct {
	Group  block.GroupKey
	Block  *block.Meta
	Reason string
}

// Delete asks to remove a block whose deletion mark is old enough.
type Delete struct {
	Group block.GroupKey // zero for what is left of a block without meta.json
	ID    ulid.ULID
}

// Clean asks to remove what an upload left that never came to its end.
type Clean struct{ ID ulid.ULID }

// Stream is that of the sources.
func (j Compact) Stream() string { return j.Group.Stream }

// Stream is that of the source.
func (j Downsample) Stream() string { return j.Group.Stream }

// Stream is that of both blocks.
func (j Retire) Stream() string { return j.Group.Stream }

// Stream is that of the block.
func (j Expire) Stream() string { return j.Group.Stream }

// Stream is that of the block, if it has a meta.json.
func (j Delete) Stream() string { return j.Group.Stream }

// Stream is empty: nobody knows it.
func (j Clean) Stream() string { return "" }

// Blocks are the sources.
func (j Compact) Blocks() []ulid.ULID {
	ids := make([]ulid.ULID, len(j.Sources))
	for i, m := range j.Sources {
		ids[i] = m.ULID
	}
	return ids
}

// Blocks is the source.
func (j Downsample) Blocks() []ulid.ULID { return []ulid.ULID{j.Source.ULID} }

// Blocks is the block that is marked.
func (j Retire) Blocks() []ulid.ULID { return []ulid.ULID{j.ID} }

// Blocks is the block that is marked.
func (j Expire) Blocks() []ulid.ULID { return []ulid.ULID{j.Block.ULID} }

// Blocks is the block that is removed.
func (j Delete) Blocks() []ulid.ULID { return []ulid.ULID{j.ID} }

// Blocks is the directory that is removed.
func (j Clean) Blocks() []ulid.ULID { return []ulid.ULID{j.ID} }

func (j Compact) String() string {
	ids := make([]string, len(j.Sources))
	for i, m := range j.Sources {
		ids[i] = m.ULID.String()
	}
	reason := []string{j.Reason}
	for _, r := range j.Beside {
		reason = append(reason, "and "+r.String())
	}
	return fmt.Sprintf("compact %s %s: %s", j.Group, strings.Join(ids, " "), strings.Join(reason, ", "))
}

func (j Downsample) String() string {
	return fmt.Sprintf("downsample %s to %s: %s", j.Source.ULID, j.Resolution, j.Reason)
}
func (j Retire) String() string { return fmt.Sprintf("retire %s, held by %s", j.ID, j.By) }
func (j Expire) String() string { return fmt.Sprintf("expire %s: %s", j.Block.ULID, j.Reason) }
func (j Delete) String() string { return fmt.Sprintf("delete %s", j.ID) }
func (j Clean) String() string  { return fmt.Sprintf("clean %s", j.ID) }
