package query

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/series"
)

// Ranges that cut a window at one end and hold raw samples at the other are as right
// as others, also where the engine looks more often than anything was scraped.
func TestRangesAcrossASeamAreRight(t *testing.T) {
	z := newZoo(t, 3)
	seam := epoch + 26*hour
	older, younger := block.TimeRange{MinTime: epoch, MaxTime: seam}, block.TimeRange{MinTime: seam, MaxTime: epoch + 3*day}
	for name, kept := range map[string]retention{
		"raw data are younger": {block.FiveMin: {older}, block.Raw: {younger}},
		"raw data are older":   {block.Raw: {older}, block.FiveMin: {younger}},
	} {
		for _, f := range []struct {
			expr   string
			truth  func(from, to int64) float64
			within float64
		}{
			{"increase(requests_total[%dm])", z.processes["requests_total"].increase, 0.01},
			{"histogram_count(increase(latency[%dm]))", z.processes["latency"].increase, 0.01},
			{"count_over_time(temperature[%dm])", z.processes["temperature"].count, 0.005},
			{"sum_over_time(temperature[%dm])", z.processes["temperature"].sum, 0.005},
		} {
			for _, minutes := range []int64{10, 17, 60} {
				for _, start := range []int64{seam - 20*minute, seam - 20*minute + 7_000} {
					expr, width := fmt.Sprintf(f.expr, minutes), minutes*minute
					steps := Steps{millis(start), millis(start + width + 40*minute), 15 * time.Second}
					got, _ := evaluate(t, z.store.keep(kept), expr, steps, Params{})
					if want := int((width+40*minute)/15_000) + 1; len(got) != want {
						t.Errorf("%s, %s: got %d points, want %d", name, expr, len(got), want)
					}
					for _, p := range got {
						if want := f.truth(p.T-width, p.T); math.Abs(p.F/want-1) > f.within {
							t.Errorf("%s, %s %d s after the seam: got %v, want %v within %g %%", name, expr, (p.T-seam)/1000, p.F, want, f.within*100)
							break
						}
					}
				}
			}
		}
	}
}

// Windows of five minutes begin in the middle of what windows of an hour still count.
func TestCountersGoOnWhereHoursEnd(t *testing.T) {
	z := newZoo(t, 3)
	seam := epoch + 26*hour
	kept := retention{
		block.OneHour: {{MinTime: epoch, MaxTime: seam + 10*hour}},
		block.FiveMin: {{MinTime: seam, MaxTime: epoch + 3*day}},
	}
	for name, truth := range map[string]func(from, to int64) float64{
		"increase(requests_total[10m])":           z.processes["requests_total"].increase,
		"histogram_count(increase(latency[10m]))": z.processes["latency"].increase,
		"histogram_count(increase(sizes[10m]))":   z.processes["latency"].increase,
	} {
		for _, before := range []int64{0, 5 * minute, 10 * minute, 30 * minute} {
			steps := Steps{millis(seam + 10*minute - before), millis(seam + 2*hour), 5 * time.Minute}
			got, _ := evaluate(t, z.store.keep(kept), name, steps, Params{})
			for _, p := range got {
				if want := truth(p.T-10*minute, p.T); p.T >= seam+10*minute && math.Abs(p.F/want-1) > 0.01 {
					t.Errorf("%s from %d s on, %d s after the seam: got %v, want %v within 1 %%", name, millis(seam).Sub(steps.Start).Milliseconds()/1000, (p.T-seam)/1000, p.F, want)
				}
			}
			if want := int((2*hour-10*minute+before)/(5*minute)) + 1; len(got) != want {
				t.Errorf("%s: got %d points, want %d", name, len(got), want)
			}
		}
	}
}

