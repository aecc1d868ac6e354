package query

import (
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"

	"github.com/varve-io/varve/pkg/block"
)

// zoomed is one function of the zoom matrix.
type zoomed struct {
	expr   string // R stands for the range
	series string
	// truth over a range; nil: what the raw data alone answer, asked for ranges up to a week.
	truth func(p *scraped, from, to int64) float64
	// asked is the relative error allowed at ranges of two coarse windows or more, 0: it is only measured.
	asked float64
	// aligned functions answer as asked only where ranges begin and end with windows.
	aligned bool
	// unknowable is the standard deviation that is left open by the windows that a range of
	// fewer than leastWindows cuts where no finer data exist; nil: it matters not.
	unknowable func(p *scraped, from, to, resolution int64) float64
	// scale is the least that errors are relative to, for what goes through zero.
	scale float64
	// absent functions answer where there is nothing.
	absent bool
}

// asksFor reports whether a range makes a query of its own that the data can answer.
func (f zoomed) asksFor(width time.Duration) bool {
	const week = 7 * 24 * time.Hour
	switch {
	case !strings.Contains(f.expr, "[R"):
		return width == 5*time.Minute
	case strings.Contains(f.expr, "[R:"): // an instant a minute
		return width <= week
	case f.histogram(): // 40 days of data
		return width <= 30*24*time.Hour
	}
	return true
}

func (f zoomed) histogram() bool {
	return strings.Contains(f.expr, "latency") || strings.Contains(f.expr, "sizes")
}

func zoomedFunctions() []zoomed {
	const exact = 1e-9
	return []zoomed{
		{expr: "rate(requests_total[R])", series: "requests_total", truth: (*scraped).rate, asked: 0.01, unknowable: (*scraped).cutGain},
		{expr: "increase(requests_total[R])", series: "requests_total", truth: (*scraped).increase, asked: 0.01, unknowable: (*scraped).cutGain},
		{expr: "increase(bursts_total[R])", series: "bursts_total", truth: (*scraped).gain, asked: 0.01, aligned: true},
		{expr: "irate(requests_total[R])"},
		{expr: "histogram_count(increase(latency[R]))", series: "latency", truth: (*scraped).increase, asked: 0.01, unknowable: (*scraped).cutGain},
		{expr: "histogram_count(increase(sizes[R]))", series: "latency", truth: (*scraped).increase, asked: 0.01, unknowable: (*scraped).cutGain},
		{expr: "histogram_quantile(0.9, rate(latency[R]))", asked: 0.02, aligned: true},
		{expr: "histogram_quantile(0.9, rate(sizes[R]))", asked: 0.02, aligned: true},
		{expr: "histogram_quantile(0.9, rate(latency_bucket[R]))", asked: 0.02, aligned: true},
		{expr: "min_over_time(temperature[R])", series: "temperature", truth: (*scraped).min, asked: exact, aligned: true},
		{expr: "max_over_time(temperature[R])", series: "temperature", truth: (*scraped).max, asked: exact, aligned: true},
		{expr: "avg_over_time(temperature[R])", series: "temperature", truth: (*scraped).avg, asked: 0.001, unknowable: (*scraped).cutSum},
		{expr: "count_over_time(temperature[R])", series: "temperature", truth: (*scraped).count, asked: 0.005},
		{expr: "sum_over_time(temperature[R])", series: "temperature", truth: (*scraped).sum, asked: 0.005, unknowable: (*scraped).cutSum},
		{expr: "avg_over_time(pressure[R])", series: "pressure", truth: (*scraped).avg, asked: 0.001},
		{expr: "sum_over_time(pressure[R])", series: "pressure", truth: (*scraped).sum, asked: 0.005},
		{expr: "stddev_over_time(temperature[R])", scale: 5},
		{expr: "stdvar_over_time(temperature[R])", scale: 25},
		{expr: "quantile_over_time(0.9, temperature[R])"},
		{expr: "mad_over_time(temperature[R])", scale: 5},
		{expr: "first_over_time(temperature[R])"},
		{expr: "last_over_time(temperature[R])"},
		{expr: "present_over_time(temperature[R])", asked: exact},
		{expr: "absent_over_time(temperature[R])", absent: true},
		{expr: "delta(temperature[R])", scale: 300},
		{expr: "idelta(temperature[R])", scale: 7},
		{expr: "deriv(temperature[R])", scale: 0.022},
		{expr: "predict_linear(temperature[R], 3600)"},
		{expr: "double_exponential_smoothing(temperature[R], 0.5, 0.5)"},
		{expr: "ts_of_max_over_time(temperature[R])"},
		{expr: "ts_of_min_over_time(temperature[R])"},
		{expr: "ts_of_first_over_time(temperature[R])"},
		{expr: "ts_of_last_over_time(temperature[R])"},
		{expr: "resets(requests_total[R])", series: "requests_total", scale: 1, truth: func(p *scraped, from, to int64) float64 { return p.happened(p.resets, from, to) }},
		{expr: "changes(state[R])", series: "state", scale: 1, truth: func(p *scraped, from, to int64) float64 { return p.happened(p.changes, from, to) }},
		{expr: "max_over_time(rate(requests_total[R])[2h:30m] offset 1h)"},
		{expr: "avg_over_time(temperature[R:1m])"},
		{expr: "temperature"},
		{expr: "timestamp(temperature)"},
	}
}

