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
// a block that holds its samples: one of the same resolution that covers
// its time range, whose sources include all of its own, and whose external
// labels are the same or fewer (by the replica labels that a merge takes away).
// The shards of a split block hide it together, when all its series are in them;
// that ID is then one of theirs. What is marked for deletion hides nothing.
func Superseded(entries []*Entry) map[ulid.ULID]ulid.ULID {
	hidden := map[ulid.ULID]ulid.ULID{}
	eachHeld(entries, func(m *Meta, by *Meta, rest []Shard) {
		if len(rest) == 0 {
			hidden[m.ULID] = by.ULID
		}
	})
	return hidden
}

// Remaining finds the blocks of which a reader should take some shards alone, and
// these: their other series are, with all their samples, in the shards that were
// split off. So no series is read twice or not at all while not all shards are there.
func Remaining(entries []*Entry) map[ulid.ULID][]Shard {
	left := map[ulid.ULID][]Shard{}
	eachHeld(entries, func(m *Meta, _ *Meta, rest []Shard) {
		if len(rest) > 0 {
			left[m.ULID] = rest
		}
	})
	return left
}

// part is a block with its shard.
type part struct {
	*Meta
	shard Shard
}

// eachHeld calls fn for every block some or all of whose series other blocks hold, with
// one of these and the shards that none of them holds.
func eachHeld(entries []*Entry, fn func(m, by *Meta, rest []Shard)) {
	bySource := map[ulid.ULID][]part{}
	for _, e := range entries {
		if e.Deletion != nil {
			continue
		}
		p := part{e.Meta, e.Meta.Shard()}
		for _, s := range e.Meta.Origin() {
			bySource[s] = append(bySource[s], p)
		}
	}
	for _, e := range entries {
		p := part{e.Meta, e.Meta.Shard()}
		var holders []part
		for _, other := range bySource[p.Origin()[0]] { // a superset has this source as well
			if other.shard.Overlaps(p.shard) && other.holds(p) {
				holders = append(holders, other)
			}
		}
		if len(holders) > 0 {
			by, rest := p.heldBy(holders)
			fn(p.Meta, by, rest)
		}
	}
}

// heldBy gives one of those that hold series of p, and the shards that none of them holds.
func (p part) heldBy(holders []part) (by *Meta, rest []Shard) {
	finest := p.shard
	for _, h := range holders {
		if finest.of() < h.shard.of() {
			finest = h.shard
		}
	}
	for _, s := range p.shard.Split(finest.of() / p.shard.of()) {
		best := p
		for _, h := range holders {
			if h.shard.Covers(s) && (best.Meta == p.Meta || h.holds(best)) {
				best = h
			}
		}
		switch {
		case best.Meta == p.Meta:
			rest = append(rest, s)
		case by == nil:
			by = best.Meta
		}
	}
	return by, rest
}

// Origin are the level-1 blocks whose samples the block holds: Compaction.Sources,
// or the block itself if it names none.
func (m *Meta) Origin() []ulid.ULID {
	if len(m.Compaction.Sources) == 0 {
		return []ulid.ULID{m.ULID}
	}
	return m.Compaction.Sources
}

// holds reports whether p makes o superfluous, as far as series are of both shards. It
// is a strict order: of two blocks with the same content one, and only one, holds the other.
func (p part) holds(o part) bool {
	if p.ULID == o.ULID || p.Resolution() != o.Resolution() ||
		!p.TimeRange().Covers(o.TimeRange()) || !p.labelsWithin(o) {
		return false
	}
	mine, theirs := SortedIDs(p.Origin()), SortedIDs(o.Origin())
	if len(mine) < len(theirs) || !within(theirs, mine) {
		return false
	}
	if len(mine) > len(theirs) || !o.labelsWithin(p) {
		return true
	}
	// The same samples twice: the shard that was split off stays, or the later merge.
	return cmp.Or(
		cmp.Compare(p.shard.of(), o.shard.of()),
		cmp.Compare(p.Compaction.Level, o.Compaction.Level),
		p.ULID.Compare(o.ULID)) > 0
}

// labelsWithin reports whether every external label of p, but that of its shard, is one of o; Deduped stands for any value.
func (p part) labelsWithin(o part) bool {
	for name, value := range p.Thanos.Labels {
		if name == ShardLabel && !p.shard.Whole() {
			continue
		}
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
