package block

import (
	"crypto/sha256"
	"encoding/json"

	"github.com/oklog/ulid/v2"
)

// writerVersion changes whenever the same job would write other bytes, so that
// two versions of the program never write to the same objects.
const writerVersion = 4

// Output is all that decides what a compactor job writes. Equal outputs have
// equal IDs, so a job that is repeated after a crash, or by a second compactor,
// ends in the same block.
type Output struct {
	Kind    string      // "compact", "downsample"
	Sources []ulid.ULID // the blocks that are read, in any order
	// Params is the text of every setting that changes the bytes written.
	Params     string
	Resolution Resolution
	// Shard tells outputs of one job apart that split its series; empty for a whole block.
	Shard string
	// Attempt rises when what an earlier attempt left in the bucket cannot be continued.
	Attempt int
}

// ID is the output's ULID: the time of the newest source, then a hash of everything else.
func (o Output) ID() ulid.ULID {
	o.Sources = SortedIDs(o.Sources)
	// Strings, integers and ULIDs: JSON can say them all, each in one way.
	data, _ := json.Marshal(struct {
		Writer int
		Output
	}{writerVersion, o})
	sum := sha256.Sum256(data)

	var id ulid.ULID
	for _, s := range o.Sources {
		if s.Time() > id.Time() {
			_ = id.SetTime(s.Time()) // a time taken from a ULID fits
		}
	}
	copy(id[6:], sum[:]) // the 80 bits behind the 48 of the time
	return id
}
