package query

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/downsample"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
)

// tiers is a store that keeps each resolution for a range of time of its own, as
// retention leaves them. It chooses as a gateway does: the coarsest resolution
// allowed, finer ones in its holes, and coarser ones as a fallback.
type tiers struct {
	all  []tiered
	kept retention
}

// retention is for which ranges of time each resolution exists.
type retention map[block.Resolution][]block.TimeRange

// tiered is one series in every resolution.
type tiered struct {
	labels labels.Labels
	chunks map[block.Resolution][]series.Chunk
}

func (s *tiers) Info(context.Context) (storeapi.Info, error) {
	return storeapi.Info{Component: "store", MinTime: math.MinInt64, MaxTime: math.MaxInt64, APIs: storeapi.StoreAPI, Native: true}, nil
}

func (s *tiers) LabelNames(context.Context, *storeapi.LabelsRequest) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

func (s *tiers) LabelValues(context.Context, string, *storeapi.LabelsRequest) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

func (s *tiers) Series(_ context.Context, req *storeapi.Request) series.Set {
	free := []block.TimeRange{{MinTime: req.MinTime, MaxTime: req.MaxTime + 1}}
	serving := map[block.Resolution][]block.TimeRange{}
	for _, r := range preference(req.MaxResolution) {
		if r > max(req.MaxResolution, req.Fallback) {
			continue
		}
		for _, kept := range s.kept[r] {
			var left []block.TimeRange
			for _, f := range free {
				cut := block.TimeRange{MinTime: max(f.MinTime, kept.MinTime), MaxTime: min(f.MaxTime, kept.MaxTime)}
				if cut.MinTime >= cut.MaxTime {
					left = append(left, f)
					continue
				}
				serving[r] = append(serving[r], cut)
				for _, rest := range []block.TimeRange{{MinTime: f.MinTime, MaxTime: cut.MinTime}, {MinTime: cut.MaxTime, MaxTime: f.MaxTime}} {
					if rest.MinTime < rest.MaxTime {
						left = append(left, rest)
					}
				}
			}
			free = left
		}
	}
	var out []series.Series
	for _, t := range s.all {
		if !labels.Selector(req.Matchers).Matches(t.labels) {
			continue
		}
		found := series.Series{Labels: t.labels}
		for r, ranges := range serving {
			for _, c := range t.chunks[r] {
				if slices.ContainsFunc(ranges, func(tr block.TimeRange) bool { return c.MinTime < tr.MaxTime && c.MaxTime >= tr.MinTime }) {
					found.Chunks = append(found.Chunks, c)
				}
			}
		}
		slices.SortFunc(found.Chunks, series.CompareChunks)
		if len(found.Chunks) > 0 {
			out = append(out, found)
		}
	}
	return series.NewSet(out, nil)
}

const (
	minute = int64(60_000)
	hour   = 60 * minute
	day    = 24 * hour
	epoch  = 20_000 * day
)

// generate returns a counter with resets and a gauge, scraped every 15 s with
// some jitter for so many days from epoch on, in all three resolutions. No sample
// lies on the border of a window.
func generate(t *testing.T, days int64) *tiers {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	s := &tiers{}
	total := 0.0
	counter := func(at int64) float64 {
		if rnd.IntN(3000) == 0 {
			total = 0
		}
		total += 100 + 40*math.Sin(float64(at)/float64(7*hour)) + 10*rnd.Float64()
		return total
	}
	gauge := func(at int64) float64 { return 1000 + 50*math.Sin(float64(at)/float64(5*hour)) + 5*rnd.Float64() }
	for _, g := range []struct {
		name  string
		value func(int64) float64
	}{{"requests_total", counter}, {"temperature", gauge}} {
		one := tiered{labels: labels.FromStrings("__name__", g.name, "job", "x"), chunks: map[block.Resolution][]series.Chunk{}}
		for from := epoch; from < epoch+days*day; from += 2 * hour {
			one.chunks[block.Raw] = append(one.chunks[block.Raw], rawChunks(t, from+5000, from+2*hour, rnd, g.value)...)
		}
		s.all = append(s.all, one)
	}
	s.downsample(t)
	return s
}

// downsample makes the coarser resolutions out of the raw chunks.
func (s *tiers) downsample(t *testing.T) {
	t.Helper()
	for _, one := range s.all {
		for _, step := range []struct{ from, to block.Resolution }{{block.Raw, block.FiveMin}, {block.FiveMin, block.OneHour}} {
			coarse, err := downsample.Chunks(one.chunks[step.from], step.to)
			if err != nil {
				t.Fatalf("downsample to %s: %v", step.to, err)
			}
			one.chunks[step.to] = coarse
		}
	}
}

