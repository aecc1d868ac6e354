package compact

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/block"
)

// Neighbour is a trace that another family's compactor, Thanos', left in a stream
// while this process ran. Both mean the same by marks and sources, so nothing is
// lost, but work is done twice, and Thanos halts on overlaps that Varve merges.
type Neighbour struct {
	Stream string    `json:"stream"`
	Block  ulid.ULID `json:"block"`
	// What it did, and when by its own clock.
	What string    `json:"what"`
	At   time.Time `json:"at"`
}

// thanosDetails are what Thanos' compactor, and nobody else, writes into deletion marks.
func thanosDetails() []string {
	return []string{"source of compacted block", "outdated block", "block exceeding retention of ", "source of repaired block"}
}

// neighbours finds the traces of the set that are not older than since, the latest
// of each stream, the latest stream first.
func neighbours(set *block.Set, since time.Time, replicaLabels []string) []Neighbour {
	latest := map[string]Neighbour{}
	note := func(m *block.Meta, what string, at time.Time) {
		stream := m.Group(replicaLabels).Stream
		if at.Before(since.Truncate(time.Second)) || !at.After(latest[stream].At) {
			return
		}
		latest[stream] = Neighbour{stream, m.ULID, what, at.UTC()}
	}
	for _, e := range set.Blocks {
		if d := e.Deletion; d != nil && slices.ContainsFunc(thanosDetails(), func(s string) bool { return strings.HasPrefix(d.Details, s) }) {
			note(e.Meta, "marked it for deletion: "+d.Details, d.At())
		}
		if e.Meta.Thanos.Source == block.SourceCompactor && !named(e.Meta) {
			note(e.Meta, "wrote it", ulid.Time(e.Meta.ULID.Time()))
		}
	}
	list := make([]Neighbour, 0, len(latest))
	for _, n := range latest {
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b Neighbour) int { return cmp.Or(b.At.Compare(a.At), strings.Compare(a.Stream, b.Stream)) })
	return list
}

// named reports whether a block has a name as block.Output gives it, with the time
// of its newest source. The others are named after the time at which they were written.
func named(m *block.Meta) bool {
	newest := uint64(0)
	for _, id := range m.Origin() {
		newest = max(newest, id.Time())
	}
	for _, p := range m.Compaction.Parents {
		newest = max(newest, p.ULID.Time())
	}
	return m.ULID.Time() <= newest
}

// remedyNeighbour says what to do about them.
const remedyNeighbour = "stop one of the two compactors; both on one stream do all work twice, and Thanos may halt"

// aliens remembers who was seen.
type aliens struct{ seen []Neighbour }

// see adds what was found, and gives what was not known of its stream before.
func (a *aliens) see(found []Neighbour) (fresh []Neighbour) {
	for _, n := range found {
		i := slices.IndexFunc(a.seen, func(o Neighbour) bool { return o.Stream == n.Stream })
		switch {
		case i < 0:
			a.seen = append(a.seen, n)
			fresh = append(fresh, n)
		case n.At.After(a.seen[i].At):
			a.seen[i] = n
		}
	}
	return fresh
}
