// Package merge makes one sorted set of series out of many.
//
// It stands on floor 3 and knows nothing but series. A tournament finds the next
// series with one comparison per level; inputs that stand at the same series move on
// together, and a series that only one set has is handed on as it is.
package merge

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/util/annotations"

	"github.com/varve-io/varve/pkg/series"
)

// ErrUnsorted says that an input set broke its contract. Merging it would
// give series twice.
var ErrUnsorted = errors.New("series out of order")

// Sets merges sorted sets. Series with equal labels and replica become one,
// from different sets as well as repeated neighbours of one set; their chunks
// are sorted, and a chunk that comes twice with the same times, encoding and
// bytes is kept once.
//
// The first input that ends with an error ends the merged set; Err then holds
// the errors of all inputs, and Warnings always the warnings of all. Inputs
// are first advanced by the first Next.
func Sets(sets ...series.Set) series.Set {
	if len(sets) == 0 {
		return series.EmptySet()
	}
	return &merged{inputs: sets}
}

type merged struct {
	inputs []series.Set
	// nodes are a tournament of the inputs: the children of node i are 2i and 2i+1, and the leaves, the second
	// half, are the inputs in their order, and none.
	nodes []node
	at    *series.Series
	same  []*series.Series // those of several inputs that are the same series
	again bool             // an input has the series once more
	err   error

	reclaims bool
	room     []series.Chunk // that joined chunks lie in, if they are reclaimed
}

// node is the outcome of a match, or an input.
type node struct {
	first *series.Series // at which an input stands; nil if all inputs below have ended
	// left and right say which children have it.
	left, right bool
}

func (m *merged) Next() bool {
	if m.err == nil && m.nodes == nil {
		m.start()
	}
	if m.err != nil {
		return false
	}
	m.at = m.nodes[1].first
	if m.at == nil {
		return false
	}
	m.same = m.same[:0]
	for m.again = true; m.again && m.err == nil; {
		m.again = false
		m.pass(1)
	}
	if len(m.same) > 1 {
		m.at = m.join(m.same)
	}
	return m.err == nil
}

// join makes one series of several. What the inputs handed out stays theirs.
func (m *merged) join(same []*series.Series) *series.Series {
	n := 0
	for _, s := range same {
		n += len(s.Chunks)
	}
	if !m.reclaims {
		m.room = nil
	}
	begin := len(m.room)
	m.room = slices.Grow(m.room, n)
	for _, s := range same {
		m.room = append(m.room, s.Chunks...)
	}
	joined := m.room[begin:len(m.room):len(m.room)]
	return &series.Series{Labels: same[0].Labels, Replica: same[0].Replica, Chunks: normalize(joined)}
}

// Reclaim says that nothing of what was handed out is looked at any more, and that it will
// be said again.
func (m *merged) Reclaim() {
	m.reclaims = true
	m.room = m.room[:0]
}

// start reads the first series of each input and plays all matches.
func (m *merged) start() {
	leaves := 2 // the root has children
	for leaves < len(m.inputs) {
		leaves *= 2
	}
	m.nodes = make([]node, 2*leaves)
	for i := range m.inputs {
		if m.err = m.next(i); m.err != nil {
			return
		}
	}
	for i := leaves - 1; i > 0; i-- {
		m.play(i)
	}
}

// pass moves on the inputs below a node that stand at its series, which become part of same.
func (m *merged) pass(i int) {
	n := &m.nodes[i]
	if leaf := i - len(m.nodes)/2; leaf >= 0 {
		m.same = append(m.same, n.first)
		m.err = m.next(leaf)
		return
	}
	if n.left {
		m.pass(2 * i)
	}
	if n.right && m.err == nil {
		m.pass(2*i + 1)
	}
	m.play(i)
}

// next moves an input on.
func (m *merged) next(i int) error {
	in, leaf := m.inputs[i], &m.nodes[len(m.nodes)/2+i]
	prev := leaf.first
	if !in.Next() {
		leaf.first = nil
		return in.Err()
	}
	leaf.first = in.At()
	if prev == nil {
		return nil
	}
	c := series.Compare(prev, leaf.first)
	if c > 0 {
		return fmt.Errorf("merge series: %w: %s after %s", ErrUnsorted, leaf.first.Labels, prev.Labels)
	}
	m.again = m.again || c == 0
	return nil
}

// play finds out which series comes first below a node.
func (m *merged) play(i int) {
	left, right := m.nodes[2*i].first, m.nodes[2*i+1].first
	c := 0
	switch {
	case right == nil:
		c = -1
	case left == nil:
		c = 1
	default:
		c = series.Compare(left, right)
	}
	n := &m.nodes[i]
	if n.left, n.right = c <= 0, c >= 0; n.left {
		n.first = left
	} else {
		n.first = right
	}
}

func (m *merged) At() *series.Series { return m.at }

func (m *merged) Err() error {
	errs := []error{m.err}
	for _, in := range m.inputs {
		if err := in.Err(); err != nil && !errors.Is(m.err, err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (m *merged) Warnings() annotations.Annotations {
	var all annotations.Annotations
	for _, in := range m.inputs {
		all.Merge(in.Warnings())
	}
	return all
}

// normalize sorts chunks and drops repeated ones, in place. Mostly there is nothing to do: the
// sets follow one another in time.
func normalize(chunks []series.Chunk) []series.Chunk {
	n := 1
	for n < len(chunks) && chunks[n-1].MinTime < chunks[n].MinTime {
		n++
	}
	if n >= len(chunks) {
		return chunks
	}
	slices.SortFunc(chunks, compareChunks)
	return slices.CompactFunc(chunks, func(a, b series.Chunk) bool { return compareChunks(a, b) == 0 })
}

// compareChunks is a total order: only identical chunks compare equal.
func compareChunks(a, b series.Chunk) int {
	if c := series.CompareChunks(a, b); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(a.Encoding, b.Encoding), bytes.Compare(a.Data, b.Data))
}