func rawChunks(t *testing.T, from, to int64, rnd *rand.Rand, v func(int64) float64) (out []series.Chunk) {
	t.Helper()
	for from < to {
		c := chunkenc.NewXORChunk()
		app, err := c.Appender()
		if err != nil {
			t.Fatalf("appender: %v", err)
		}
		first, last := int64(0), int64(0)
		for range 120 {
			if from >= to {
				break
			}
			if last = from + rnd.Int64N(200); first == 0 {
				first = last
			}
			app.Append(0, last, v(last))
			from += 15_000
		}
		out = append(out, series.Chunk{MinTime: first, MaxTime: last, Encoding: c.Encoding(), Data: c.Bytes()})
	}
	return out
}

// keep sets what the store has.
func (s *tiers) keep(kept retention) *tiers {
	return &tiers{all: s.all, kept: kept}
}

var always = block.TimeRange{MinTime: epoch, MaxTime: epoch + 1000*day}

func only(r block.Resolution) retention { return retention{r: {always}} }

// evaluate returns the points of the only series of the result.
func evaluate(t *testing.T, s storeapi.Store, expr string, steps Steps, p Params) ([]promql.FPoint, []string) {
	t.Helper()
	answer, err := newEngine(t, s, nil).Range(t.Context(), expr, steps, p)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	defer answer.Close()
	m, ok := answer.Value.(promql.Matrix)
	if !ok || len(m) > 1 {
		t.Fatalf("%s: got %v, want one series", expr, answer.Value)
	}
	_, infos := answer.Warnings.AsStrings(expr, 0, 0)
	if len(m) == 0 {
		return nil, infos
	}
	return slices.Clone(m[0].Floats), infos
}

// compare checks that coarse data answer like raw data, within a relative error.
func (s *tiers) compare(t *testing.T, r block.Resolution, expr string, steps Steps, within float64) {
	t.Helper()
	want, _ := evaluate(t, s.keep(only(block.Raw)), expr, steps, Params{})
	got, infos := evaluate(t, s.keep(only(r)), expr, steps, Params{MaxResolution: time.Duration(r) * time.Millisecond})
	if len(got) != len(want) || len(want) == 0 {
		t.Errorf("%s at %s: got %d points, want %d", expr, r, len(got), len(want))
		return
	}
	worst, at := 0.0, int64(0)
	for i := range want {
		if got[i].T != want[i].T {
			t.Fatalf("%s at %s: point %d is at %d, want %d", expr, r, i, got[i].T, want[i].T)
		}
		if e := math.Abs(got[i].F-want[i].F) / math.Max(math.Abs(want[i].F), 1e-9); e > worst {
			worst, at = e, want[i].T
		}
	}
	if worst > within {
		t.Errorf("%s at %s: off by %.4g %% at %s, want %.4g %%", expr, r, worst*100, formatMillis(at), within*100)
	}
	if len(infos) != 1 || !strings.Contains(infos[0], r.String()+" from ") {
		t.Errorf("%s at %s: got infos %q, want one that names the resolution", expr, r, infos)
	}
}

func TestCoarseDataAnswerLikeRawData(t *testing.T) {
	data := generate(t, 8)
	begin, end := millis(epoch+2*day), millis(epoch+7*day)
	for _, r := range []block.Resolution{block.FiveMin, block.OneHour} {
		windows := func(n int64) string { return fmt.Sprintf("%dm", n*int64(r)/minute) }
		aligned := Steps{begin, end, time.Hour}
		anywhere := Steps{begin.Add(7*time.Minute + 13*time.Second), end, 23*time.Minute + 40*time.Second}
		for _, n := range []int64{1, 3, 24} {
			w := windows(n)
			for _, metric := range []string{"temperature", "requests_total"} {
				const rounding = 1e-12
				data.compare(t, r, "min_over_time("+metric+"["+w+"])", aligned, 0)
				data.compare(t, r, "max_over_time("+metric+"["+w+"])", aligned, 0)
				data.compare(t, r, "count_over_time("+metric+"["+w+"])", aligned, 0)
				data.compare(t, r, "sum_over_time("+metric+"["+w+"])", aligned, rounding)
				data.compare(t, r, "avg_over_time("+metric+"["+w+"] offset 1h)", aligned, rounding)
			}
		}
		for _, n := range []int64{2, 3, 5, 24} {
			w := windows(n)
			for _, steps := range []Steps{aligned, anywhere} {
				data.compare(t, r, "rate(requests_total["+w+"])", steps, 0.01)
				data.compare(t, r, "increase(requests_total["+w+"])", steps, 0.01)
				data.compare(t, r, "sum(rate(requests_total["+w+"] offset 13m))", steps, 0.01)
			}
			data.compare(t, r, "max_over_time(rate(requests_total["+w+"])[6h:15m])", aligned, 0.01)
			data.compare(t, r, "avg_over_time(temperature["+w+"])", anywhere, 0.03)
		}
	}
	data.compare(t, block.FiveMin, "temperature", Steps{begin, end, 4 * time.Minute}, 0.01)
	data.compare(t, block.OneHour, "temperature", Steps{begin, end, 4 * time.Minute}, 0.02)
	data.compare(t, block.OneHour, "avg_over_time(temperature[1d]) > 0", Steps{begin, end, 37 * time.Minute}, 0.005)
	data.compare(t, block.FiveMin, "deriv(temperature[4h])", Steps{begin, end, 24 * time.Hour}, 0.1)
}

