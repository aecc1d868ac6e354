package dedup

import (
	"bytes"
	"cmp"
	"encoding/binary"
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
	merged  bool               // it was made by deduplication
	chunks  []series.Chunk     // in a total order, each once, none empty
	counts  []int              // how many samples each says that it has
	units   []unit             // in order of time, apart from each other
	s       chunkcodec.Samples // in place of a histogram there is its sum, by which stale markers are known
	within  []int              // units whose samples s holds, in that order
	marks   []int              // where stale markers stand in s, unit by unit in that order
	decoded int                // how many chunks were decoded
	few     chunkcodec.Samples // the first ones of a chunk
	medians medians            // of the track that was loaded last
	times   []int64            // of that track, where stale markers are left out

	// The histograms of the unit that was decoded last, with all that these hold.
	whole     chunkcodec.Samples
	wholeUnit int // unread where there is none
	memory    chunkcodec.Decoder
}

// unit is a chunk, or several that overlap: what is decoded in one go.
type unit struct {
	lo, hi           int // its chunks
	minTime, maxTime int64
	n                int // samples
	at               int // where they begin in s, unread before they are decoded
	have             int // how many of them, from the first one on, are there

	// Known of these once they are decoded:
	shortest, longest int64               // no distance between them is shorter, or longer
	mark, markEnd     int                 // its stale markers in marks
	joined            *chunkcodec.Samples // what they are, where they come from several chunks
}

const unread = -1

// errMisplaced says that a chunk holds samples outside of its times, or out of order.
var errMisplaced = errors.New("samples are not where the chunk says")

// reset begins a series. Single chunks are taken at their word until they are
// needed; those that overlap are decoded here.
func (r *replica) reset(chunks []series.Chunk) error {
	if err := r.clear(chunks); err != nil {
		return err
	}
	for lo := 0; lo < len(r.chunks); {
		hi, maxTime := lo+1, r.chunks[lo].MaxTime
		for hi < len(r.chunks) && r.chunks[hi].MinTime <= maxTime {
			maxTime = max(maxTime, r.chunks[hi].MaxTime)
			hi++
		}
		r.units = append(r.units, unit{lo: lo, hi: hi, minTime: r.chunks[lo].MinTime, maxTime: maxTime, n: r.counts[lo], at: unread})
		if hi-lo > 1 {
			if err := r.read(len(r.units) - 1); err != nil {
				return err
			}
		}
		lo = hi
	}
	return nil
}

// resetWhole begins a series whose chunks cannot be taken at their word: all
// samples are decoded and sorted.
func (r *replica) resetWhole(chunks []series.Chunk) error {
	if err := r.clear(chunks); err != nil || len(r.chunks) == 0 {
		return err
	}
	r.units = append(r.units, unit{hi: len(r.chunks), minTime: math.MinInt64, maxTime: math.MaxInt64, at: unread})
	return r.read(0)
}

func (r *replica) clear(chunks []series.Chunk) error {
	r.s.Reset()
	r.chunks, r.units, r.decoded = sorted(chunks), r.units[:0], 0
	r.within, r.marks = r.within[:0], r.marks[:0]
	r.forget()
	return r.count()
}

// count asks all chunks how many samples they have, in a loop of its own, in which processors wait for several at a time.
func (r *replica) count() error {
	r.counts = r.counts[:0]
	empty := false
	for i := range r.chunks {
		n, err := count(&r.chunks[i])
		if err != nil {
			return err
		}
		empty = empty || n == 0
		r.counts = append(r.counts, n)
	}
	if empty {
		r.chunks = slices.DeleteFunc(slices.Clone(r.chunks), func(c series.Chunk) bool {
			n, _ := count(&c)
			return n == 0
		})
		r.counts = slices.DeleteFunc(r.counts, func(n int) bool { return n == 0 })
	}
	return nil
}

