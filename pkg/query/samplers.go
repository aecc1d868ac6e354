package query

import (
	"math"
	"slices"
	"sort"
)

// minTime is earlier than any sample, with room to calculate.
const minTime = math.MinInt64 / 2

// windowStart is the first millisecond of the window that ends at or after t.
func windowStart(t, resolution int64) int64 {
	start := t - t%resolution
	if start > t { // t is negative
		start -= resolution
	}
	return start
}

// firstAfter is the index of the first point later than t.
func firstAfter(points []point, t int64) int {
	return sort.Search(len(points), func(i int) bool { return points[i].t > t })
}

// windowed makes samples of windows where the engine looks: at the points of a
// grid, and where windows end before a hole. A sample stands for the time since the
// one before; of a gauge it is the value there, of sums and counts the share of that
// time, of extremes those of all windows that the time touches. Where it is known when
// scrapes were, a sample of sums and counts stands for the scrapes in that time.
//
// A window stands for the time after its start, up to its end. So a range that is
// as long as windows holds exactly those, whether it ends with the last millisecond of
// one or with the first of the next: PromQL's ranges exclude their left border.
type windowed struct {
	windows    []point // at the windows' ends
	resolution int64
	grid       grid
	aggregate  aggregate
	scraped    rhythm // of sums and counts
}

// knowScrapes lets windows end with the last scrape in them; and samples stand at
// scrapes where there would be more of them than of those.
func (w *windowed) knowScrapes(scraped rhythm) {
	w.scraped, w.grid = scraped, scraped.sparse(w.grid)
	for i, p := range w.windows {
		if t := scraped.upTo(p.t); t >= windowStart(p.t, w.resolution) && (i == 0 || t > w.windows[i-1].t) {
			w.windows[i].t = t
		}
	}
}

// start of window i: its own border, or where a window before was cut in two; the
// last scrape before, where it is known when that was.
func (w windowed) start(i int) int64 {
	start, after := windowStart(w.windows[i].t, w.resolution), int64(1)
	if w.scraped.interval > 0 {
		start, after = w.scraped.upTo(start-1), 0
	}
	if i > 0 {
		start = max(start, w.windows[i-1].t+after)
	}
	return start
}

// ends reports whether nothing follows window i without a hole, or what follows
// cannot be added to it: a histogram after a float, custom buckets after others.
func (w windowed) ends(i int) bool {
	return i+1 == len(w.windows) || w.start(i+1) > w.windows[i].t+1 || !w.windows[i].v.addable(w.windows[i+1].v)
}

func (w windowed) after(t int64) (point, bool, error) {
	for i := firstAfter(w.windows, t-1); i < len(w.windows); i++ {
		at := w.look(t, w.start(i))
		for w.windows[i].t+1 < w.scraped.upTo(at) && !w.ends(i) {
			i++
		}
		end := w.windows[i].t
		if at > end && w.ends(i) {
			at = end
		}
		from := w.scraped.upTo(w.grid.before(at))
		if at <= t || from >= end && w.aggregate != gauge {
			t = max(t, at)
			continue // nothing is left of the window
		}
		v, err := w.value(i, from, w.scraped.upTo(at))
		return point{at, v}, err == nil, err
	}
	return point{}, false, nil
}

// look is the first point of the grid later than t up to which anything was scraped after start.
func (w windowed) look(t, start int64) int64 {
	at := w.grid.after(max(t, start))
	for to := w.scraped.upTo(at); to <= start || to == w.scraped.upTo(w.grid.before(at)); to = w.scraped.upTo(at) {
		at = w.grid.after(at)
	}
	return at
}

// value of the time after from up to to, which lies in window i.
func (w windowed) value(i int, from, to int64) (value, error) {
	if w.aggregate == gauge {
		return w.windows[i].v, nil
	}
	v, err := w.share(i, from, to), error(nil)
	for err == nil && w.start(i)-1 > from && i > 0 && !w.ends(i-1) {
		i--
		v, err = w.fold(w.share(i, from, to), v)
	}
	return v, err
}

// share is what window i gives to the time after from up to to.
func (w windowed) share(i int, from, to int64) value {
	v := w.windows[i].v
	if w.aggregate == minimum || w.aggregate == maximum {
		return v
	}
	start, end := w.start(i), w.windows[i].t
	if from <= start && end <= to {
		return v
	}
	length := float64(end - start)
	a, b := float64(max(from, start)-start)/length, float64(min(to, end)-start)/length
	share := v.times(b - a)
	if v.h == nil {
		share.f += w.slope(i) * (b - a) * (a + b - 1) / 2
	}
	return share
}

