package query

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
)

// rhythm is when a series was scraped: every interval milliseconds, which leave
// the remainder phase. Prometheus scrapes a target at the same phase for as long as it
// lives. The zero rhythm is that of a series of which nothing is known: anything may be a scrape.
//
// Coarse data do not say when in a window its scrapes were, which matters where a range
// begins or ends inside of one. Raw samples of the series say it; without any, so do
// COUNT and the ends of coarse chunks.
type rhythm struct{ interval, phase int64 }

// rhythmFor is what the samples of a series say to a reader of an aggregate, if it
// has coarse data and ranges hold two scrapes at the least. Counters do not compare
// windows with anything unless there are raw samples; values of other aggregates are not shared out.
func rhythmFor(agg aggregate, segments []segment, l looks) (r rhythm, err error) {
	coarse := slices.ContainsFunc(segments, func(s segment) bool { return s.resolution > block.Raw })
	if !coarse || agg != counter && agg != sum && agg != count {
		return rhythm{}, nil
	}
	if r, err = lastRhythm(segments, segment.rawRhythm); r.interval == 0 && err == nil && agg != counter {
		r, err = lastRhythm(segments, segment.coarseRhythm)
	}
	if err != nil || 2*r.interval > l.rangeMillis {
		return rhythm{}, err
	}
	return r, nil
}

// lastRhythm is what the last segment says that says any.
func lastRhythm(segments []segment, of func(segment) (rhythm, error)) (r rhythm, err error) {
	for i := len(segments) - 1; i >= 0 && r.interval == 0 && err == nil; i-- {
		r, err = of(segments[i])
	}
	return r, err
}

// rawRhythm of a raw segment's first samples. An interval is in seconds, and shorter than half a window.
func (s segment) rawRhythm() (rhythm, error) {
	if s.resolution != block.Raw {
		return rhythm{}, nil
	}
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

// coarseRhythm of a coarse segment's last chunks: at their ends stands the time of
// the last scrape, and a window holds as many as intervals fit in.
func (s segment) coarseRhythm() (rhythm, error) {
	if s.resolution == block.Raw {
		return rhythm{}, nil
	}
	const tries = 4
	for i := len(s.chunks) - 1; i >= max(0, len(s.chunks)-tries); i-- {
		c := s.chunks[i]
		subs, err := aggrchunk.Decode(c.Data)
		if err != nil {
			return rhythm{}, fmt.Errorf("read downsampled chunk: %w", err)
		}
		counts, err := decodePoints(subs[aggrchunk.Count])
		if err != nil {
			return rhythm{}, fmt.Errorf("read downsampled chunk: %w", err)
		}
		if r := rhythmOfCounts(counts, int64(s.resolution), c.MaxTime); r.interval > 0 {
			return r, nil
		}
	}
	return rhythm{}, nil
}

// rhythmOfCounts is the rhythm of windows that hold so many scrapes, with one at
// last. It is zero where most windows do not agree on an interval in seconds; where the last
// scrape is hidden behind the end of its window; and where scrapes are exactly at ends of
// windows, which leaves open to what side they count.
func rhythmOfCounts(counts []point, resolution, last int64) rhythm {
	const enough = 5
	if len(counts) < enough || (last+1)%resolution == 0 {
		return rhythm{}
	}
	sorted := make([]float64, len(counts))
	for i, p := range counts {
		sorted[i] = p.v.f
	}
	slices.Sort(sorted)
	usual, total, n := sorted[len(sorted)/2], 0.0, 0
	for _, c := range sorted {
		if math.Abs(c-usual) <= 1 {
			total, n = total+c, n+1
		}
	}
	exact := float64(resolution) * float64(n) / total
	interval := math.Round(exact/1000) * 1000
	if usual < 2 || interval < 1000 || 2*n < len(sorted) || !(math.Abs(exact-interval) <= interval/(2*usual)) {
		return rhythm{}
	}
	r := rhythm{interval: int64(interval)}
	if r.phase = last - windowStart(last, r.interval); r.phase == 0 && resolution%r.interval == 0 {
		return rhythm{}
	}
	return r
}

// upTo is the last scrape at t or earlier.
func (r rhythm) upTo(t int64) int64 {
	if r.interval == 0 {
		return t
	}
	return r.phase + windowStart(t-r.phase, r.interval)
}

// sparse is g, or the scrapes where g is denser: more samples than those say no more. And the
// engine takes the border of a range that is farther from a counter's samples than these are from each
// other for the begin or the end of the series; so beside raw samples none may be closer together.
func (r rhythm) sparse(g grid) grid {
	if g.spacing >= r.interval*int64(len(g.phases)) {
		return g
	}
	return grid{spacing: r.interval, phases: []int64{r.phase}}
}
