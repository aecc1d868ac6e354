package dedup

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
)

// replica holds the chunks of one replica, and the samples of those that were
// looked into. Its memory is used again for the next series.
type replica struct {
	chunks  []series.Chunk // in a total order, each once
	units   []unit         // in order of time, apart from each other
	s       chunkcodec.Samples
	within  []int // units whose samples s holds, in that order
	decoded int   // how many chunks were decoded
	it      chunkenc.Iterator
}

// unit is a chunk, or several that overlap: what is decoded in one go.
type unit struct {
	lo, hi           int // its chunks
	minTime, maxTime int64
	n                int // samples
	at               int // where they begin in s, unread before they are decoded
}

const unread = -1

// errMisplaced says that a chunk holds samples outside of its times, or out of order.
var errMisplaced = errors.New("samples are not where the chunk says")

// reset begins a series. Single chunks are taken at their word until they are
// needed; those that overlap are decoded here.
func (r *replica) reset(chunks []series.Chunk) error {
	r.s.Reset()
	*r = replica{chunks: sorted(chunks), units: r.units[:0], s: r.s, within: r.within[:0], it: r.it}
	for lo := 0; lo < len(r.chunks); {
		hi, maxTime := lo+1, r.chunks[lo].MaxTime
		for hi < len(r.chunks) && r.chunks[hi].MinTime <= maxTime {
			maxTime = max(maxTime, r.chunks[hi].MaxTime)
			hi++
		}
		if err := r.add(unit{lo: lo, hi: hi, minTime: r.chunks[lo].MinTime, maxTime: maxTime, at: unread}); err != nil {
			return err
		}
		lo = hi
	}
	return nil
}

// resetWhole begins a series whose chunks cannot be taken at their word: all
// samples are decoded and sorted.
func (r *replica) resetWhole(chunks []series.Chunk) error {
	r.s.Reset()
	*r = replica{chunks: sorted(chunks), units: r.units[:0], s: r.s, within: r.within[:0], it: r.it}
	return r.add(unit{hi: len(r.chunks), minTime: math.MinInt64, maxTime: math.MaxInt64, at: unread})
}

func (r *replica) add(u unit) error {
	if u.hi == u.lo+1 {
		c := r.chunks[u.lo]
		opened, err := c.Open()
		if err != nil {
			return fmt.Errorf("chunk from %d to %d: %w", c.MinTime, c.MaxTime, err)
		}
		if u.n = opened.NumSamples(); u.n > 0 {
			r.units = append(r.units, u)
		}
		return nil
	}
	r.units = append(r.units, u)
	if err := r.read(len(r.units) - 1); err != nil {
		return err
	}
	if r.units[len(r.units)-1].n == 0 {
		r.units = r.units[:len(r.units)-1]
	}
	return nil
}

// read makes sure that the samples of unit i are in s.
func (r *replica) read(i int) error {
	u := &r.units[i]
	if u.at != unread {
		return nil
	}
	at := r.s.Len()
	if err := r.decode(u); err != nil {
		return err
	}
	times := r.s.T[at:]
	u.at, u.n = at, len(times)
	r.decoded += u.hi - u.lo
	if u.n == 0 {
		return nil
	}
	r.within = append(r.within, i)
	if !increasing(times) || times[0] < u.minTime || times[u.n-1] > u.maxTime {
		return errMisplaced
	}
	u.minTime, u.maxTime = times[0], times[u.n-1]
	return nil
}

func (r *replica) decode(u *unit) error {
	if u.hi == u.lo+1 {
		return decodeInto(&r.s, r.chunks[u.lo])
	}
	var all, one chunkcodec.Samples
	for _, c := range r.chunks[u.lo:u.hi] {
		one.Reset()
		if err := decodeInto(&one, c); err != nil {
			return err
		}
		join(&all, &one)
	}
	r.s.Append(&all, 0, all.Len())
	return nil
}

func decodeInto(dst *chunkcodec.Samples, c series.Chunk) error {
	if err := chunkcodec.Decode(c.Encoding, c.Data, dst); err != nil {
		return fmt.Errorf("chunk from %d to %d: %w", c.MinTime, c.MaxTime, err)
	}
	return nil
}

