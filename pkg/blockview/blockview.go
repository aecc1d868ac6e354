// Package blockview answers block viewers: /api/v1/blocks as Thanos' components
// serve it, and beside the metadata what only a bucket's listing and marks tell.
//
// It stands on floor 4 and knows nothing of where the blocks come from.
package blockview

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/block"
)

// Blocks is what a viewer reads.
type Blocks struct {
	// Label is that by which a viewer groups; empty lets it choose.
	Label string `json:"label"`
	// Blocks are in the order of their external labels, or of their times.
	Blocks []*block.Meta `json:"blocks"`
	// RefreshedAt is when the bucket was listed; it is absent before the first time.
	RefreshedAt *time.Time `json:"refreshedAt,omitempty"`
	Err         string     `json:"err,omitempty"`
	// States tell what meta.json does not say of a block. Thanos has no such field.
	States map[ulid.ULID]State `json:"states,omitempty"`
}

// State is how things stand with a block in its bucket.
type State struct {
	Bytes int64 `json:"bytes"`
	// Marks are the block's, by the name of their object.
	Marks map[block.MarkKind]Mark `json:"marks,omitempty"`
	// SupersededBy is the block that holds all samples of this one.
	SupersededBy *ulid.ULID `json:"supersededBy,omitempty"`
}

// Mark is what a mark says.
type Mark struct {
	Reason  string    `json:"reason,omitempty"`
	Details string    `json:"details,omitempty"`
	At      time.Time `json:"at"`
}

// OfSet gives all blocks of a set with their states, those marked for deletion included.
func OfSet(set *block.Set) Blocks {
	b := Blocks{Blocks: make([]*block.Meta, 0, len(set.Blocks)), RefreshedAt: &set.Listed, States: make(map[ulid.ULID]State, len(set.Blocks))}
	live := block.Select(set.Blocks, func(e *block.Entry) bool { return e.Deletion == nil })
	hidden := block.Superseded(live)
	for _, e := range set.Blocks {
		b.Blocks = append(b.Blocks, e.Meta)
		s := State{Bytes: block.Size(e.Objects)}
		for _, m := range []*block.Mark{e.Deletion, e.NoCompact, e.NoDownsample} {
			if m == nil {
				continue
			}
			if s.Marks == nil {
				s.Marks = map[block.MarkKind]Mark{}
			}
			s.Marks[m.Kind] = Mark{m.Reason, m.Details, m.At().UTC()}
		}
		if by, ok := hidden[e.Meta.ULID]; ok {
			s.SupersededBy = &by
		}
		b.States[e.Meta.ULID] = s
	}
	return b
}

// Answer writes v as the data of a successful answer in the shape of Prometheus' HTTP
// API. The error is that of sending: there is nobody left to tell.
func Answer(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	err := json.NewEncoder(w).Encode(struct {
		Status string `json:"status"`
		Data   any    `json:"data"`
	}{"success", v})
	if err != nil {
		return fmt.Errorf("send the answer: %w", err)
	}
	return nil
}
