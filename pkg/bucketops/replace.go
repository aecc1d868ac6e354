package bucketops

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/block"
)

// replacement describes a block that takes the place of another: the same origin,
// one level higher, so readers and compactors of this family hide the source as
// soon as the new block is complete. Of two blocks of one origin Thanos keeps that
// with the lower ULID, so the new one's time is a millisecond before its source's.
func replacement(source *block.Meta, kind, params string, attempt int, also ...ulid.ULID) *block.Meta {
	meta := *source
	id := block.Output{
		Kind: kind, Sources: append([]ulid.ULID{source.ULID}, also...), Params: params,
		Resolution: source.Resolution(), Attempt: attempt,
	}.ID()
	if t := source.ULID.Time(); t > 0 {
		_ = id.SetTime(t - 1) // it is less than one that fits
	}
	meta.ULID = id
	meta.Compaction.Level++
	meta.Compaction.Sources = block.SortedIDs(source.Origin())
	meta.Compaction.Parents = []block.Parent{{ULID: source.ULID, MinTime: source.MinTime, MaxTime: source.MaxTime}}
	meta.Compaction.Failed = false
	meta.Thanos.Source = block.Source("bucket." + kind) // as Thanos calls them
	return &meta
}

// replaces reports whether m was made of the source by an operation of that kind.
func replaces(m *block.Meta, kind string, source ulid.ULID) bool {
	return m.Thanos.Source == block.Source("bucket."+kind) &&
		slices.ContainsFunc(m.Compaction.Parents, func(p block.Parent) bool { return p.ULID == source })
}

// place is where a block that is to be replaced stands.
type place struct {
	entry *block.Entry
	// by is the block that replaces it already; nil if there is none.
	by *block.Meta
}

// find gives the blocks that are to be replaced. One that another block has taken
// the place of is an error, unless that came of the same operation, which then only
// lacks its marks.
func find(set *block.Set, ids []ulid.ULID, kind string) ([]place, error) {
	entries, err := Selection{IDs: ids}.of(set)
	if err != nil {
		return nil, err
	}
	hidden := block.Superseded(block.Select(set.Blocks, func(e *block.Entry) bool {
		return e.Deletion == nil || slices.Contains(ids, e.Meta.ULID)
	}))
	places := make([]place, len(entries))
	for i, e := range entries {
		places[i].entry = e
		by, ok := hidden[e.Meta.ULID]
		if !ok {
			continue
		}
		places[i].by = set.Find(by).Meta
		if !replaces(places[i].by, kind, e.Meta.ULID) {
			return nil, fmt.Errorf("block %s is replaced by %s, which readers use instead; work on that one", e.Meta.ULID, by)
		}
	}
	return places, nil
}

// markReplaced sets marks on a block whose place was taken. The first, against
// compaction, is always among them.
func (o *Operator) markReplaced(ctx context.Context, source ulid.ULID, verb, by string, more ...block.MarkKind) ([]Action, error) {
	var actions []Action
	for _, kind := range append([]block.MarkKind{block.NoCompactMark}, more...) {
		actions = append(actions, o.markAction(block.Mark{Kind: kind, ID: source, Reason: verb, Details: verb + " as " + by}))
	}
	return o.act(ctx, "mark "+source.String(), actions)
}

// joinSymbols gives the strings of sorted lists once each, sorted.
func joinSymbols(lists ...[]string) []string {
	all := slices.Concat(lists...)
	slices.SortFunc(all, strings.Compare)
	return slices.Compact(all)
}
