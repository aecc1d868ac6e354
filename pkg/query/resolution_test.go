package query

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/series"
)

// everywhere holds all resolutions of all data.
func everywhere() retention {
	return retention{block.Raw: {always}, block.FiveMin: {always}, block.OneHour: {always}}
}

func TestNothingCoarserThanAskedForServesWhereFinerDataAre(t *testing.T) {
	data := generate(t, 4).keep(everywhere())
	for _, allowed := range []block.Resolution{block.Raw, block.FiveMin, block.OneHour} {
		used := false
		for _, expr := range []string{
			"temperature", "rate(requests_total[3h])", "sum_over_time(temperature[3h])", "max_over_time(temperature[1d])", "avg_over_time(temperature[1d])",
			"quantile_over_time(0.9, temperature[1d])", "changes(temperature[6h])", "max_over_time(rate(requests_total[3h])[6h:1h])",
		} {
			for _, step := range []time.Duration{time.Minute, 6 * time.Hour} {
				steps := Steps{millis(epoch + 2*day), millis(epoch + 2*day).Add(3 * step), step}
				_, infos := evaluate(t, data, expr, steps, Params{MaxResolution: time.Duration(allowed) * time.Millisecond})
				for _, r := range []block.Resolution{block.FiveMin, block.OneHour} {
					served := slices.ContainsFunc(infos, func(i string) bool { return strings.Contains(i, r.String()+" from ") })
					if used = used || served && r == allowed; served && r > allowed {
						t.Errorf("%s by %s, %s at most: got infos %q", expr, step, allowed, infos)
					}
				}
			}
		}
		if !used && allowed > block.Raw {
			t.Errorf("%s at most: it served nothing", allowed)
		}
	}
}

func TestInfosNameWhatServedWhichTime(t *testing.T) {
	data := generate(t, 4)
	at := func(hours int64) int64 { return epoch + hours*hour }
	store := data.keep(retention{ // of 5m data the store sends a chunk that goes on to nearly nine o'clock
		block.Raw:     {{MinTime: at(0), MaxTime: at(24)}, {MinTime: at(36), MaxTime: at(96)}},
		block.FiveMin: {{MinTime: at(10), MaxTime: at(32)}},
		block.OneHour: {{MinTime: at(20), MaxTime: at(50)}},
	})
	steps := Steps{millis(at(20)), millis(at(40)), time.Hour}
	const want = "PromQL info: downsampled data answered: raw from 2024-10-04T19:59:00Z to 2024-10-04T23:59:59Z and from 2024-10-05T12:00:00Z to 2024-10-05T16:00:00Z, " +
		"5m from 2024-10-05T00:00:00Z to 2024-10-05T08:59:50Z, 1h from 2024-10-05T09:00:00Z to 2024-10-05T11:59:59Z"
	if _, infos := evaluate(t, store, "max_over_time(temperature[1m])", steps, Params{}); len(infos) != 1 || infos[0] != want {
		t.Errorf("got infos %q, want %q", infos, want)
	}
	const losing = "PromQL info: resets counts at most one reset in each window of downsampled data"
	if _, infos := evaluate(t, store, "resets(requests_total[1h])", steps, Params{}); len(infos) != 2 || !slices.Contains(infos, losing) {
		t.Errorf("got infos %q, want two, of which one says %q", infos, losing)
	}
	raw := Steps{millis(at(10)), millis(at(15)), time.Hour}
	if _, infos := evaluate(t, store, "resets(requests_total[1h])", raw, Params{}); len(infos) != 0 {
		t.Errorf("raw data answer all: got infos %q, want none", infos)
	}
}

func TestInfosOfOddDataStayShort(t *testing.T) {
	s := &served{}
	for i := range int64(1000) {
		s.add(block.FiveMin, span{i * 10 * hour, i*10*hour + hour}, false)
	}
	if infos := s.infos(); len(infos) != 1 || len(infos[0].Error()) > 1000 || !strings.HasSuffix(infos[0].Error(), "and 990 times more up to 1971-02-21T07:00:00Z") {
		t.Errorf("got infos %v, want one that is short and says that there are more", infos)
	}
}

func TestSpansAreJoinedInAnyOrder(t *testing.T) {
	spans := []span{{0, hour}, {5 * hour, 6 * hour}, {hour + 30*minute, 2 * hour}, {9 * hour, 10 * hour}, {90 * hour, 91 * hour}, {6*hour + 1, 9*hour - 1}}
	want := []span{{0, 2 * hour}, {5 * hour, 10 * hour}, {90 * hour, 91 * hour}}
	for range spans {
		var got []span
		for _, sp := range spans {
			got = joinSpan(got, sp)
		}
		if !slices.Equal(got, want) {
			t.Errorf("of %v: got %v, want %v", spans, got, want)
		}
		spans = append(spans[1:], spans[0])
	}
}

// Where a series ends, coarse data answer an instant selector as long as raw data do: for the lookback.
func TestACoarseGaugeEndsWhereTheRawOneDoes(t *testing.T) {
	data := generate(t, 2)
	ended := epoch + 30*hour + 17*minute
	for i := range data.all {
		kept := slices.DeleteFunc(slices.Clone(data.all[i].chunks[block.Raw]), func(c series.Chunk) bool { return c.MaxTime > ended })
		data.all[i].chunks[block.Raw] = kept
		ended = kept[len(kept)-1].MaxTime
	}
	data.downsample(t)
	for _, lookback := range []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute} {
		steps := Steps{millis(ended).Add(-time.Hour), millis(ended).Add(time.Hour), 20 * time.Second}
		want, _ := evaluate(t, data.keep(only(block.Raw)), "timestamp(temperature) > 0", steps, Params{Lookback: lookback})
		for _, r := range []block.Resolution{block.FiveMin, block.OneHour} {
			got, _ := evaluate(t, data.keep(only(r)), "timestamp(temperature) > 0", steps, Params{Lookback: lookback})
			if len(got) != len(want) {
				t.Errorf("over %s with a lookback of %s: got %d points, want %d", r, lookback, len(got), len(want))
			}
		}
	}
}