func TestNoPanelIsEmpty(t *testing.T) {
	data := generate(t, 6)
	begin := millis(epoch + day)
	for _, kept := range []block.Resolution{block.FiveMin, block.OneHour} {
		store := data.keep(only(kept))
		for _, allowed := range []time.Duration{0, 5 * time.Minute, time.Hour} {
			for _, step := range []time.Duration{15 * time.Second, 7 * time.Minute, time.Hour} {
				steps := Steps{begin.Add(11 * time.Second), begin.Add(11*time.Second + 40*step), step}
				for _, expr := range []string{
					"requests_total", "sum(temperature)", "temperature offset 3m", "timestamp(temperature)",
					"rate(requests_total[1m])", "irate(requests_total[5m])", "increase(requests_total[1h])",
					"min_over_time(temperature[1m])", "max_over_time(temperature[10m])", "sum_over_time(temperature[2m])",
					"count_over_time(temperature[90s])", "avg_over_time(temperature[7m])", "last_over_time(temperature[1m])",
					"stddev_over_time(temperature[5m])", "quantile_over_time(0.9, temperature[5m])", "delta(temperature[10m])",
					"deriv(temperature[10m])", "changes(temperature[1h])", "present_over_time(temperature[1m])",
					"max_over_time(temperature[10m:1m])", "avg_over_time((temperature[7m]))", "predict_linear(temperature[10m], 60)",
				} {
					got, infos := evaluate(t, store, expr, steps, Params{MaxResolution: allowed})
					if len(got) != 41 {
						t.Errorf("%s, step %s, %s allowed, %s there: got %d points, want 41", expr, step, allowed, kept, len(got))
					}
					if len(infos) == 0 {
						t.Errorf("%s, %s there: got no info about the resolution", expr, kept)
					}
				}
			}
		}
	}
}

// Raw data end where retention has cut them, coarse data end where the compactor stands.
func TestResolutionsMeetWithoutASeam(t *testing.T) {
	data := generate(t, 6)
	seam := epoch + 3*day
	begin, end := millis(seam-12*hour), millis(seam+12*hour)
	lost := []block.TimeRange{{MinTime: epoch, MaxTime: seam - 4*hour}, {MinTime: seam + 4*hour, MaxTime: epoch + 6*day}}
	older, middle, younger := lost[:1], []block.TimeRange{{MinTime: seam - 4*hour, MaxTime: seam + 4*hour}}, lost[1:]
	for name, tc := range map[string]struct {
		kept  retention
		p     Params
		spans int // that the infos name
	}{
		"raw expired, 5m serves what is older": {retention{
			block.FiveMin: {always}, block.Raw: {{MinTime: seam, MaxTime: epoch + 6*day}},
		}, Params{}, 2},
		"raw expired, only 1h is older": {retention{
			block.OneHour: {always}, block.Raw: {{MinTime: seam, MaxTime: epoch + 6*day}},
		}, Params{}, 2},
		"1h wanted, raw serves what is younger": {retention{
			block.OneHour: {{MinTime: epoch, MaxTime: seam}}, block.Raw: {always},
		}, Params{MaxResolution: time.Hour}, 2},
		"1h wanted, 5m serves what is younger": {retention{
			block.OneHour: {{MinTime: epoch, MaxTime: seam}}, block.FiveMin: {always},
		}, Params{MaxResolution: time.Hour}, 2},
		"raw lost in the middle, 5m serves there":      {retention{block.Raw: lost, block.FiveMin: {always}}, Params{}, 3},
		"raw lost in the middle, 1h serves there":      {retention{block.Raw: lost, block.OneHour: {always}}, Params{}, 3},
		"each resolution holds what the others do not": {retention{block.OneHour: older, block.FiveMin: middle, block.Raw: younger}, Params{}, 3},
		"and the other way round":                      {retention{block.Raw: older, block.FiveMin: middle, block.OneHour: younger}, Params{MaxResolution: time.Hour}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			for expr, within := range map[string]float64{
				"increase(requests_total[6h])":     0.01,
				"rate(requests_total[2h])":         0.01,
				"count_over_time(temperature[4h])": 0,
				"sum_over_time(temperature[4h])":   1e-12,
				"avg_over_time(temperature[4h])":   1e-12,
				"max_over_time(temperature[4h])":   0,
				"temperature":                      0.02,
			} {
				steps := Steps{begin, end, time.Hour}
				want, _ := evaluate(t, data.keep(only(block.Raw)), expr, steps, Params{})
				got, infos := evaluate(t, data.keep(tc.kept), expr, steps, tc.p)
				if len(got) != len(want) {
					t.Errorf("%s: got %d points, want %d", expr, len(got), len(want))
					continue
				}
				for i := range want {
					if e := math.Abs(got[i].F-want[i].F) / math.Abs(want[i].F); e > within {
						t.Errorf("%s at %s: got %v, want %v: off by %.3g %%", expr, formatMillis(want[i].T), got[i].F, want[i].F, e*100)
					}
				}
				if len(infos) != 1 || strings.Count(infos[0], "from ") != tc.spans {
					t.Errorf("%s: got infos %q, want one that names %d spans of time", expr, infos, tc.spans)
				}
			}
		})
	}
}

