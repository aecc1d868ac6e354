package block

import (
	"time"

	"github.com/oklog/ulid/v2"
)

// Entry is a complete block of a bucket with its marks; absent marks are nil.
type Entry struct {
	Meta         *Meta
	Deletion     *Mark
	NoCompact    *Mark
	NoDownsample *Mark
	// Objects are the sizes in bytes of the block's objects by name relative to
	// the block's directory, from the listing ("index", "chunks/000001", …).
	Objects map[string]int64
	// ETags are the versions of index and chunk segments by the same names, as the listing
	// shows them: reads of another version are refused. They are left out where there are none.
	ETags map[string]string
	// Version is another one when the index or a chunk segment is written anew. It may be
	// empty where the set does not come from a listing.
	Version string
}

// Size is how many bytes objects have together.
func Size(objects map[string]int64) (sum int64) {
	for _, n := range objects {
		sum += n
	}
	return sum
}

// Partial is a block directory without meta.json: an upload or a deletion in progress, or what is left of one.
type Partial struct {
	ID ulid.ULID
	// LastModified is the time of the newest object below the directory.
	LastModified time.Time
	// Deletion is set when the block was marked before its meta.json went.
	Deletion *Mark
	Objects  map[string]int64
}

// Unreadable is a block whose meta.json exists but cannot be used.
type Unreadable struct {
	ID  ulid.ULID
	Err error
}

// Set is all that a bucket holds at one instant. It is immutable once handed out.
type Set struct {
	// Listed is when the look at the bucket began; what changed later is not in the set.
	Listed time.Time
	// Blocks are sorted by MinTime, then MaxTime, then ULID.
	Blocks     []*Entry
	Partial    []Partial
	Unreadable []Unreadable
}