func TestRawSamplesSayWhenScrapesWere(t *testing.T) {
	times := func(first int64, intervals ...int64) (out []int64) {
		for _, i := range append([]int64{0}, intervals...) {
			first += i
			out = append(out, first)
		}
		return out
	}
	for name, tc := range map[string]struct {
		times []int64
		want  rhythm
	}{
		"even":             {times(epoch+5_000, 30_000, 30_000, 30_000, 30_000), rhythm{30_000, 5_000}},
		"with jitter":      {times(epoch+5_003, 29_998, 30_001, 29_997, 30_002), rhythm{30_000, 5_002}},
		"one is missing":   {times(epoch+5_000, 30_000, 60_000, 30_000, 30_000), rhythm{30_000, 5_000}},
		"too few":          {times(epoch+5_000, 30_000, 30_000), rhythm{}},
		"one in a window":  {times(epoch+5_000, 300_000, 300_000, 300_000, 300_000), rhythm{}},
		"many in a second": {times(epoch+5_000, 100, 100, 100, 100), rhythm{}},
	} {
		raw := segment{span{epoch, epoch + day}, block.Raw, []series.Chunk{floatChunk(t, tc.times, make([]float64, len(tc.times)))}}
		coarse := segment{span{epoch - day, epoch - 1}, block.FiveMin, nil}
		got, err := rhythmFor(sum, []segment{coarse, raw}, looks{rangeMillis: 5 * minute})
		if err != nil || got != tc.want {
			t.Errorf("%s: got %v and %v, want %v", name, got, err, tc.want)
		}
		for what, tc := range map[string]struct {
			segments []segment
			width    int64
		}{"all is raw": {[]segment{raw}, 5 * minute}, "a range holds one scrape": {[]segment{coarse, raw}, 50_000}} {
			if got, err := rhythmFor(sum, tc.segments, looks{rangeMillis: tc.width}); err != nil || got != (rhythm{}) {
				t.Errorf("%s, %s: got %v and %v, want none", name, what, got, err)
			}
		}
	}
}