// count is the number of samples that a chunk's header says. Opening the chunk allocates, so it is left to rare encodings.
func count(c *series.Chunk) (int, error) {
	switch c.Encoding {
	case chunkenc.EncXOR, chunkenc.EncXOR2, chunkenc.EncHistogram, chunkenc.EncFloatHistogram:
		if len(c.Data) >= 2 {
			return int(binary.BigEndian.Uint16(c.Data)), nil
		}
	case chunkenc.EncNone, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST:
	}
	opened, err := c.Open()
	if err != nil {
		return 0, fmt.Errorf("chunk from %d to %d: %w", c.MinTime, c.MaxTime, err)
	}
	return opened.NumSamples(), nil
}

// read makes sure that the samples of unit i are in s.
func (r *replica) read(i int) error { return r.readFirst(i, r.units[i].n) }

// readFirst makes sure that so many samples of unit i, from its first one on, are in s.
func (r *replica) readFirst(i, n int) error {
	if u := &r.units[i]; u.at != unread && u.have >= n {
		return nil
	}
	return r.readSome(i, math.MaxInt)
}

// readUntil makes sure that the samples of unit i up to time t are in s, and one behind them if there is any.
func (r *replica) readUntil(i int, t int64) error {
	u := &r.units[i]
	if u.at == unread && t < u.maxTime && u.hi == u.lo+1 {
		const spare = 8 // for a rhythm that is not quite even
		if n := spare + evenly(u.minTime, u.maxTime, t, u.n); n < u.n-u.n/4 {
			if err := r.readSome(i, n); err != nil {
				return err
			}
		}
	}
	if u.at != unread && r.s.T[u.at+u.have-1] > t {
		return nil
	}
	return r.read(i)
}

// readSome decodes the first samples of unit i, up to n.
func (r *replica) readSome(i, n int) error {
	u, at := &r.units[i], r.s.Len()
	if err := r.decode(u, n); err != nil {
		return err
	}
	times := r.s.T[at:]
	u.at, u.have = at, len(times)
	r.decoded += u.hi - u.lo
	r.within = append(r.within, i)
	r.survey(u)
	if u.have == 0 || u.shortest <= 0 || times[0] < u.minTime || times[u.have-1] > u.maxTime {
		return errMisplaced
	}
	u.minTime = times[0]
	if u.have >= n {
		return nil
	}
	u.n, u.maxTime = u.have, times[u.have-1]
	return nil
}

// decode appends the first samples of a unit, up to n if it is a single chunk.
func (r *replica) decode(u *unit, n int) error {
	if u.hi == u.lo+1 {
		return r.sums(&r.s, r.chunks[u.lo], n)
	}
	var one chunkcodec.Samples
	u.joined = &chunkcodec.Samples{}
	for _, c := range r.chunks[u.lo:u.hi] {
		one.Reset()
		if err := decodeInto(&one, c); err != nil {
			return err
		}
		join(u.joined, &one)
	}
	for i, t := range u.joined.T {
		r.s.AppendFloat(u.joined.Start(i), t, sum(u.joined, i))
	}
	return nil
}

// hasFloats reports whether the samples of a row were decoded, and are floats.
func (r *replica) hasFloats(row run) bool {
	u := &r.units[row.unit]
	return u.at != unread && u.have >= row.to &&
		!slices.ContainsFunc(r.chunks[u.lo:u.hi], func(c series.Chunk) bool { return !isFloat(&c) })
}

func isFloat(c *series.Chunk) bool {
	return c.Encoding == chunkenc.EncXOR || c.Encoding == chunkenc.EncXOR2
}

// sum is the value of a float, or the sum of a histogram.
func sum(s *chunkcodec.Samples, i int) float64 {
	switch {
	case len(s.H) > 0 && s.H[i] != nil:
		return s.H[i].Sum
	case len(s.FH) > 0 && s.FH[i] != nil:
		return s.FH[i].Sum
	}
	return s.V[i]
}

// sums appends the first samples of a chunk, up to n; histograms as their sums.
func (r *replica) sums(dst *chunkcodec.Samples, c series.Chunk, n int) error {
	if err := r.memory.Sums(c.Encoding, c.Data, n, dst); err != nil {
		return fmt.Errorf("chunk from %d to %d: %w", c.MinTime, c.MaxTime, err)
	}
	return nil
}

