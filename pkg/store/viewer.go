package store

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/varve-io/varve/pkg/block"
)

// blocksAnswer is what a block viewer reads, in the shape of Prometheus' HTTP API.
type blocksAnswer struct {
	Status string     `json:"status"`
	Data   blocksData `json:"data"`
}

type blocksData struct {
	// Blocks are those that are answered for, by external labels, then by time.
	Blocks []*block.Meta `json:"blocks"`
	// RefreshedAt is when the bucket was listed; it is absent before the first time.
	RefreshedAt *time.Time `json:"refreshedAt,omitempty"`
	Err         string     `json:"err,omitempty"`
}

// ServeBlocks answers with the metadata of the blocks that are answered for, as JSON.
func (g *Gateway) ServeBlocks(w http.ResponseWriter, _ *http.Request) {
	a := blocksAnswer{Status: "success", Data: blocksData{Blocks: []*block.Meta{}}}
	g.mu.Lock()
	set, err := g.current()
	g.mu.Unlock()
	if err != nil {
		a.Data.Err = err.Error()
	} else {
		a.Data.RefreshedAt = &set.listed
		for _, st := range set.streams {
			for _, b := range st.blocks {
				a.Data.Blocks = append(a.Data.Blocks, b.meta)
			}
		}
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(a); err != nil {
		g.log.Debug("blocks not sent", "err", err)
	}
}
