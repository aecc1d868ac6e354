// Package merge makes one sorted set of series out of many.
//
// It stands on floor 3 and knows nothing but series. A loser tree finds the
// next series with one comparison per level, and a series that only one set
// has is handed on as it is.
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
	m := &merged{inputs: make([]input, len(sets))}
	for i, s := range sets {
		m.inputs[i].set = s
	}
	return m
}

type merged struct {
	inputs []input
	// losers[0] is the input that comes next; losers[i] is the input that lost the match at node i,
	// whose children are the nodes 2i and 2i+1. Input j plays its first match at node (len(inputs)+j)/2.
	losers []int
	at     *series.Series
	same   []*series.Series // those of several inputs that are the same series
	err    error

	reclaims bool
	room     []series.Chunk // that joined chunks lie in, if they are reclaimed
}

// input is a set with the series it stands at, nil at its end.
type input struct {
	set series.Set
	cur *series.Series
}

func (in *input) advance() error {
	prev := in.cur
	if !in.set.Next() {
		in.cur = nil
		return in.set.Err()
	}
	in.cur = in.set.At()
	if prev != nil && series.Compare(prev, in.cur) > 0 {
		return fmt.Errorf("merge series: %w: %s after %s", ErrUnsorted, in.cur.Labels, prev.Labels)
	}
	return nil
}

func (m *merged) Next() bool {
	if m.err == nil && m.losers == nil {
		m.start()
	}
	if m.err != nil {
		return false
	}
	m.at = m.inputs[m.losers[0]].cur
	if m.at == nil {
		return false
	}
	m.same = append(m.same[:0], m.at)
	for m.advance() {
		next := m.inputs[m.losers[0]].cur
		if next == nil || series.Compare(m.at, next) != 0 {
			break
		}
		m.same = append(m.same, next)
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
	n := len(m.inputs)
	winners := make([]int, 2*n)
	for i := range m.inputs {
		if m.err = m.inputs[i].advance(); m.err != nil {
			return
		}
		winners[n+i] = i
	}
	m.losers = make([]int, n)
	for node := n - 1; node > 0; node-- {
		a, b := winners[2*node], winners[2*node+1]
		if m.less(b, a) {
			a, b = b, a
		}
		winners[node], m.losers[node] = a, b
	}
	m.losers[0] = winners[1]
}

// advance moves the winning input on and reports whether that worked.
func (m *merged) advance() bool {
	winner := m.losers[0]
	if m.err = m.inputs[winner].advance(); m.err != nil {
		return false
	}
	for node := (len(m.inputs) + winner) / 2; node > 0; node /= 2 {
		if m.less(m.losers[node], winner) {
			m.losers[node], winner = winner, m.losers[node]
		}
	}
	m.losers[0] = winner
	return true
}

// less orders inputs by their current series, ended ones last, ties by position.
func (m *merged) less(a, b int) bool {
	x, y := m.inputs[a].cur, m.inputs[b].cur
	if x == nil || y == nil {
		return x != nil
	}
	return cmp.Or(series.Compare(x, y), cmp.Compare(a, b)) < 0
}

func (m *merged) At() *series.Series { return m.at }

func (m *merged) Err() error {
	errs := []error{m.err}
	for _, in := range m.inputs {
		if err := in.set.Err(); err != nil && !errors.Is(m.err, err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (m *merged) Warnings() annotations.Annotations {
	var all annotations.Annotations
	for _, in := range m.inputs {
		all.Merge(in.set.Warnings())
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