// peek appends the first times of a chunk, until there are so many.
func (r *replica) peek(times []int64, enough int, c series.Chunk) ([]int64, error) {
	chunk, err := c.Open()
	if err != nil {
		return nil, fmt.Errorf("chunk from %d to %d: %w", c.MinTime, c.MaxTime, err)
	}
	r.it = chunk.Iterator(r.it)
	for len(times) < enough && r.it.Next() != chunkenc.ValNone {
		times = append(times, r.it.AtT())
	}
	if err := r.it.Err(); err != nil {
		return nil, fmt.Errorf("chunk from %d to %d: %w: %w", c.MinTime, c.MaxTime, chunkcodec.ErrInvalid, err)
	}
	return times, nil
}

// join adds the samples of another chunk of the same replica. Of samples with
// equal times that of the earlier chunk counts.
func join(all, one *chunkcodec.Samples) {
	if one.Len() == 0 {
		return
	}
	keep, _ := slices.BinarySearch(all.T, one.T[0])
	if keep == all.Len() && increasing(one.T) {
		all.Append(one, 0, one.Len())
		return
	}
	// Only what the chunk overlaps is merged sample by sample.
	var tail chunkcodec.Samples
	tail.Append(all, keep, all.Len())
	all.Truncate(keep)
	for a, b := 0, 0; a < tail.Len() || b < one.Len(); {
		from, at := one, b
		if b == one.Len() || a < tail.Len() && tail.T[a] <= one.T[b] {
			from, at = &tail, a
			a++
		} else {
			b++
		}
		if n := all.Len(); n == 0 || from.T[at] > all.T[n-1] {
			all.Append(from, at, at+1)
		}
	}
}

func increasing(times []int64) bool {
	for i := 1; i < len(times); i++ {
		if times[i] <= times[i-1] {
			return false
		}
	}
	return true
}

// readAll makes s hold every sample in order of time.
func (r *replica) readAll() error {
	for i := range r.units {
		if err := r.read(i); err != nil {
			return err
		}
	}
	return nil
}

// unitOf is the unit that the sample at position i of s comes from.
func (r *replica) unitOf(i int) int {
	n, found := slices.BinarySearchFunc(r.within, i, func(u, i int) int { return cmp.Compare(r.units[u].at, i) })
	if !found {
		n--
	}
	return r.within[n]
}

// stale reports whether the sample at position i of s is a stale marker.
func (r *replica) stale(i int) bool {
	switch {
	case len(r.s.H) > 0 && r.s.H[i] != nil:
		return value.IsStaleNaN(r.s.H[i].Sum)
	case len(r.s.FH) > 0 && r.s.FH[i] != nil:
		return value.IsStaleNaN(r.s.FH[i].Sum)
	}
	return value.IsStaleNaN(r.s.V[i])
}

// anyStale reports whether there is a stale marker among samples from up to to of s.
func (r *replica) anyStale(from, to int) bool {
	if len(r.s.H) == 0 && len(r.s.FH) == 0 {
		return staleAmong(r.s.V[from:to])
	}
	for i := from; i < to; i++ {
		if r.stale(i) {
			return true
		}
	}
	return false
}

// staleAmong is not slices.ContainsFunc, which calls a function for each value. Guarded by BenchmarkDedup.
func staleAmong(values []float64) bool {
	found := false
	for _, v := range values {
		found = found || math.Float64bits(v) == value.StaleNaN
	}
	return found
}

// sorted returns the chunks in a total order, each once.
func sorted(chunks []series.Chunk) []series.Chunk {
	apart := true
	for i := 1; i < len(chunks) && apart; i++ {
		apart = chunks[i-1].MaxTime < chunks[i].MinTime
	}
	if apart {
		return chunks
	}
	order := func(a, b series.Chunk) int {
		if c := series.CompareChunks(a, b); c != 0 {
			return c
		}
		return cmp.Or(cmp.Compare(a.Encoding, b.Encoding), bytes.Compare(a.Data, b.Data))
	}
	out := slices.Clone(chunks)
	slices.SortFunc(out, order)
	return slices.CompactFunc(out, func(a, b series.Chunk) bool { return order(a, b) == 0 })
}
