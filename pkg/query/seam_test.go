package query

import (
	"fmt"
	"math"
	"testing"
	"time"

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
		got, err := rhythmOf([]segment{coarse, raw}, looks{rangeMillis: 5 * minute})
		if err != nil || got != tc.want {
			t.Errorf("%s: got %v and %v, want %v", name, got, err, tc.want)
		}
		for what, tc := range map[string]struct {
			segments []segment
			width    int64
		}{"all is raw": {[]segment{raw}, 5 * minute}, "a range holds one scrape": {[]segment{coarse, raw}, 50_000}} {
			if got, err := rhythmOf(tc.segments, looks{rangeMillis: tc.width}); err != nil || got != (rhythm{}) {
				t.Errorf("%s, %s: got %v and %v, want none", name, what, got, err)
			}
		}
	}
}
