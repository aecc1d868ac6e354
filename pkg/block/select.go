package block

import (
	"cmp"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
)

// SortedIDs gives the distinct IDs in rising order; the argument stays as it is.
func SortedIDs(ids []ulid.ULID) []ulid.ULID {
	ids = slices.Clone(ids)
	slices.SortFunc(ids, ulid.ULID.Compare)
	return slices.Compact(ids)
}

// Sort brings entries into a set's order: by MinTime, then MaxTime, then ULID.
func Sort(entries []*Entry) {
	slices.SortFunc(entries, func(a, b *Entry) int {
		return cmp.Or(
			cmp.Compare(a.Meta.MinTime, b.Meta.MinTime),
			cmp.Compare(a.Meta.MaxTime, b.Meta.MaxTime),
			a.Meta.ULID.Compare(b.Meta.ULID))
	})
}

// Select gives the entries that keep accepts, in their order.
func Select(entries []*Entry, keep func(*Entry) bool) []*Entry {
	var kept []*Entry
	for _, e := range entries {
		if keep(e) {
			kept = append(kept, e)
		}
	}
	return kept
}

// Find gives the complete block with that ID, or nil.
func (s *Set) Find(id ulid.ULID) *Entry {
	for _, e := range s.Blocks {
		if e.Meta.ULID == id {
			return e
		}
	}
	return nil
}

// MarkedFor reports whether the block has carried a deletion mark for at least
// delay. Readers pass the delay after which they let go of a block, the
// compactor that after which it deletes.
func (e *Entry) MarkedFor(delay time.Duration, now time.Time) bool {
	return e.Deletion != nil && !now.Before(e.Deletion.At().Add(delay))
}

// Settled reports whether the block has been in the bucket for at least delay,
// so that every reader of an eventually consistent store sees it. What a
// compactor wrote was complete before its meta.json came and is settled at once.
func (m *Meta) Settled(delay time.Duration, now time.Time) bool {
	made := slices.Contains([]Source{SourceCompactor, "compactor.repair", "bucket.repair"}, m.Thanos.Source)
	return made || !now.Before(m.Arrived().Add(delay))
}

// Arrived is when the block came into the bucket: its upload time or, if
// unknown, the time in its ULID, which is that of its creation.
func (m *Meta) Arrived() time.Time {
	if t := m.Thanos.UploadTime; !t.IsZero() {
		return t
	}
	return ulid.Time(m.ULID.Time())
}

// Superseded finds the blocks that a reader should hide, each with the ID of
// the block that holds all its samples: one of the same resolution that covers
// its time range, whose sources include all of its own, and whose external
// labels are the same or fewer (by the replica labels that a merge takes away).
// A block with a label more, such as the shard of a split block, holds a part
// only and supersedes nothing. The caller leaves out what is marked for deletion.
func Superseded(entries []*Entry) map[ulid.ULID]ulid.ULID {
	bySource := map[ulid.ULID][]*Meta{}
	for _, e := range entries {
		for _, s := range e.Meta.Origin() {
			bySource[s] = append(bySource[s], e.Meta)
		}
	}
	hidden := map[ulid.ULID]ulid.ULID{}
	for _, e := range entries {
		m := e.Meta
		best := m
		for _, other := range bySource[m.Origin()[0]] { // a superset has this source as well
			if other.holds(m) && (best == m || other.holds(best)) {
				best = other
			}
		}
		if best != m {
			hidden[m.ULID] = best.ULID
		}
	}
	return hidden
}

// Origin are the level-1 blocks whose samples the block holds: Compaction.Sources,
// or the block itself if it names none.
func (m *Meta) Origin() []ulid.ULID {
	if len(m.Compaction.Sources) == 0 {
		return []ulid.ULID{m.ULID}
	}
	return m.Compaction.Sources
}

// holds reports whether m makes o superfluous. It is a strict order: of two
// blocks with the same content one, and only one, holds the other.
func (m *Meta) holds(o *Meta) bool {
	if m.ULID == o.ULID || m.Resolution() != o.Resolution() ||
		!m.TimeRange().Covers(o.TimeRange()) || !m.labelsWithin(o) {
		return false
	}
	mine, theirs := SortedIDs(m.Origin()), SortedIDs(o.Origin())
	if len(mine) < len(theirs) || !within(theirs, mine) {
		return false
	}
	if len(mine) > len(theirs) || !o.labelsWithin(m) {
		return true
	}
	// The same samples twice: the later merge stays.
	return cmp.Or(
		cmp.Compare(m.Compaction.Level, o.Compaction.Level),
		m.ULID.Compare(o.ULID)) > 0
}

// labelsWithin reports whether every external label of m is one of o; Deduped stands for any value.
func (m *Meta) labelsWithin(o *Meta) bool {
	for name, value := range m.Thanos.Labels {
		v, ok := o.Thanos.Labels[name]
		if !ok || v != value && value != Deduped {
			return false
		}
	}
	return true
}

// within reports whether every ID of a is one of b. Both are sorted and distinct.
func within(a, b []ulid.ULID) bool {
	for _, id := range a {
		i, ok := slices.BinarySearchFunc(b, id, ulid.ULID.Compare)
		if !ok {
			return false
		}
		b = b[i+1:]
	}
	return true
}