func TestCoarseDataSayWhenScrapesWere(t *testing.T) {
	const at = epoch + 5_003
	for name, tc := range map[string]struct {
		counts     []float64
		resolution block.Resolution
		last       int64
		want       rhythm
	}{
		"even":                                  {[]float64{10, 10, 10, 10, 10}, block.FiveMin, at, rhythm{30_000, 5_003}},
		"in windows of an hour":                 {[]float64{240, 240, 240, 240, 240}, block.OneHour, at, rhythm{15_000, 5_003}},
		"the last window is not full":           {[]float64{10, 10, 10, 10, 3}, block.FiveMin, at, rhythm{30_000, 5_003}},
		"an interval that divides nothing":      {[]float64{43, 43, 43, 43, 42, 43, 43}, block.FiveMin, at, rhythm{7_000, at % 7_000}},
		"scrapes are missing":                   {[]float64{10, 8, 10, 10, 0, 10, 7}, block.FiveMin, at, rhythm{30_000, 5_003}},
		"at the begin of windows":               {[]float64{10, 10, 10, 10, 10}, block.FiveMin, epoch, rhythm{}},
		"a window has hidden the last":          {[]float64{10, 10, 10, 10, 10}, block.FiveMin, epoch + 5*minute - 1, rhythm{}},
		"too few windows":                       {[]float64{10, 10, 10, 10}, block.FiveMin, at, rhythm{}},
		"one in a window":                       {[]float64{1, 1, 1, 1, 1}, block.FiveMin, at, rhythm{}},
		"many in a second":                      {[]float64{3000, 3000, 3000, 3000, 3000}, block.FiveMin, at, rhythm{}},
		"whenever something happens":            {[]float64{5, 10, 3, 8, 12}, block.FiveMin, at, rhythm{}},
		"more than there are numbers":           {slices.Repeat([]float64{math.MaxFloat64}, 5), block.FiveMin, at, rhythm{}},
		"nothing at all":                        {[]float64{0, 0, 0, 0, 0}, block.FiveMin, at, rhythm{}},
		"at no whole number of seconds":         {[]float64{120, 120, 120, 120, 120}, block.FiveMin, at, rhythm{}},
		"a number of scrapes that is no number": {[]float64{math.NaN(), math.NaN(), math.NaN(), math.NaN(), math.NaN()}, block.FiveMin, at, rhythm{}},
	} {
		var counts []point
		for i, c := range tc.counts {
			counts = append(counts, point{int64(i), value{f: c}})
		}
		if got := rhythmOfCounts(counts, int64(tc.resolution), tc.last); got != tc.want {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}

// A range that cuts windows holds eight of them, so that what it cuts is a small part of it.
func TestWhatAddsUpWindowsCutsFewOfThem(t *testing.T) {
	at := func(look, step, width int64) looks {
		return looks{start: look - width + 1, end: look + 3*step, step: step, rangeMillis: width}
	}
	for name, tc := range map[string]struct {
		looks looks
		want  block.Resolution
	}{
		"whole hours":                          {at(epoch, hour, hour), block.OneHour},
		"up to the last millisecond of one":    {at(epoch-1, hour, hour), block.OneHour},
		"whole five minutes of short ranges":   {at(epoch+5*minute, 5*minute, hour), block.FiveMin},
		"hours are cut, but few of them":       {at(epoch+5*minute, 5*minute, 8*hour), block.OneHour},
		"by steps that are no hours":           {at(epoch, 25*minute, 2*hour), block.FiveMin},
		"a range of no whole hours":            {at(epoch, hour, 90*minute), block.FiveMin},
		"anywhere, shorter than eight windows": {at(epoch+13_000, 5*minute, 39*minute), block.Raw},
		"anywhere, eight windows":              {at(epoch+13_000, 5*minute, 40*minute), block.FiveMin},
		"once, and whole":                      {at(epoch, 0, 2*hour), block.OneHour},
		"once, where the step matters not":     {looks{start: epoch - 2*hour + 1, end: epoch, step: 7_000, rangeMillis: 2 * hour}, block.OneHour},
		"shorter than a window":                {at(epoch, hour, 4*minute), block.Raw},
	} {
		for _, agg := range []aggregate{sum, count, minimum, maximum, resetting, changing} {
			if got := agg.coarsest(block.OneHour, tc.looks); got != tc.want {
				t.Errorf("%s, aggregate %d: got %s, want %s", name, agg, got, tc.want)
			}
		}
		if got := sum.coarsest(block.FiveMin, tc.looks); got != min(tc.want, block.FiveMin) {
			t.Errorf("%s, 5m at most: got %s, want %s", name, got, min(tc.want, block.FiveMin))
		}
	}
}

// A counter whose rate follows the day is right at every look around the place where its
// resolutions meet, also over ranges that are shorter than their windows.
func TestACounterFollowsTheDayThroughSeams(t *testing.T) {
	z := &zoo{store: &tiers{}, processes: map[string]*scraped{}}
	var times []int64
	for at := epoch + 2_000; at < epoch+8*day; at += scrapeEvery {
		times = append(times, at)
	}
	z.floats(t, times, labels.FromStrings("__name__", "requests_total"), func(i int) float64 {
		const perDay = 2 * math.Pi / 86_400
		s := float64(times[i]-epoch) / 1000
		return 500 * (s - math.Cos(perDay*s+3)/(2*perDay))
	})
	seam := epoch + 4*day
	older, younger := []block.TimeRange{{MinTime: epoch, MaxTime: seam}}, []block.TimeRange{{MinTime: seam, MaxTime: epoch + 8*day}}
	for name, kept := range map[string]retention{
		"1h, then 5m":  {block.OneHour: older, block.FiveMin: younger},
		"5m, then 1h":  {block.FiveMin: older, block.OneHour: younger},
		"1h, then raw": {block.OneHour: older, block.Raw: younger},
		"raw, then 1h": {block.Raw: older, block.OneHour: younger},
		"5m, then raw": {block.FiveMin: older, block.Raw: younger},
		"raw, then 5m": {block.Raw: older, block.FiveMin: younger},
		"only 1h":      only(block.OneHour),
		"only 5m":      only(block.FiveMin),
	} {
		for _, width := range []int64{2 * minute, 5 * minute, 17 * minute, hour, 2 * hour} {
			expr := fmt.Sprintf("increase(requests_total[%ds])", width/1000)
			got, _ := evaluate(t, z.store.keep(kept), expr, Steps{millis(seam - 2*hour), millis(seam + 4*hour), time.Minute}, Params{})
			if len(got) != 361 {
				t.Errorf("%s, %s: got %d points, want 361", name, expr, len(got))
			}
			for _, p := range got {
				if want := z.processes["requests_total"].increase(p.T-width, p.T); math.Abs(p.F/want-1) > 0.01 {
					t.Errorf("%s, %s %d s after the seam: got %v, want %v within 1 %%", name, expr, (p.T-seam)/1000, p.F, want)
					break
				}
			}
		}
	}
}
