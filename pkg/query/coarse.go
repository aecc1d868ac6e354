package query

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	stale "github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
)

// span is a range of time, both ends inclusive, Unix milliseconds.
type span struct{ from, to int64 }

// anytime is all of time.
func anytime() span { return span{math.MinInt64, math.MaxInt64} }

// segment is a sub-range of one series that one resolution serves.
type segment struct {
	span
	resolution block.Resolution // Raw when the chunks hold samples as they were scraped
	chunks     []series.Chunk   // of that resolution; they may reach outside the span
}

// resolutionOf is Raw also for samples that stand in a downsampled block as they were scraped.
func resolutionOf(c series.Chunk) block.Resolution {
	if c.Encoding != aggrchunk.Encoding {
		return block.Raw
	}
	return block.Resolution(c.Resolution)
}

// preference is the order in which resolutions serve a sub-range: the coarsest
// allowed one, then finer ones, then what is coarser than allowed, finest first.
func preference(allowed block.Resolution) []block.Resolution {
	switch floorResolution(int64(allowed)) {
	case block.OneHour:
		return []block.Resolution{block.OneHour, block.FiveMin, block.Raw}
	case block.FiveMin:
		return []block.Resolution{block.FiveMin, block.Raw, block.OneHour}
	case block.Raw:
	}
	return []block.Resolution{block.Raw, block.FiveMin, block.OneHour}
}

// segments chooses one resolution for each sub-range of a series. Borders lie
// on windows of the coarsest resolution at hand, so no window is cut.
func segments(chunks []series.Chunk, allowed block.Resolution) []segment {
	by := map[block.Resolution][]series.Chunk{}
	cell := block.FiveMin
	for _, c := range chunks {
		r := resolutionOf(c)
		by[r] = append(by[r], c)
		cell = max(cell, r)
	}
	if len(by) == 1 && len(chunks) > 0 {
		return []segment{{anytime(), resolutionOf(chunks[0]), chunks}}
	}
	free := []span{anytime()}
	var chosen []segment
	for _, covers := range []func([]series.Chunk, int64) []span{fullCells, touchedCells} {
		for _, r := range preference(allowed) {
			if len(by[r]) == 0 {
				continue
			}
			var taken []span
			taken, free = divide(free, covers(by[r], int64(cell)))
			for _, t := range taken {
				chosen = append(chosen, segment{t, r, by[r]})
			}
		}
	}
	slices.SortFunc(chosen, func(a, b segment) int { return cmp.Compare(a.from, b.from) })
	return joined(chosen)
}

// divide returns what of free lies in covered, and what does not; all are sorted.
func divide(free, covered []span) (taken, left []span) {
	for _, f := range free {
		from := f.from
		for _, c := range covered {
			c = span{max(c.from, from), min(c.to, f.to)}
			if c.from > c.to {
				continue
			}
			taken = append(taken, c)
			if from < c.from {
				left = append(left, span{from, c.from - 1})
			}
			from = c.to + 1
		}
		if from <= f.to {
			left = append(left, span{from, f.to})
		}
	}
	return taken, left
}

// joined makes one segment of neighbours of the same resolution.
func joined(segments []segment) []segment {
	var out []segment
	for _, s := range segments {
		if n := len(out); n > 0 && out[n-1].resolution == s.resolution && out[n-1].to+1 == s.from {
			out[n-1].to = s.to
			continue
		}
		out = append(out, s)
	}
	return out
}

// fullCells are the cells that the chunks cover from the begin to the end, but
// for a few scrapes. A chunk that a store sent for another time may cover the rest of a
// cell whose begin only another resolution holds.
func fullCells(chunks []series.Chunk, cell int64) []span {
	slack := min(int64(block.FiveMin), cell/4)
	var cells []span
	for _, s := range union(chunks, slack) {
		from, end := windowStart(s.from, cell), windowStart(s.to, cell)+cell
		if s.from-from > slack {
			from += cell
		}
		if end-1-s.to > slack {
			end -= cell
		}
		if from < end {
			cells = append(cells, span{from, end - 1})
		}
	}
	return cells
}

// touchedCells are the cells of which the chunks cover anything.
func touchedCells(chunks []series.Chunk, cell int64) []span {
	var cells []span
	for _, s := range union(chunks, 0) {
		s = span{windowStart(s.from, cell), windowStart(s.to, cell) + cell - 1}
		if n := len(cells); n > 0 && s.from <= cells[n-1].to+1 {
			cells[n-1].to = max(cells[n-1].to, s.to)
			continue
		}
		cells = append(cells, s)
	}
	return cells
}