// retentions are what a bucket may hold; every moment is held in some resolution.
func retentions(days int64) map[string]retention {
	at := func(part float64) int64 { return windowStart(epoch+int64(part*float64(days*day)), 2*hour) }
	all := []block.TimeRange{{MinTime: epoch, MaxTime: epoch + days*day}}
	between := func(parts ...float64) (out []block.TimeRange) {
		for i := 0; i < len(parts); i += 2 {
			out = append(out, block.TimeRange{MinTime: at(parts[i]), MaxTime: at(parts[i+1])})
		}
		return out
	}
	return map[string]retention{
		"all there":      {block.Raw: all, block.FiveMin: all, block.OneHour: all},
		"raw gone":       {block.FiveMin: all, block.OneHour: all},
		"only 5m":        {block.FiveMin: all},
		"only 1h":        {block.OneHour: all},
		"5m gone":        {block.Raw: between(0.6, 1), block.OneHour: all},
		"coarse is late": {block.Raw: between(0.4, 1), block.FiveMin: between(0, 0.8), block.OneHour: between(0, 0.6)},
		"gaps": {
			block.Raw: between(0.3, 0.45, 0.7, 1), block.FiveMin: between(0, 0.35, 0.5, 0.65), block.OneHour: between(0.35, 0.75),
		},
	}
}

// zoomCell is one query of the matrix.
type zoomCell struct {
	f           zoomed
	kept        string
	step, width time.Duration
	allowed     string // resolution asked for: finest, auto, 1h
}

func (c zoomCell) String() string {
	return fmt.Sprintf("%s by %s, %s, %s asked", c.text(), c.step, c.kept, c.allowed)
}

func (c zoomCell) text() string {
	return strings.ReplaceAll(c.f.expr, "[R", fmt.Sprintf("[%ds", int64(c.width.Seconds())))
}

// hash decides about a cell what need not be tried in every combination.
func (c zoomCell) hash(salt string) uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, c.String(), salt)
	return h.Sum64()
}

// zoomError is the worst error of a function over one resolution.
type zoomError struct {
	whole, cut, short float64 // at ranges of two windows or more that consist of whole windows, or cut some; at shorter ones
	where             string  // the worst of the first two
}

type zoomMatrix struct {
	zoo    *zoo
	raw    *Engine
	stores map[string]*Engine
	errors map[string]map[block.Resolution]*zoomError
	cells  int
	// open are the errors where something is unknowable, in standard deviations of that.
	open map[string][]float64
}

// zoomPart reads VARVE_ZOOM: full, or a part of the full matrix such as 3/20, the
// third of twenty. Without it, one cell in many of a smaller matrix is tried.
func zoomPart(t *testing.T) (part, of uint64, full bool) {
	t.Helper()
	switch text := os.Getenv("VARVE_ZOOM"); text {
	case "":
		return 1, 80, false
	case "full":
		return 1, 1, true
	default:
		if n, err := fmt.Sscanf(text, "%d/%d", &part, &of); n != 2 || err != nil || part < 1 || part > of {
			t.Fatalf("VARVE_ZOOM=%s: it is full, or a part of it such as 3/20", text)
		}
		return part, of, true
	}
}