// slope is by how much what window i sums up grows from its begin to its end.
func (w windowed) slope(i int) float64 {
	if w.aggregate != sum {
		return 0
	}
	return growth(w.windows[i].v.f, func(k int) float64 { return w.step(i + k) })
}

// growth is by how much what adds up to v in a window grows from its begin to its end, as
// its neighbours bear out: between the steps to both of them where they go one way, and
// through a summit or a trough where the course bends alike all around. What jumps
// is taken for even. No part gets another sign than the window has by that. Step 0 leads to
// the next window, step -1 from the one before; NaN if there is none.
func growth(v float64, step func(k int) float64) float64 {
	before, after := step(-1), step(0)
	bend := milder(after-before, milder(before-step(-2), step(1)-after))
	switch {
	case math.IsNaN(before):
		before, bend = beyond(after, step(1), step(2))
		bend = -bend
	case math.IsNaN(after):
		after, bend = beyond(before, step(-2), step(-3))
	}
	if smooth := milder(before+bend/2, after-bend/2); math.Abs(smooth) <= 2*math.Abs(v) {
		return smooth
	}
	return milder(before, after)
}

// beyond is the step that follows far, next and near where nothing is known of it,
// and by how much it differs from near: as much as those differ, if they do so alike.
func beyond(near, next, far float64) (step, bend float64) {
	bend = milder(near-next, next-far)
	if !(math.Abs(near-next) <= 2*math.Abs(bend)) { // or next is missing
		return next, 0
	}
	return near + bend, bend
}

// step is by how much window i+1 sums up more than window i; NaN where either is
// missing, or is a histogram.
func (w windowed) step(i int) float64 {
	if i < 0 || i >= len(w.windows) || w.ends(i) || w.windows[i].v.h != nil || w.windows[i+1].v.h != nil {
		return math.NaN()
	}
	return w.windows[i+1].v.f - w.windows[i].v.f
}

// milder is the smaller one of two finite numbers of one sign, else 0.
func milder(a, b float64) float64 {
	least := math.Min(math.Abs(a), math.Abs(b))
	if a > 0 != (b > 0) || math.IsNaN(least) || math.IsInf(least, 0) {
		return 0
	}
	return math.Copysign(least, a)
}

func (w windowed) fold(a, b value) (value, error) {
	if w.aggregate == minimum {
		return value{f: min(a.f, b.f)}, nil
	}
	if w.aggregate == maximum {
		return value{f: max(a.f, b.f)}, nil
	}
	return a.plus(b)
}

// run is a piece of a counter without holes.
type run struct {
	points []point // at least one
	coarse bool    // runs on between its points; otherwise it consists of them
}

// course makes samples of a counter where the engine looks: at the borders of
// its ranges, so that it has nothing to extrapolate, and in between.
type course struct {
	runs []run // in the order of time
	grid grid
}

func (c course) after(t int64) (point, bool, error) {
	i := sort.Search(len(c.runs), func(i int) bool { return c.runs[i].points[len(c.runs[i].points)-1].t > t })
	if i == len(c.runs) {
		return point{}, false, nil
	}
	r := c.runs[i]
	if first := r.points[0]; first.t > t {
		return first, true, nil
	}
	next := firstAfter(r.points, t)
	if !r.coarse {
		return r.points[next], true, nil
	}
	at := min(c.grid.after(t), r.points[len(r.points)-1].t)
	for r.points[next].t < at {
		next++
	}
	if r.points[next].t == at {
		return r.points[next], true, nil
	}
	v, err := mix(r.points[next-1].v, r.points[next].v, r.part(next, at))
	return point{at, v}, err == nil, err
}

// part is how much of what was gained between point i and the one before was gained up
// to t, in between. It grows as it does around, but everywhere by a tenth of its mean: rounding
// must not make a reset of a standstill.
func (r run) part(i int, t int64) float64 {
	part := float64(t-r.points[i-1].t) / float64(r.points[i].t-r.points[i-1].t)
	gain := r.points[i].v.total() - r.points[i-1].v.total()
	if grows := growth(gain, func(k int) float64 { return r.step(i, k) }) / gain; !math.IsNaN(grows) {
		part += max(-1.8, min(grows, 1.8)) * part * (part - 1) / 2
	}
	return part
}

// step is by how much what is gained before point i would change, from its begin to its
// end, if it did so as from the gain that is k further on to the next one.
func (r run) step(i, k int) float64 {
	if i+k < 1 || i+k+1 >= len(r.points) {
		return math.NaN()
	}
	a, b, c := r.points[i+k-1], r.points[i+k], r.points[i+k+1]
	before, after := (b.v.total()-a.v.total())/float64(b.t-a.t), (c.v.total()-b.v.total())/float64(c.t-b.t)
	length := float64(r.points[i].t - r.points[i-1].t)
	return (after - before) / (float64(c.t-a.t) / 2) * length * length
}

