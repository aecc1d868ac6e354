package query

import (
	"fmt"
	"math"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
)

// happenings reads a series of several resolutions as a staircase with one step
// for everything that happened: down for a counter's reset, up for a change. Of raw
// samples every one is seen; of a coarse window, whether anything happened in it, as if
// in its middle.
func happenings(segments []segment, agg aggregate, l looks) (chunkenc.Iterator, error) {
	w := watch{agg: agg}
	var samplers []sampler
	for _, s := range segments {
		if s.resolution == block.Raw {
			points, err := w.raw(s)
			if err != nil {
				return nil, err
			}
			if len(points) > 0 {
				samplers = append(samplers, course{runs: []run{{points: points}}})
			}
			continue
		}
		windows, err := s.windows(w.coarse)
		if err != nil {
			return nil, err
		}
		samplers = append(samplers, s.windowed(w.staircase(windows, int64(s.resolution)), gauge, l))
	}
	return newChained(len(samplers), func(i int) (chunkenc.Iterator, error) {
		return &sampled{src: samplers[i]}, nil
	}), nil
}

// watch walks over a series and notes what happens.
type watch struct {
	agg   aggregate
	level float64 // of the staircase

	known  bool  // last is the value before
	last   value // what was scraped at time lastT; of histograms in coarse data, the average or the counter
	lastT  int64
	varied bool // last stands for a window in which the value changed
}

// step is one thing that happened.
func (w *watch) step() {
	if w.agg == resetting {
		w.level--
	} else {
		w.level++
	}
}

// saw reports whether the value that follows last shows a reset or a change.
func (w *watch) saw(v value) bool {
	switch {
	case !w.known:
		return false
	case !w.last.sameType(v):
		return true
	case w.agg == resetting:
		return v.fellFrom(w.last)
	case v.h != nil:
		return !v.h.Equals(w.last.h)
	}
	return v.f != w.last.f && !(math.IsNaN(v.f) && math.IsNaN(w.last.f))
}

func (w *watch) raw(s segment) ([]point, error) {
	var points []point
	it := s.samples()
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		p := pointAt(it, typ)
		if isStale(p.v) {
			continue
		}
		if w.known && w.lastT >= p.t {
			w.known = false // a coarse chunk reached over the border
		}
		if !w.varied && w.saw(p.v) {
			w.step()
		}
		w.known, w.varied, w.last, w.lastT = true, false, p.v, p.t
		points = append(points, point{p.t, value{f: w.level}})
	}
	return points, it.Err()
}

// coarse returns for each window of a chunk 1 when something happened in it, else 0.
func (w *watch) coarse(subs aggrchunk.Subs) ([]point, error) {
	if w.agg == resetting {
		return w.coarseResets(subs)
	}
	return w.coarseChanges(subs)
}

// coarseChanges sees a change in a window whose minimum is not its maximum, and
// where two windows meet that hold one value each. Histograms have neither;
// their averages are compared.
func (w *watch) coarseChanges(subs aggrchunk.Subs) ([]point, error) {
	windows, err := decodeWindows(subs, gauge)
	if err != nil {
		return nil, err
	}
	lowest, err := decodePoints(subs[aggrchunk.Min])
	if err != nil {
		return nil, err
	}
	highest, err := decodePoints(subs[aggrchunk.Max])
	if err != nil {
		return nil, err
	}
	if extremes := len(lowest) + len(highest); extremes != 0 && extremes != 2*len(windows) || len(lowest) != len(highest) {
		return nil, fmt.Errorf("%w: %d minima and %d maxima for %d windows", aggrchunk.ErrInvalid, len(lowest), len(highest), len(windows))
	}
	steps := map[bool]value{true: {f: 1}}
	for i := range windows {
		v, varied := windows[i].v, false
		if len(lowest) > 0 {
			v, varied = lowest[i].v, lowest[i].v != highest[i].v
		}
		happened := varied || !w.varied && w.saw(v)
		w.known, w.varied, w.last, w.lastT = true, varied, v, windows[i].t
		windows[i].v = steps[happened]
	}
	return windows, nil
}

// coarseResets sees a reset where a counter gained more in a window than the way
// from its last value to its maximum: without a reset, a window's last value is its
// maximum. After one the other end of the way is taken for the last value; when it was
// higher the next maximum says so. Histograms are cut into chunks at resets.
func (w *watch) coarseResets(subs aggrchunk.Subs) ([]point, error) {
	knots, err := decodePoints(subs[aggrchunk.Counter])
	if err != nil || len(knots) == 0 {
		return nil, err
	}
	steps := map[bool]value{true: {f: 1}}
	if knots[0].v.h != nil {
		for i, k := range knots {
			happened := w.saw(k.v)
			w.known, w.varied, w.last, w.lastT = true, false, k.v, k.t
			knots[i].v = steps[happened]
		}
		return knots, nil
	}
	highest, err := decodePoints(subs[aggrchunk.Max])
	if err != nil {
		return nil, err
	}
	if len(knots) != len(highest)+2 {
		return nil, fmt.Errorf("%w: %d points of a counter for %d maxima", aggrchunk.ErrInvalid, len(knots), len(highest))
	}
	happened := w.saw(knots[0].v)
	last := knots[0].v.f
	for i, h := range highest {
		const rounding = 1e-9 // of the running total
		reached, most := last+knots[i+1].v.f-knots[i].v.f, h.v.f
		if last = most; reached > most+rounding*math.Abs(knots[i+1].v.f) {
			happened, last = true, min(most, reached-most)
		}
		highest[i].v = steps[happened]
		happened = false
	}
	end := knots[len(knots)-1]
	w.known, w.varied, w.last, w.lastT = true, false, end.v, end.t
	return highest, nil
}

// staircase makes two windows of each, the second one beyond its step.
func (w *watch) staircase(windows []point, resolution int64) []point {
	stairs := make([]point, 0, 2*len(windows))
	for i, p := range windows {
		start := windowStart(p.t, resolution)
		if i > 0 {
			start = max(start, windows[i-1].t+1)
		}
		if p.v.f != 0 && p.t > start {
			stairs = append(stairs, point{start + (p.t-start)/2, value{f: w.level}})
		}
		if p.v.f != 0 {
			w.step()
		}
		stairs = append(stairs, point{p.t, value{f: w.level}})
	}
	return stairs
}
