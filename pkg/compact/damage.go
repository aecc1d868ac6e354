package compact

import (
	"errors"
	"fmt"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/panics"
)

// reason is what is wrong with a block, for machines: it stands in marks, metrics
// and answers. What it means and what to do is in reasons.
type reason string

// The reasons why this compactor sets blocks aside.
const (
	incomplete      reason = "incomplete"
	indexUnreadable reason = "index-unreadable"
	indexChecksum   reason = "index-checksum"
	chunkUnreadable reason = "chunk-unreadable"
	chunkChecksum   reason = "chunk-checksum"
	seriesOrder     reason = "series-order"
	wrongTimes      reason = "wrong-times"
	tooLarge        reason = "index-size-exceeding" // Thanos' word
	// metaUnreadable is no mark's: a block whose meta.json cannot be used is one of no stream.
	metaUnreadable reason = "meta-unreadable"
)

// reasons says what each reason means.
func reasons() map[reason]string {
	return map[reason]string{
		incomplete:      "a file is missing, or has another length than meta.json says",
		indexUnreadable: "the index cannot be parsed",
		indexChecksum:   "a checksum of the index is wrong",
		chunkUnreadable: "a chunk cannot be found or decoded",
		chunkChecksum:   "the checksum of a chunk is wrong",
		seriesOrder:     "series are not in the order of their labels",
		wrongTimes:      "a chunk's samples are not where the index or meta.json says",
		tooLarge:        "merged with its neighbours it would be too large for one block",
		metaUnreadable:  "meta.json cannot be used",
	}
}

// damage is an error of a block's bytes. It is block.ErrCorrupt.
type damage struct {
	reason reason
	err    error
}

func (e *damage) Error() string        { return e.err.Error() }
func (e *damage) Unwrap() error        { return e.err }
func (e *damage) Is(target error) bool { return target == block.ErrCorrupt }

// damagedf says what is wrong with the bytes of a block.
func damagedf(r reason, format string, args ...any) error {
	return &damage{r, fmt.Errorf(format, args...)}
}

// inPart gives the damage in a part of a block its reason, unless it has a finer one.
// What makes the reading of one part panic is damage.
func inPart(r reason, err error) error {
	if (errors.Is(err, block.ErrCorrupt) || errors.Is(err, panics.Err)) && !errors.As(err, new(*damage)) {
		return &damage{r, err}
	}
	return err
}

// corruptError says that a block cannot be read; only that block is set aside.
type corruptError struct {
	id     ulid.ULID
	reason reason
	err    error
}

func (e *corruptError) Error() string { return fmt.Sprintf("read block %s: %v", e.id, e.err) }
func (e *corruptError) Unwrap() error { return e.err }

// inBlock names the block in an error, and blames the block if its bytes are to blame.
func inBlock(id ulid.ULID, err error) error {
	err = inPart(incomplete, err) // what has no reason is about the block's files
	if d, ok := errors.AsType[*damage](err); ok {
		return &corruptError{id, d.reason, err}
	}
	return fmt.Errorf("read block %s: %w", id, err)
}