// between is the value at t on the line from a to b; a.t < t <= b.t.
func between(a, b point, t int64) (value, error) {
	if t == b.t {
		return b.v, nil
	}
	return mix(a.v, b.v, float64(t-a.t)/float64(b.t-a.t))
}

// mix is a, and a part of the way from there to b.
func mix(a, b value, part float64) (value, error) {
	if a.h == nil {
		return value{f: a.f + (b.f-a.f)*part}, nil
	}
	way, err := b.minus(a)
	if err != nil {
		return value{}, err
	}
	return way.times(part).plus(a)
}

// grid is the union of times that repeat every spacing milliseconds.
type grid struct {
	spacing int64
	phases  []int64 // each in [0, spacing)
}

// after is the first point of the grid later than t.
func (g grid) after(t int64) int64 {
	next := int64(math.MaxInt64)
	for _, phase := range g.phases {
		next = min(next, phase+windowStart(t-phase, g.spacing)+g.spacing)
	}
	return next
}

// before is the last point of the grid earlier than t.
func (g grid) before(t int64) int64 {
	last := int64(math.MinInt64)
	for _, phase := range g.phases {
		last = max(last, phase+windowStart(t-1-phase, g.spacing))
	}
	return last
}

// looks says where an expression looks at a selector: over rangeMillis before
// every step from the first look on.
type looks struct {
	start, end  int64 // the earliest and the latest time that matters
	step        int64 // 0: once
	rangeMillis int64 // 0: an instant selector, which sees lookback
	lookback    int64
}

const (
	// leastPerRange is how many samples every range has at the least.
	leastPerRange = 8
	// mostPerRange is how many it has at most, unless steps or windows are that many.
	mostPerRange = 1024
)

// cut reports whether any range begins or ends inside of a window. Looks of
// subqueries may count as such when they are none: where they begin is not known.
func (l looks) cut(resolution int64) bool {
	look := l.start + l.rangeMillis - 1
	whole := windowStart(look, resolution) == look || windowStart(look+1, resolution) == look+1
	again := l.step > 0 && l.end >= look+l.step
	return !whole || l.rangeMillis%resolution != 0 || again && l.step%resolution != 0
}

// grid holds every look, and for ranges their left border moved by the given
// milliseconds: 1 where the range shall find a sample at its very begin, 0 where what
// lies before it ends. It does so whether the evaluation starts anywhere (a query)
// or at a multiple of the step (a subquery). When looks follow each other so fast that a
// range would have more than mostPerRange samples, borders are missed by one part in that many.
func (l looks) grid(resolution, border int64) grid {
	reach := l.rangeMillis
	if reach == 0 {
		reach = l.lookback
	}
	g := grid{spacing: l.spacing(resolution)}
	look := l.start + reach - 1
	l.add(&g, look, border)
	if l.step > 0 {
		l.add(&g, 0, border)
	}
	return g
}

// add puts the borders of a look at t onto the grid.
func (l looks) add(g *grid, t, border int64) {
	points := []int64{t}
	if l.rangeMillis > 0 {
		points = append(points, t-l.rangeMillis+border)
	}
	for _, p := range points {
		if phase := p - windowStart(p, g.spacing); !slices.Contains(g.phases, phase) {
			g.phases = append(g.phases, phase)
		}
	}
}

// spacing is the distance of samples: no more than a window, and in a range leastPerRange.
func (l looks) spacing(resolution int64) int64 {
	if l.rangeMillis == 0 {
		most := max(1, min(resolution, l.lookback))
		if l.step == 0 || l.step > most {
			return divisor(max(l.step, most), most)
		}
		return l.step
	}
	most := max(1, min(resolution, l.rangeMillis/leastPerRange))
	if l.step == 0 {
		return most
	}
	// All looks and both borders lie on a grid that divides step and range.
	if common := gcd(l.step, l.rangeMillis); common >= l.rangeMillis/mostPerRange {
		return divisor(common, min(common, most))
	}
	if l.step >= most {
		return divisor(l.step, most)
	}
	most = min(most, l.rangeMillis/mostPerRange)
	if l.step >= most {
		return l.step
	}
	// At the least, looks at the borders of windows have their ranges' borders on the grid.
	if common := gcd(resolution, l.rangeMillis); common > most {
		return divisor(common, most)
	}
	return most
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// divisor is a divisor of step not far below most, or most when step has none.
func divisor(step, most int64) int64 {
	first := (step + most - 1) / most
	for n := first; n < first+64; n++ {
		if step%n == 0 {
			return step / n
		}
	}
	return most
}