// TestZoomMatrix asks functions × steps × ranges × retentions × resolutions
// asked for: no answer is empty, and no error larger than asked. It tries one cell in
// many, on two weeks of data; VARVE_ZOOM=full tries all, on 400 days, and prints the worst errors.
func TestZoomMatrix(t *testing.T) {
	part, of, full := zoomPart(t)
	days := int64(17)
	widths := []time.Duration{5 * time.Minute, 7 * time.Minute, 10 * time.Minute, 30 * time.Minute, time.Hour, 100 * time.Minute, 2 * time.Hour, 6 * time.Hour, 24 * time.Hour, 3 * 24 * time.Hour, 7 * 24 * time.Hour}
	if full {
		days = 400
		widths = append(widths, 30*24*time.Hour, 90*24*time.Hour, 365*24*time.Hour)
	}
	m := &zoomMatrix{zoo: newZoo(t, days), stores: map[string]*Engine{}, errors: map[string]map[block.Resolution]*zoomError{}, open: map[string][]float64{}}
	engine := func(r retention) *Engine {
		return newEngine(t, m.zoo.store.keep(r), func(o *Options) { o.MaxSamples, o.ExperimentalFunctions = 1e9, true })
	}
	m.raw = engine(only(block.Raw))
	for name, r := range retentions(days) {
		m.stores[name] = engine(r)
	}
	for _, f := range zoomedFunctions() {
		for _, width := range widths {
			if !f.asksFor(width) {
				continue
			}
			for _, step := range []time.Duration{15 * time.Second, time.Minute, 5 * time.Minute, 25 * time.Minute, time.Hour, 5 * time.Hour, 24 * time.Hour} {
				for kept := range m.stores {
					for _, allowed := range []string{"finest", "auto", "1h"} {
						if allowed == "auto" && autoIsNoChoice(step) {
							continue
						}
						if c := (zoomCell{f, kept, step, width, allowed}); c.hash("chosen")%of == part-1 {
							m.try(t, c)
						}
					}
				}
			}
		}
	}
	m.nothingBetter(t)
	if full || testing.Verbose() {
		m.report(t)
	}
}

// autoIsNoChoice reports whether auto asks for raw data, or for 1h, by a step: for what
// other cells ask for.
func autoIsNoChoice(step time.Duration) bool {
	return floorResolution(step.Milliseconds()/5) != block.FiveMin
}

// compared reports whether a cell's values are compared with anything, not only counted.
func (c zoomCell) compared() bool {
	return c.f.truth != nil || !c.f.absent && c.width <= 7*24*time.Hour
}

// times are when a cell is looked at: around a border of its retention, or
// anywhere; at multiples of the step, or not.
func (m *zoomMatrix) times(c zoomCell) Steps {
	points := int64(4)
	if !c.compared() {
		points = 1
	}
	step, width := c.step.Milliseconds(), c.width.Milliseconds()
	last := epoch + m.zoo.days*day - 3*hour - step
	if c.f.histogram() {
		last = min(last, epoch+40*day-3*hour-step)
	}
	earliest := min(epoch+width+6*hour, last-points*step)
	h := c.hash("times")
	start := earliest + int64(h%1000)*max(0, last-points*step-earliest)/1000
	if h/1000%2 == 0 {
		borders := []float64{0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8}
		border := windowStart(epoch+int64(borders[h/2000%10]*float64(m.zoo.days*day)), 2*hour)
		if s := border - step + width/2; s > earliest && s+points*step < last {
			start = s
		}
	}
	start = windowStart(start+step-1, step)
	if h/20000%4 == 0 {
		start += 7*minute + 13_000
	}
	return Steps{Start: millis(start), End: millis(start + (points-1)*step), Step: c.step}
}

