package query

import (
	"slices"
	"time"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/block"
)

// rhythm is when a series was scraped: every interval milliseconds, which leave
// the remainder phase. Prometheus scrapes a target at the same phase for as long as it
// lives. The zero rhythm is that of a series of which nothing is known: anything may be a scrape.
//
// Coarse data do not say when in a window its scrapes were. That matters to none but
// those who compare windows with raw samples, and raw samples say it.
type rhythm struct{ interval, phase int64 }

// rhythmOf is what the raw samples of a series say, if it has coarse data, too, and
// ranges hold two scrapes at the least.
func rhythmOf(segments []segment, l looks) (rhythm, error) {
	for i := len(segments) - 1; i >= 0 && len(segments) > 1; i-- {
		if segments[i].resolution == block.Raw {
			r, err := segments[i].rhythm()
			if 2*r.interval > l.rangeMillis {
				return rhythm{}, err
			}
			return r, err
		}
	}
	return rhythm{}, nil
}

// rhythm of a raw segment's first samples. An interval is in seconds, and shorter than half a window.
func (s segment) rhythm() (rhythm, error) {
	const enough = 16
	var times, intervals []int64
	it := s.samples()
	for len(times) < enough && it.Next() != chunkenc.ValNone {
		times = append(times, it.AtT())
		if n := len(times); n > 1 {
			intervals = append(intervals, times[n-1]-times[n-2])
		}
	}
	if err := it.Err(); err != nil || len(times) < enough/4 {
		return rhythm{}, err
	}
	slices.Sort(intervals)
	interval := time.Duration(intervals[len(intervals)/2] * int64(time.Millisecond)).Round(time.Second).Milliseconds()
	if interval == 0 || interval > int64(block.FiveMin)/2 {
		return rhythm{}, nil
	}
	return rhythm{interval, times[len(times)/2] % interval}, nil
}

// upTo is the last scrape at t or earlier.
func (r rhythm) upTo(t int64) int64 {
	if r.interval == 0 {
		return t
	}
	return r.phase + windowStart(t-r.phase, r.interval)
}

// sparse is g, or the scrapes where g is denser. The engine takes the border of a
// range that is farther from the samples than these are from each other for the begin
// or the end of the series; so beside raw samples none may be closer together than those.
func (r rhythm) sparse(g grid) grid {
	if g.spacing >= r.interval*int64(len(g.phases)) {
		return g
	}
	return grid{spacing: r.interval, phases: []int64{r.phase}}
}