func TestRawDataSayNothingOfResolutions(t *testing.T) {
	data := generate(t, 3)
	steps := Steps{millis(epoch + day), millis(epoch + 2*day), time.Hour}
	for _, expr := range []string{"temperature", "count_over_time(temperature[1h])", "rate(requests_total[5m])"} {
		got, infos := evaluate(t, data.keep(only(block.Raw)), expr, steps, Params{MaxResolution: time.Hour})
		want, _ := evaluate(t, data.keep(only(block.Raw)), expr, steps, Params{})
		if len(infos) != 0 || !slices.Equal(got, want) {
			t.Errorf("%s: got infos %q and %v, want none and %v", expr, infos, got, want)
		}
	}
}

func TestHolesStayHoles(t *testing.T) {
	data := generate(t, 3)
	for i := range data.all {
		// Four hours without a scrape.
		data.all[i].chunks[block.Raw] = slices.DeleteFunc(data.all[i].chunks[block.Raw], func(c series.Chunk) bool {
			return c.MaxTime >= epoch+day && c.MinTime < epoch+day+4*hour
		})
	}
	data.downsample(t)
	steps := Steps{millis(epoch + day + hour), millis(epoch + day + 3*hour), 10 * time.Minute}
	for _, r := range []block.Resolution{block.FiveMin, block.OneHour} {
		for _, expr := range []string{"temperature", "rate(requests_total[10m])", "sum_over_time(temperature[10m])", "increase(requests_total[30m])"} {
			if got, _ := evaluate(t, data.keep(only(r)), expr, steps, Params{}); len(got) != 0 {
				t.Errorf("%s at %s: got %d points where nothing was scraped, want none", expr, r, len(got))
			}
		}
	}
}

// At a window's end stands the last sample in it, which must not be compared with a
// raw sample as if it had been scraped then: over ten minutes that is some 2 %.
func TestACounterKeepsTimeWhereResolutionsMeet(t *testing.T) {
	data := generate(t, 3)
	begin := windowStart(data.all[0].chunks[block.FiveMin][2].MinTime, 5*minute)
	for place, seam := range map[string]int64{"between two coarse chunks": begin, "inside of one": begin + 2*hour} {
		older, younger := block.TimeRange{MinTime: epoch, MaxTime: seam}, block.TimeRange{MinTime: seam, MaxTime: epoch + 3*day}
		steps := Steps{millis(seam - 20*minute), millis(seam + 20*minute), time.Minute}
		want, _ := evaluate(t, data.keep(only(block.Raw)), "increase(requests_total[10m])", steps, Params{})
		for name, kept := range map[string]retention{
			"raw data are younger": {block.FiveMin: {older}, block.Raw: {younger}},
			"raw data are older":   {block.Raw: {older}, block.FiveMin: {younger}},
		} {
			got, _ := evaluate(t, data.keep(kept), "increase(requests_total[10m])", steps, Params{})
			if len(got) != len(want) {
				t.Errorf("%s, %s: got %d points, want %d", place, name, len(got), len(want))
				continue
			}
			for i := range want {
				if e := math.Abs(got[i].F-want[i].F) / want[i].F; e > 0.01 {
					t.Errorf("%s, %s at %s: got %v, want %v: off by %.3g %%", place, name, formatMillis(want[i].T), got[i].F, want[i].F, e*100)
				}
			}
		}
	}
}