func (m *zoomMatrix) try(t *testing.T, c zoomCell) {
	t.Helper()
	m.cells++
	steps := m.times(c)
	got, served := m.ask(t, c, steps)
	looks := int(steps.End.Sub(steps.Start)/steps.Step) + 1
	want := looks
	if c.f.absent {
		want = 0
	}
	if len(got) != want {
		t.Errorf("%s from %s: got %d points, want %d", c, steps.Start.UTC().Format(time.RFC3339), len(got), want)
		return
	}
	var reference []promql.FPoint
	if !c.compared() {
		return
	}
	if c.f.truth == nil {
		if reference, _ = askZoom(t, m.raw, c.text(), steps, Params{}); len(reference) != looks {
			t.Fatalf("%s: raw data answer %d points, want %d", c, len(reference), looks)
		}
	}
	for i := range got {
		truth := 0.0
		if c.f.truth != nil {
			truth = c.f.truth(m.zoo.processes[c.f.series], got[i].T-c.width.Milliseconds(), got[i].T)
		} else {
			truth = reference[i].F
		}
		m.judge(t, c, served, got[i], truth)
	}
}

// ask returns the points of a cell, and the coarsest resolution that served one of them.
func (m *zoomMatrix) ask(t *testing.T, c zoomCell, steps Steps) (points []promql.FPoint, served block.Resolution) {
	t.Helper()
	e := m.stores[c.kept]
	p := Params{}
	switch c.allowed {
	case "auto":
		p.MaxResolution = e.AutoResolution(c.step)
	case "1h":
		p.MaxResolution = time.Hour
	}
	return askZoom(t, e, c.text(), steps, p)
}

// askZoom returns the points of the only series of an answer, and the coarsest resolution that the infos say served it.
func askZoom(t *testing.T, e *Engine, expr string, steps Steps, p Params) (points []promql.FPoint, served block.Resolution) {
	t.Helper()
	answer, err := e.Range(t.Context(), expr, steps, p)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	defer answer.Close()
	warnings, infos := answer.Warnings.AsStrings(expr, 0, 0)
	for _, r := range []block.Resolution{block.FiveMin, block.OneHour} {
		if slices.ContainsFunc(infos, func(i string) bool { return strings.Contains(i, r.String()+" from ") }) {
			served = r
		}
	}
	m, ok := answer.Value.(promql.Matrix)
	if !ok || len(m) > 1 || len(warnings) > 0 {
		t.Fatalf("%s: got %v and warnings %q, want one series", expr, answer.Value, warnings)
	}
	if len(m) == 0 {
		return nil, served
	}
	return slices.Clone(m[0].Floats), served
}

// judge compares one point with the truth.
func (m *zoomMatrix) judge(t *testing.T, c zoomCell, served block.Resolution, got promql.FPoint, truth float64) {
	t.Helper()
	most := c.f.asked
	width := c.width.Milliseconds()
	off := math.Abs(got.F - truth)
	switch {
	case strings.HasPrefix(c.f.expr, "ts_of"), strings.HasPrefix(c.f.expr, "timestamp"):
		off = off * 1000 / float64(max(served, block.FiveMin)) // in windows
	case off > 0:
		off /= max(math.Abs(truth), c.f.scale)
	}
	if served > block.Raw && most > 0 && off > most { // another look may be the coarse one
		at := millis(got.T)
		_, served = m.ask(t, c, Steps{Start: at, End: at, Step: c.step})
	}
	r := int64(served)
	whole := served == block.Raw || width%r == 0 && got.T%r == 0
	asked := width >= 2*r && (whole || !c.f.aligned)
	if asked && !whole && c.f.unknowable != nil && width < leastWindows*r {
		const sure = 4.5 // standard deviations: less than once in 100,000 looks
		open := c.f.unknowable(m.zoo.processes[c.f.series], got.T-width, got.T, r)
		if open > 1e-6 {
			m.open[c.f.expr] = append(m.open[c.f.expr], off/open)
		}
		most = max(most, sure*open)
	}
	name := c.f.expr
	if m.errors[name] == nil {
		m.errors[name] = map[block.Resolution]*zoomError{}
	}
	worst := m.errors[name][served]
	if worst == nil {
		worst = &zoomError{}
		m.errors[name][served] = worst
	}
	if width >= 2*r && off > max(worst.whole, worst.cut) {
		worst.where = fmt.Sprintf("%s at %s", c, formatMillis(got.T))
	}
	switch {
	case width < 2*r:
		worst.short = math.Max(worst.short, off)
	case whole:
		worst.whole = math.Max(worst.whole, off)
	default:
		worst.cut = math.Max(worst.cut, off)
	}
	if asked && served > block.Raw && c.f.asked > 0 && !(off <= most) {
		t.Errorf("%s at %s over %s: got %v, want %v: off by %.3g %%, want %.3g %%", c, formatMillis(got.T), served, got.F, truth, off*100, most*100)
	}
	m.bounds(t, c, served, got, truth)
}

