package query

import (
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/series"
)

// counterRuns reads a series of several resolutions as one counter without
// resets: after one it goes on from where it was. Coarse runs are the windows'
// ends and the true first sample of each chunk; a hole of more than two windows ends a run.
func counterRuns(segments []segment, scraped rhythm) ([]run, error) {
	t := tally{scraped: scraped}
	for i, s := range segments {
		t.cut()
		if s.resolution == block.Raw {
			if err := t.addRaw(s); err != nil {
				return nil, err
			}
			continue
		}
		t.bridge = 2 * int64(max(s.resolution, segments[max(i, 1)-1].resolution))
		for _, c := range s.chunks {
			if c.MaxTime < s.from || c.MinTime > s.to {
				continue
			}
			if err := t.addChunk(s, c); err != nil {
				return nil, err
			}
		}
	}
	return t.runs, nil
}

// tally adds up a counter.
type tally struct {
	runs    []run
	open    bool  // the last run goes on
	bridge  int64 // a coarse run begins at the end of the run before if that is no farther away
	started bool
	at      point // last point, corrected
	raw     value // the value at that time as it was scraped
	// ahead is the running counter of the last coarse chunk where it goes on after
	// the last point: what is scraped there is unknown, but not what was gained.
	ahead []point
	// scraped is when. At a window's end stands the value of the last sample in it; where it
	// is known when that was, so that raw samples compare with it, the point goes there.
	scraped rhythm
}

// cut ends the current run; the next one may go on from its last point.
func (c *tally) cut() { c.open = false }

// part ends the current run, and no line leads to the next.
func (c *tally) part() { c.open, c.bridge = false, 0 }

// begin opens a run if none is open. A coarse one begins where the run before
// ended, if that is not too far from t.
func (c *tally) begin(r run, t int64) {
	if c.open {
		return
	}
	if r.coarse && c.started && t-c.at.t <= c.bridge {
		r.points = append(r.points, c.at)
	}
	c.runs, c.open = append(c.runs, r), true
}

// emit appends a corrected point to the open run; raw is what was scraped.
func (c *tally) emit(p point, raw value) {
	last := &c.runs[len(c.runs)-1]
	last.points = append(last.points, p)
	c.at, c.raw, c.started = p, raw, true
}

// follow returns the corrected value of a sample that was scraped after the last one.
func (c *tally) follow(p point) (value, error) {
	switch {
	case !c.started || c.breaks(p.v):
		return p.v, nil
	case c.rebounds(p.v):
		return c.rebound(p.v)
	case len(c.ahead) > 0 && c.ahead[0].t <= c.at.t && p.t <= c.ahead[len(c.ahead)-1].t:
		from, err := valueAt(c.ahead, c.at.t)
		if err != nil {
			return value{}, err
		}
		to, err := valueAt(c.ahead, p.t)
		if err != nil {
			return value{}, err
		}
		return c.rise(from, to)
	case p.v.fellFrom(c.raw):
		return c.at.v.plus(p.v)
	}
	return c.rise(c.raw, p.v)
}

// enter returns the corrected value of a chunk's first sample. Where the last chunk goes on to
// the end of a window of both, what either of them counted up to there tells it exactly.
func (c *tally) enter(knots []point) (value, error) {
	if len(c.ahead) == 0 || c.ahead[0].t > c.at.t {
		return c.follow(knots[0])
	}
	for _, k := range knots[1:] {
		i := firstAfter(c.ahead, k.t-1)
		if i == len(c.ahead) {
			break
		}
		if c.ahead[i].t != k.t || k.t <= c.at.t || c.breaks(k.v) {
			continue
		}
		from, err := valueAt(c.ahead, c.at.t)
		if err != nil {
			return value{}, err
		}
		end, err := c.rise(from, c.ahead[i].v)
		if err != nil {
			return value{}, err
		}
		gained, err := k.v.minus(knots[0].v)
		if err != nil {
			return value{}, err
		}
		first, err := end.minus(gained)
		if first.h == nil {
			first.f = max(first.f, c.at.v.f) // rounding is no reset
		}
		return first, err
	}
	return c.follow(knots[0])
}

