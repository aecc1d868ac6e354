package dedup

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/varve-io/varve/pkg/series"
)

// Group is a series as its replicas have it.
type Group struct {
	Labels labels.Labels

	replicas [][]series.Chunk // in the order of preference
	merged   bool             // the first of them was made by deduplication, for all that is known
}

// Groups are the series of a set; neighbours that differ in nothing but Replica make one group. The set is
// sorted by series.Compare, which puts replicas in the order of preference. One that carries
// none of the labels that tell replicas apart is taken for the result of deduplication.
type Groups struct {
	in     series.Set
	peeked *series.Series // the next series of in, which has other labels
	at     *Group
}

// NewGroups makes groups of a set.
func NewGroups(in series.Set) *Groups { return &Groups{in: in} }

// Next goes on to the next group.
func (g *Groups) Next() bool {
	cur := g.peeked
	g.peeked = nil
	if cur == nil {
		if !g.in.Next() {
			return false
		}
		cur = g.in.At()
	}
	g.at = &Group{Labels: cur.Labels, replicas: [][]series.Chunk{cur.Chunks}, merged: cur.Replica == ""}
	for last := cur.Replica; g.in.Next(); {
		next := g.in.At()
		if !labels.Equal(next.Labels, g.at.Labels) {
			g.peeked = next
			break
		}
		if n := len(g.at.replicas) - 1; next.Replica == last { // in several pieces
			g.at.replicas[n] = append(slices.Clip(g.at.replicas[n]), next.Chunks...)
			continue
		}
		g.at.replicas, last = append(g.at.replicas, next.Chunks), next.Replica
	}
	// Where the input broke off, replicas of this series may be missing.
	return g.in.Err() == nil
}

// At is the current group, which stays valid after Next for as long as the series of the set do.
func (g *Groups) At() *Group { return g.at }

// overlapping cuts a group into the longest parts that do not overlap with each other, by the times of chunks.
func (g *Group) overlapping() (parts []Group) {
	type of struct {
		rep   int
		chunk series.Chunk
	}
	var all []of
	for i, chunks := range g.replicas {
		for _, c := range chunks {
			all = append(all, of{i, c})
		}
	}
	slices.SortStableFunc(all, func(a, b of) int { return series.CompareChunks(a.chunk, b.chunk) })
	end := int64(math.MinInt64)
	for _, c := range all {
		if len(parts) == 0 || c.chunk.MinTime > end {
			parts = append(parts, Group{Labels: g.Labels, replicas: make([][]series.Chunk, len(g.replicas)), merged: g.merged})
		}
		at := parts[len(parts)-1].replicas
		at[c.rep] = append(at[c.rep], c.chunk)
		end = max(end, c.chunk.MaxTime)
	}
	return parts
}

// Err is the error that ended the iteration early.
func (g *Groups) Err() error { return g.in.Err() }

// Warnings are those of the set.
func (g *Groups) Warnings() annotations.Annotations { return g.in.Warnings() }
