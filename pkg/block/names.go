package block

import (
	"fmt"
	"strings"

	"github.com/oklog/ulid/v2"
)

// Names inside a block's directory, on disk and in the bucket.
const (
	MetaFile  = "meta.json"
	IndexFile = "index"
	ChunksDir = "chunks"
)

// MarkKinds are all kinds of marks.
func MarkKinds() []MarkKind { return []MarkKind{DeletionMark, NoCompactMark, NoDownsampleMark} }

// ObjectName is the name in the bucket of a block's object, given relative to the block's directory.
func ObjectName(id ulid.ULID, rel string) string { return id.String() + "/" + rel }

// MetaName is the object whose presence makes a block complete.
func MetaName(id ulid.ULID) string { return ObjectName(id, MetaFile) }

// IndexName is the object that holds a block's index.
func IndexName(id ulid.ULID) string { return ObjectName(id, IndexFile) }

// SegmentFile is the name of a block's n-th chunk segment, counted from one, relative to the block's directory.
func SegmentFile(n int) string { return fmt.Sprintf("%s/%06d", ChunksDir, n) }

// SegmentName is the object that holds a block's n-th chunk segment, counted from one.
func SegmentName(id ulid.ULID, n int) string { return ObjectName(id, SegmentFile(n)) }

// MarkName is the object that holds a block's mark of the given kind.
func MarkName(id ulid.ULID, kind MarkKind) string { return ObjectName(id, string(kind)) }

// ParseName splits an object's name into the block it belongs to and its name
// inside the block's directory. Directory markers ("<ULID>/") give an empty
// relative name. ok is false for whatever is not part of a block.
func ParseName(name string) (id ulid.ULID, rel string, ok bool) {
	dir, rel, ok := strings.Cut(name, "/")
	if !ok {
		return ulid.ULID{}, "", false
	}
	id, err := ulid.ParseStrict(dir)
	// Lower case decodes to the same ULID but is another directory.
	if err != nil || id.String() != dir {
		return ulid.ULID{}, "", false
	}
	return id, rel, true
}