// copyTo appends samples of unit i, which was read: histograms, too, that stay valid until forget is called.
func (r *replica) copyTo(dst *chunkcodec.Samples, i, from, to int) error {
	u := &r.units[i]
	switch {
	case u.joined != nil:
		dst.Append(u.joined, from, to)
	case isFloat(&r.chunks[u.lo]):
		dst.Append(&r.s, u.at+from, u.at+to)
	default:
		if err := r.readWhole(i); err != nil {
			return err
		}
		dst.Append(&r.whole, from, to)
	}
	return nil
}

// readWhole decodes the histograms of unit i that are known by their sums.
func (r *replica) readWhole(i int) error {
	u := &r.units[i]
	if r.wholeUnit == i && r.whole.Len() == u.have {
		return nil
	}
	r.wholeUnit = unread
	r.whole.Reset()
	c := r.chunks[u.lo]
	if err := r.memory.DecodeFirst(c.Encoding, c.Data, u.have, &r.whole); err != nil {
		return fmt.Errorf("chunk from %d to %d: %w", c.MinTime, c.MaxTime, err)
	}
	if r.whole.Len() != u.have {
		return errMisplaced
	}
	r.wholeUnit = i
	return nil
}

// forget ends the use of histograms that were copied.
func (r *replica) forget() {
	r.wholeUnit = unread
	r.memory.Reset()
}

func decodeInto(dst *chunkcodec.Samples, c series.Chunk) error {
	if err := chunkcodec.Decode(c.Encoding, c.Data, dst); err != nil {
		return fmt.Errorf("chunk from %d to %d: %w", c.MinTime, c.MaxTime, err)
	}
	return nil
}

// peek appends the first times of a chunk, until there are so many.
func (r *replica) peek(times []int64, enough int, c series.Chunk) ([]int64, error) {
	r.few.Reset()
	if err := r.sums(&r.few, c, enough-len(times)); err != nil {
		return nil, err
	}
	return append(times, r.few.T...), nil
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

// extent returns the shortest and the longest distance between neighbours.
func extent(times []int64) (shortest, longest int64) {
	shortest = math.MaxInt64
	if len(times) < 2 {
		return shortest, 0
	}
	last := times[0]
	for _, t := range times[1:] {
		shortest, longest = min(shortest, t-last), max(longest, t-last)
		last = t
	}
	return shortest, longest
}

func increasing(times []int64) bool {
	shortest, _ := extent(times)
	return shortest > 0
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
func (r *replica) stale(i int) bool { return value.IsStaleNaN(r.s.V[i]) }

// survey finds the limits and the stale markers of a unit that was decoded.
func (r *replica) survey(u *unit) {
	times, values := r.s.T[u.at:], r.s.V[u.at:]
	u.mark, u.markEnd = len(r.marks), len(r.marks)
	if u.have > 1 {
		d := times[1] - times[0]
		if u.shortest, u.longest = d-d/8, d+d/8; steady(times, values, u.shortest, u.longest) {
			return
		}
	}
	u.shortest, u.longest = extent(times)
	for i, v := range values {
		if value.IsStaleNaN(v) {
			r.marks = append(r.marks, u.at+i)
		}
	}
	u.markEnd = len(r.marks)
}

// steady reports whether no distance is shorter or longer, and no value a stale marker. Guarded by BenchmarkDedup.
func steady(times []int64, values []float64, shortest, longest int64) bool {
	if shortest <= 0 || longest > Cell || value.IsStaleNaN(values[0]) {
		return false
	}
	last, values := times[0], values[:len(times)]
	for i := 1; i < len(times); i++ {
		t := times[i]
		if uint64(t-last-shortest) > uint64(longest-shortest) || value.IsStaleNaN(values[i]) {
			return false
		}
		last = t
	}
	return true
}

// marksIn are where stale markers stand in s, of those samples of a decoded unit.
func (r *replica) marksIn(u *unit, from, to int) []int {
	marks := r.marks[u.mark:u.markEnd]
	if len(marks) == 0 || to-from == u.have {
		return marks
	}
	i, _ := slices.BinarySearch(marks, u.at+from)
	j, _ := slices.BinarySearch(marks, u.at+to)
	return marks[i:j]
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
