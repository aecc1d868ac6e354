package query

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/util/annotations"

	"github.com/varve-io/varve/pkg/block"
)

// served records which resolutions answered a query, and for which time. It is
// safe for concurrent use.
type served struct {
	mu    sync.Mutex
	spans map[block.Resolution]span
	// misread is set when coarse data met a function that needs the rewritten expression.
	misread bool
	// losses are what functions lost over coarse data, each said once.
	losses []string
}

// lose notes what a function loses over coarse data.
func (s *served) lose(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.losses, what) {
		s.losses = append(s.losses, what)
	}
}

func (s *served) add(r block.Resolution, sp span, misread bool) {
	if sp.from > sp.to {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spans == nil {
		s.spans = map[block.Resolution]span{}
	}
	if known, ok := s.spans[r]; ok {
		sp = span{min(sp.from, known.from), max(sp.to, known.to)}
	}
	s.spans[r] = sp
	s.misread = s.misread || misread && r != block.Raw
}

// infos are a line that says what served, if anything but raw data did, and one
// for each function that loses more than time below a window by it.
func (s *served) infos() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, raw := s.spans[block.Raw]
	if len(s.spans) == 0 || raw && len(s.spans) == 1 {
		return nil
	}
	var parts []string
	for _, r := range []block.Resolution{block.Raw, block.FiveMin, block.OneHour} {
		if sp, ok := s.spans[r]; ok {
			parts = append(parts, fmt.Sprintf("%s from %s to %s", r, formatMillis(sp.from), formatMillis(sp.to)))
		}
	}
	infos := []error{fmt.Errorf("%w: downsampled data answered: %s", annotations.PromQLInfo, strings.Join(parts, ", "))}
	for _, l := range s.losses {
		infos = append(infos, fmt.Errorf("%w: %s", annotations.PromQLInfo, l))
	}
	return infos
}

func formatMillis(t int64) string { return time.UnixMilli(t).UTC().Format(time.RFC3339) }