// valueAt is the value at t on the lines between points, which reach from t or earlier to t or later.
func valueAt(points []point, t int64) (value, error) {
	next := firstAfter(points, t-1)
	if points[next].t == t {
		return points[next].v, nil
	}
	return between(points[next-1], points[next], t)
}

// breaks reports whether v cannot be added to what was counted before: a float
// and a histogram, custom buckets and others, or finer buckets, which come with a reset.
func (c *tally) breaks(v value) bool {
	switch {
	case !c.raw.addable(v):
		return true
	case v.h == nil || v.h.UsesCustomBuckets():
		return false
	}
	return v.h.Schema > c.at.v.h.Schema || v.h.ZeroThreshold < c.at.v.h.ZeroThreshold
}

// rebounds reports whether v has other custom buckets than what was counted before.
func (c *tally) rebounds(v value) bool {
	return v.h != nil && v.h.UsesCustomBuckets() && !slices.Equal(v.h.CustomValues, c.at.v.h.CustomValues)
}

// rebound is follow for other custom buckets. What was counted goes on in those: where bounds of both meet,
// the engine gets the same from the old ones and from the new ones.
func (c *tally) rebound(v value) (value, error) {
	fell := v.fellFrom(c.raw)
	c.part()
	c.ahead = nil
	c.at.v, c.raw = c.at.v.within(v.h.CustomValues), c.raw.within(v.h.CustomValues)
	if fell {
		return c.at.v.plus(v)
	}
	return c.rise(c.raw, v)
}

// within returns a histogram of custom buckets in those of other bounds: what was up to a bound is up to the next one of them.
func (v value) within(bounds []float64) value {
	h := *v.h
	h.CustomValues, h.PositiveSpans = bounds, []histogram.Span{{Length: uint32(len(bounds)) + 1}}
	h.PositiveBuckets = make([]float64, len(bounds)+1)
	for it := v.h.PositiveBucketIterator(); it.Next(); {
		b := it.At()
		at, _ := slices.BinarySearch(bounds, b.Upper)
		h.PositiveBuckets[at] += b.Count
	}
	return value{h: &h}
}

// rise returns the total after a counter went from one value to another without a reset.
func (c *tally) rise(from, to value) (value, error) {
	more, err := to.minus(from)
	if err != nil {
		return value{}, err
	}
	return c.at.v.plus(more)
}

func (c *tally) addRaw(s segment) error {
	it := s.samples()
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		p := pointAt(it, typ)
		if isNoSample(p.v) || c.started && p.t <= c.at.t {
			continue
		}
		corrected, err := c.follow(p)
		if err != nil {
			return err
		}
		if c.started && c.breaks(p.v) {
			c.cut()
		}
		c.begin(run{}, p.t)
		c.emit(point{p.t, corrected}, p.v)
		c.ahead = nil
	}
	return it.Err()
}

// isNoSample is true for stale markers and floats that are no numbers. A histogram whose
// sum is none counts on: it has observed a NaN.
func isNoSample(v value) bool { return isStale(v) || v.h == nil && math.IsNaN(v.f) }

// knots reads a counter aggregate: the first raw sample, the running value at each
// window's end, and the last value as it was scraped, which floats have behind these.
func (c *tally) knots(r block.Resolution, chunk series.Chunk) (knots []point, lastRaw value, err error) {
	subs, err := aggrchunk.Decode(chunk.Data)
	if err != nil {
		return nil, value{}, fmt.Errorf("read downsampled chunk: %w", err)
	}
	knots, err = decodePoints(subs[aggrchunk.Counter])
	if err != nil {
		return nil, value{}, fmt.Errorf("read downsampled counter: %w", err)
	}
	if len(knots) == 0 {
		return nil, value{}, nil
	}
	lastRaw = knots[len(knots)-1].v
	if n := len(knots); n > 1 && knots[n-1].t == knots[n-2].t {
		knots = knots[:n-1]
	}
	for i, k := range knots {
		if t := c.scraped.upTo(k.t); (k.t+1)%int64(r) == 0 && (i == 0 || t > knots[i-1].t) {
			knots[i].t = t
		}
	}
	return knots, lastRaw, nil
}