// nothingBetter checks that errors of averages and sums where something is unknowable
// are not much larger, all in all, than those of a reader who knows everything else.
func (m *zoomMatrix) nothingBetter(t *testing.T) {
	t.Helper()
	for _, expr := range []string{"avg_over_time(temperature[R])", "sum_over_time(temperature[R])"} {
		squares := 0.0
		for _, z := range m.open[expr] {
			squares += z * z
		}
		n := float64(len(m.open[expr]))
		if rms := math.Sqrt(squares / n); n == 0 || rms > 1.3+3/math.Sqrt(2*n) {
			t.Errorf("%s: over %v looks errors are %.3g times what nobody can know, want about 1", expr, n, rms)
		} else {
			t.Logf("%s: over %v looks errors are %.3g times what nobody can know", expr, n, rms)
		}
	}
}

// bounds checks what holds of cut windows, too: an extreme is never missed, and
// none comes from farther away than a window; nothing is counted that was not there.
func (m *zoomMatrix) bounds(t *testing.T, c zoomCell, served block.Resolution, got promql.FPoint, truth float64) {
	t.Helper()
	slack := int64(served) + c.width.Milliseconds()/mostPerRange + 1
	from, to := got.T-c.width.Milliseconds()-slack, got.T+slack
	p := m.zoo.processes["temperature"]
	switch {
	case c.width.Milliseconds() < int64(served):
	case strings.HasPrefix(c.f.expr, "max_over_time(temp") && (got.F < truth && c.step.Milliseconds() >= c.width.Milliseconds()/mostPerRange || got.F > p.max(from, to)):
		t.Errorf("%s at %s over %s: got %v, want between %v and %v", c, formatMillis(got.T), served, got.F, truth, p.max(from, to))
	case strings.HasPrefix(c.f.expr, "min_over_time(temp") && (got.F > truth && c.step.Milliseconds() >= c.width.Milliseconds()/mostPerRange || got.F < p.min(from, to)):
		t.Errorf("%s at %s over %s: got %v, want between %v and %v", c, formatMillis(got.T), served, got.F, p.min(from, to), truth)
	case strings.HasPrefix(c.f.expr, "resets"), strings.HasPrefix(c.f.expr, "changes"):
		q := m.zoo.processes[c.f.series]
		if most := c.f.truth(q, from, to); got.F > most {
			t.Errorf("%s at %s over %s: got %v, want at most %v", c, formatMillis(got.T), served, got.F, most)
		}
	}
}

// report logs the worst errors in percent: at ranges of two windows or more that
// consist of whole windows, at those that cut windows, and at shorter ones.
func (m *zoomMatrix) report(t *testing.T) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%d queries\n%-60s %8s %10s %34s %34s\n", m.cells, "worst error, %", "asked", "raw", "5m: whole, cut, short", "1h: whole, cut, short")
	for _, f := range zoomedFunctions() {
		fmt.Fprintf(&b, "%-60s %8.3g", f.expr, f.asked*100)
		for _, r := range []block.Resolution{block.Raw, block.FiveMin, block.OneHour} {
			e := m.errors[f.expr][r]
			switch {
			case e == nil && r == block.Raw:
				fmt.Fprintf(&b, " %10s", "-")
			case e == nil:
				fmt.Fprintf(&b, " %34s", "-")
			case r == block.Raw:
				fmt.Fprintf(&b, " %10.3g", e.whole*100)
			default:
				fmt.Fprintf(&b, " %10.3g, %10.3g, %10.3g", e.whole*100, e.cut*100, e.short*100)
			}
		}
		b.WriteByte('\n')
	}
	for _, f := range zoomedFunctions() {
		for _, r := range []block.Resolution{block.FiveMin, block.OneHour} {
			if e := m.errors[f.expr][r]; e != nil && e.where != "" && f.asked > 0 {
				fmt.Fprintf(&b, "worst over %s: %s\n", r, e.where)
			}
		}
	}
	t.Log("\n" + b.String())
}
