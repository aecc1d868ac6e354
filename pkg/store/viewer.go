package store

import (
	"net/http"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockview"
)

// ServeBlocks answers with the metadata of the blocks that are answered for, as JSON,
// by external labels, then by time.
func (g *Gateway) ServeBlocks(w http.ResponseWriter, _ *http.Request) {
	a := blockview.Blocks{Blocks: []*block.Meta{}}
	g.mu.Lock()
	set, err := g.current()
	g.mu.Unlock()
	if err != nil {
		a.Err = err.Error()
	} else {
		a.RefreshedAt = &set.listed
		for _, st := range set.streams {
			for _, b := range st.blocks {
				a.Blocks = append(a.Blocks, b.meta)
			}
		}
	}
	if err := blockview.Answer(w, a); err != nil {
		g.log.Debug("blocks not sent", "err", err)
	}
}