// addChunk goes through a counter aggregate.
func (c *tally) addChunk(s segment, chunk series.Chunk) error {
	knots, lastRaw, err := c.knots(s.resolution, chunk)
	if err != nil || len(knots) == 0 {
		return err
	}
	used := 0
	for i, k := range knots {
		if k.t < s.from || k.t > s.to || c.started && k.t <= c.at.t {
			continue
		}
		if c.started && (k.t-c.at.t > 2*int64(s.resolution) || c.breaks(k.v)) {
			c.part()
		}
		corrected, err := c.atKnot(knots, i)
		if err != nil {
			return err
		}
		used = i + 1
		if i == 0 && (c.jumps(k, corrected, s.resolution) || c.joins(knots, s.resolution)) {
			// Only what the counter gained matters, not when: see joins.
			c.at.v, c.raw = corrected, k.v
			if k.v.h != nil {
				k.v.h.CounterResetHint = histogram.UnknownCounterReset // it was counted
			}
			continue
		}
		c.begin(run{coarse: true}, k.t)
		c.emit(point{k.t, corrected}, k.v)
	}
	switch {
	case used == len(knots):
		c.raw, c.ahead = lastRaw, nil
	case used > 0:
		c.ahead = knots
	}
	return nil
}

// jumps reports whether the counter is taken for reset before k although it went on, because its buckets
// became finer. The engine adds the whole counter to ranges that hold samples of both kinds. So all of it is put into one
// millisecond: that which begins the window of k if the last point is in another one, and otherwise that before k.
func (c *tally) jumps(k point, to value, r block.Resolution) bool {
	if !c.started || k.v.h == nil || k.v.h.CounterResetHint != histogram.CounterReset || c.breaks(k.v) || k.v.h.Count < c.raw.h.Count {
		return false
	}
	c.begin(run{coarse: true}, k.t)
	from := max(c.at.t, min(windowStart(k.t, int64(r)), k.t-1))
	if from > c.at.t {
		c.emit(point{from, c.at.v}, c.raw)
	}
	c.emit(point{from + 1, to}, k.v)
	return true
}

// joins reports whether the first sample of a chunk is no point of its own, because the chunk
// goes on where the one before has ended. Between chunks the points are brought into the
// form that they have inside: at a window's end stands the value of the last sample in it. The
// first sample of a chunk and the time of the last one would be points of another
// kind, a part of a scrape interval off. Histograms have such a first sample
// behind resets alone; elsewhere they begin with a window's end.
func (c *tally) joins(knots []point, r block.Resolution) bool {
	if !c.started || !c.runs[len(c.runs)-1].coarse {
		return false
	}
	t := knots[0].t
	if !c.open && t-c.at.t > c.bridge {
		return false
	}
	c.open = true // where another coarse resolution has ended the line goes on, too
	points := c.runs[len(c.runs)-1].points
	last := &points[len(points)-1]
	switch start := windowStart(t, int64(r)); {
	case start == windowStart(last.t, int64(r)) && len(points) > 1: // cut in two: its end is still to come
		c.runs[len(c.runs)-1].points = points[:len(points)-1]
	case start == windowStart(last.t, int64(r))+int64(r):
		last.t = max(last.t, c.scraped.upTo(start-1))
		c.at.t = last.t
	default:
		return false
	}
	return knots[0].v.h == nil || len(knots) > 1 && windowStart(t, int64(r)) == windowStart(knots[1].t, int64(r))
}

// atKnot is the corrected value of knot i. Inside a chunk the running value has
// no resets: what it gained since the last point is added, which may lie between
// two knots when only a part of the chunk is new, or before the first.
func (c *tally) atKnot(knots []point, i int) (value, error) {
	k := knots[i]
	switch {
	case !c.started || c.breaks(k.v):
		return k.v, nil
	case c.at.t >= knots[0].t:
		base, err := valueAt(knots, c.at.t)
		if err != nil {
			return value{}, err
		}
		return c.rise(base, k.v)
	}
	first, err := c.enter(knots)
	if err != nil || i == 0 {
		return first, err
	}
	more, err := k.v.minus(knots[0].v)
	if err != nil {
		return value{}, err
	}
	return first.plus(more)
}