// union is the union of the chunks' time ranges, over holes of slack. The windows of
// coarse chunks begin before the time by which they go.
func union(chunks []series.Chunk, slack int64) []span {
	var covered []span
	for _, c := range chunks { // sorted by MinTime
		s := span{c.MinTime, c.MaxTime}
		if r := int64(resolutionOf(c)); r > 0 {
			s = span{windowStart(s.from, r), windowStart(s.to, r) + r - 1}
		}
		if n := len(covered); n > 0 && s.from <= covered[n-1].to+1+slack {
			covered[n-1].to = max(covered[n-1].to, s.to)
			continue
		}
		covered = append(covered, s)
	}
	return covered
}

// iterator reads a segment of a series as the aggregate wanted. Counters and
// what happens to them are read for the whole series at once; see counterRuns and happenings.
func (s segment) iterator(agg aggregate, l looks, scraped rhythm) (chunkenc.Iterator, error) {
	switch {
	case s.resolution == block.Raw && agg == count:
		return &counted{Iterator: s.samples()}, nil
	case s.resolution == block.Raw:
		return s.samples(), nil
	}
	windows, err := s.windows(func(subs aggrchunk.Subs) ([]point, error) { return decodeWindows(subs, agg) })
	if err != nil {
		return nil, err
	}
	w := s.windowed(windows, agg, l)
	if agg == sum || agg == count {
		w.knowScrapes(scraped)
	}
	return &sampled{src: w}, nil
}

// windowed makes samples of the segment's windows.
func (s segment) windowed(windows []point, agg aggregate, l looks) windowed {
	resolution, border := int64(s.resolution), int64(0)
	if agg == gauge {
		border = 1
	}
	return windowed{windows: windows, resolution: resolution, grid: l.grid(resolution, border), aggregate: agg}
}

// windows decodes the segment's chunks into a point at each window's end.
// Where a chunk ends, the compactor stores its last window under the time of the
// last sample; but for the very last window of a series that is put right, so that windows are evenly spaced.
func (s segment) windows(decode func(aggrchunk.Subs) ([]point, error)) ([]point, error) {
	var windows []point
	last := int64(math.MinInt64)
	for _, c := range s.chunks {
		if c.MaxTime < s.from || c.MinTime > s.to {
			continue
		}
		subs, err := aggrchunk.Decode(c.Data)
		if err != nil {
			return nil, fmt.Errorf("read downsampled chunk: %w", err)
		}
		points, err := decode(subs)
		if err != nil {
			return nil, fmt.Errorf("read downsampled chunk: %w", err)
		}
		for _, p := range points {
			if p.t > last && p.t >= s.from && p.t <= s.to {
				if n := len(windows); n > 0 {
					windows[n-1].t = endBefore(last, p.t, s.resolution)
				}
				windows = append(windows, p)
				last = p.t
			}
		}
	}
	if n := len(windows); n > 0 && s.to < math.MaxInt64 { // another segment follows
		windows[n-1].t = endBefore(last, s.to+1, s.resolution)
	}
	return windows, nil
}

// endBefore is the end of the window that t lies in, unless next lies in it, too.
func endBefore(t, next int64, r block.Resolution) int64 {
	if end := windowStart(t, int64(r)) + int64(r) - 1; end < next {
		return end
	}
	return t
}

func decodeWindows(subs aggrchunk.Subs, agg aggregate) ([]point, error) {
	switch agg {
	case count:
		return decodePoints(subs[aggrchunk.Count])
	case sum:
		return decodePoints(subs[aggrchunk.Sum])
	case minimum:
		return decodePoints(subs[aggrchunk.Min])
	case maximum:
		return decodePoints(subs[aggrchunk.Max])
	case gauge, counter, resetting, changing:
	}
	sums, err := decodePoints(subs[aggrchunk.Sum])
	if err != nil {
		return nil, err
	}
	counts, err := decodePoints(subs[aggrchunk.Count])
	if err != nil {
		return nil, err
	}
	if len(sums) != len(counts) {
		return nil, fmt.Errorf("%w: %d sums for %d counts", aggrchunk.ErrInvalid, len(sums), len(counts))
	}
	averages := sums[:0]
	for i, s := range sums {
		if s.t != counts[i].t {
			return nil, fmt.Errorf("%w: a sum at %d, its count at %d", aggrchunk.ErrInvalid, s.t, counts[i].t)
		}
		if counts[i].v.f > 0 {
			averages = append(averages, point{s.t, s.v.times(1 / counts[i].v.f)})
		}
	}
	return averages, nil
}

