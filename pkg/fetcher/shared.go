package fetcher

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/varve-io/varve/pkg/block"
)

// shared keeps what thousands of blocks have in common once: the names of their
// objects and their external labels. It is safe for concurrent use.
type shared struct {
	mu     sync.Mutex
	names  map[string]string
	labels map[string]map[string]string // by all names and values
}

// maxShared bounds either map, whatever a bucket holds; beyond, nothing more is shared.
const maxShared = 10_000

func newShared() *shared {
	return &shared{names: map[string]string{}, labels: map[string]map[string]string{}}
}

// name gives an equal string that is not part of a longer one.
func (s *shared) name(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.locked(name)
}

func (s *shared) locked(name string) string {
	if same, ok := s.names[name]; ok {
		return same
	}
	name = strings.Clone(name)
	if len(s.names) < maxShared {
		s.names[name] = name
	}
	return name
}

// meta lets m share what it can. Afterwards nobody may change it.
func (s *shared) meta(m *block.Meta) {
	var key strings.Builder
	for _, name := range slices.Sorted(maps.Keys(m.Thanos.Labels)) {
		key.WriteString(name + "\xff" + m.Thanos.Labels[name] + "\xff")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if same, ok := s.labels[key.String()]; ok {
		m.Thanos.Labels = same
	} else if len(s.labels) < maxShared {
		s.labels[key.String()] = m.Thanos.Labels
	}
	for i, name := range m.Thanos.SegmentFiles {
		m.Thanos.SegmentFiles[i] = s.locked(name)
	}
	for i := range m.Thanos.Files {
		m.Thanos.Files[i].RelPath = s.locked(m.Thanos.Files[i].RelPath)
	}
	m.Thanos.Source = block.Source(s.locked(string(m.Thanos.Source)))
}
