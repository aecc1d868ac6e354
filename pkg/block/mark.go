package block

import "github.com/oklog/ulid/v2"

// MarkKind tells the marks apart; its text is the object's name in the block's directory.
type MarkKind string

// The marks that a block can carry.
const (
	DeletionMark     MarkKind = "deletion-mark.json"
	NoCompactMark    MarkKind = "no-compact-mark.json"
	NoDownsampleMark MarkKind = "no-downsample-mark.json"
)

// Mark is a small object beside a block that asks compactors and readers to
// treat it in a special way. The JSON keys depend on the kind; see EncodeMark and ParseMark.
type Mark struct {
	Kind    MarkKind
	ID      ulid.ULID
	Details string
	// Reason is machine readable; deletion marks have none.
	Reason string
	// Time is when the mark was set, in Unix seconds.
	Time int64
}