// decodePoints reads a sub-chunk; an absent one has no points.
func decodePoints(sub aggrchunk.Sub) ([]point, error) {
	if !sub.Present() {
		return nil, nil
	}
	c, err := chunkcodec.Open(sub.Encoding, sub.Data)
	if err != nil {
		return nil, err
	}
	points := make([]point, 0, c.NumSamples())
	it := c.Iterator(nil)
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		points = append(points, pointAt(it, typ))
	}
	if len(points) > 0 && points[0].v.h != nil && beginsWithReset(c) {
		points[0].v.h.CounterResetHint = histogram.CounterReset
	}
	return points, it.Err()
}

// beginsWithReset reports whether a chunk says that its counter was reset before
// its first histogram. Iterators keep that to themselves.
func beginsWithReset(c chunkenc.Chunk) bool {
	h, ok := c.(*chunkenc.FloatHistogramChunk)
	return ok && h.GetCounterResetHeader() == chunkenc.CounterReset
}

// pointAt copies the current sample of an iterator.
func pointAt(it chunkenc.Iterator, typ chunkenc.ValueType) point {
	if typ == chunkenc.ValFloat {
		t, f := it.At()
		return point{t, value{f: f}}
	}
	t, h := it.AtFloatHistogram(nil)
	return point{t, value{h: h}}
}

// samples reads a raw segment.
func (s segment) samples() chunkenc.Iterator {
	return series.Samples(s.chunks, s.from, s.to, nil)
}

// counted makes a sample of value one of each sample, as COUNT has it. Stale markers stay.
type counted struct {
	chunkenc.Iterator
	stale bool // the current sample is a stale marker
}

func (c *counted) pass(typ chunkenc.ValueType) chunkenc.ValueType {
	if typ == chunkenc.ValNone {
		return typ
	}
	c.stale = isStale(pointAt(c.Iterator, typ).v)
	return chunkenc.ValFloat
}

func (c *counted) Next() chunkenc.ValueType { return c.pass(c.Iterator.Next()) }

func (c *counted) Seek(t int64) chunkenc.ValueType { //nolint:govet // Prometheus' Seek, not io.Seeker's
	return c.pass(c.Iterator.Seek(t))
}

func (c *counted) At() (int64, float64) {
	if c.stale {
		return c.AtT(), math.Float64frombits(stale.StaleNaN)
	}
	return c.AtT(), 1
}

// isStale reports whether v marks the end of a series.
func isStale(v value) bool {
	if v.h != nil {
		return stale.IsStaleNaN(v.h.Sum)
	}
	return stale.IsStaleNaN(v.f)
}

// chained reads iterators over successive spans one after the other.
type chained struct {
	open func(i int) (chunkenc.Iterator, error)
	n    int
	chunkenc.Iterator
	next int
	err  error
}

// newChained opens n iterators when they are reached.
func newChained(n int, open func(i int) (chunkenc.Iterator, error)) *chained {
	return &chained{open: open, n: n, Iterator: chunkenc.NewNopIterator()}
}

func (c *chained) Next() chunkenc.ValueType {
	return c.move(func(it chunkenc.Iterator) chunkenc.ValueType { return it.Next() })
}

func (c *chained) Seek(t int64) chunkenc.ValueType { //nolint:govet // Prometheus' Seek, not io.Seeker's
	return c.move(func(it chunkenc.Iterator) chunkenc.ValueType { return it.Seek(t) })
}

func (c *chained) move(step func(chunkenc.Iterator) chunkenc.ValueType) chunkenc.ValueType {
	for c.err == nil {
		if typ := step(c.Iterator); typ != chunkenc.ValNone {
			return typ
		}
		if c.err = c.Iterator.Err(); c.err != nil || c.next == c.n {
			break
		}
		c.Iterator, c.err = c.open(c.next)
		c.next++
	}
	return chunkenc.ValNone
}

func (c *chained) Err() error { return c.err }
