package query

import (
	"fmt"
	"slices"
	"sort"
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
	spans map[block.Resolution][]span // apart from each other, in the order of time
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
		s.spans = map[block.Resolution][]span{}
	}
	s.spans[r] = joinSpan(s.spans[r], sp)
	s.misread = s.misread || misread && r != block.Raw
}

// joinSpan adds a span to others, and makes one of those between which lies no more than an
// hour: series do not begin and end all at once.
func joinSpan(spans []span, sp span) []span {
	const apart = int64(block.OneHour)
	from := sort.Search(len(spans), func(i int) bool { return spans[i].to+apart >= sp.from })
	to := sort.Search(len(spans), func(i int) bool { return spans[i].from-apart > sp.to })
	if from < to {
		sp = span{min(sp.from, spans[from].from), max(sp.to, spans[to-1].to)}
	}
	return slices.Replace(spans, from, to, sp)
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
		if spans := s.spans[r]; len(spans) > 0 {
			parts = append(parts, r.String()+" "+formatSpans(spans))
		}
	}
	infos := []error{fmt.Errorf("%w: downsampled data answered: %s", annotations.PromQLInfo, strings.Join(parts, ", "))}
	for _, l := range s.losses {
		infos = append(infos, fmt.Errorf("%w: %s", annotations.PromQLInfo, l))
	}
	return infos
}

// formatSpans names the spans; of very many, which only odd data have, the first ones.
func formatSpans(spans []span) string {
	const most = 10
	var parts []string
	for _, sp := range spans[:min(most, len(spans))] {
		parts = append(parts, fmt.Sprintf("from %s to %s", formatMillis(sp.from), formatMillis(sp.to)))
	}
	if more := len(spans) - most; more > 0 {
		parts = append(parts, fmt.Sprintf("%d times more up to %s", more, formatMillis(spans[len(spans)-1].to)))
	}
	return strings.Join(parts, " and ")
}

func formatMillis(t int64) string { return time.UnixMilli(t).UTC().Format(time.RFC3339) }
