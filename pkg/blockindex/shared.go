package blockindex

import (
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"
)

// SharedLabels keeps label sets that several readers came upon lately, so that a series
// which many blocks have takes the memory of one, and is told to be the same at a glance.
// It is safe for concurrent use. A nil SharedLabels keeps nothing.
type SharedLabels struct {
	sets [sharedSets]atomic.Pointer[labels.Labels]
}

// sharedSets is how many are kept at most: some hundred series of each of many blocks,
// which are read side by side.
const sharedSets = 8 << 10

// keep returns labels equal to those of b, as they are kept. It keeps those that it did
// not know; scratch is overwritten.
func (s *SharedLabels) keep(b *labels.ScratchBuilder, scratch *labels.Labels) labels.Labels {
	if s == nil {
		return b.Labels()
	}
	b.Overwrite(scratch)
	at := &s.sets[scratch.Hash()%sharedSets]
	if kept := at.Load(); kept != nil && labels.Equal(*kept, *scratch) {
		return *kept
	}
	fresh := scratch.Copy()
	at.Store(&fresh)
	return fresh
}
