package query

import (
	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
)

// aggregate is what a selector reads of a downsampled window. A raw sample
// stands for a window of its own: it counts as one, and is its own sum, minimum,
// maximum and counter.
type aggregate uint8

const (
	// gauge is SUM over COUNT, held from the window's start to its end.
	gauge aggregate = iota
	// count and sum are spread evenly over the window.
	count
	sum
	minimum
	maximum
	// counter runs on between the windows' ends, as what was gained around bears out, without resets.
	counter
	// resetting falls once in each window in which the counter was reset.
	resetting
	// changing rises once in each window in which the value changed.
	changing
)

// kinds are the aggregates that a store must send.
func (a aggregate) kinds() aggrchunk.Kinds {
	switch a {
	case gauge:
		return aggrchunk.KindsOf(aggrchunk.Count, aggrchunk.Sum)
	case count:
		return aggrchunk.KindsOf(aggrchunk.Count)
	case sum:
		return aggrchunk.KindsOf(aggrchunk.Count, aggrchunk.Sum) // COUNT says when scrapes were
	case minimum:
		return aggrchunk.KindsOf(aggrchunk.Min)
	case maximum:
		return aggrchunk.KindsOf(aggrchunk.Max)
	case counter:
		return aggrchunk.KindsOf(aggrchunk.Counter)
	case resetting:
		return aggrchunk.KindsOf(aggrchunk.Max, aggrchunk.Counter)
	case changing:
		return aggrchunk.KindsOf(aggrchunk.Count, aggrchunk.Sum, aggrchunk.Min, aggrchunk.Max)
	}
	return aggrchunk.AllKinds
}

// leastWindows is how many windows a range holds at the least that cuts some, for what
// adds them up or compares them. What lies in the part of a window is an estimate; in so
// many it is a small part of the whole. See docs/design/0013-resolutions.md.
const leastWindows = 8

// coarsest is the coarsest resolution with which a function over a range means
// something: two windows for what compares samples, one for what adds them up if no range
// cuts it, and leastWindows if one does.
func (a aggregate) coarsest(allowed block.Resolution, l looks) block.Resolution {
	switch {
	case l.rangeMillis == 0:
		return allowed
	case a == gauge || a == counter:
		return floorResolution(min(int64(allowed), l.rangeMillis/2))
	}
	most := floorResolution(min(int64(allowed), l.rangeMillis))
	if most > block.Raw && l.cut(int64(most)) {
		return floorResolution(min(int64(most), l.rangeMillis/leastWindows))
	}
	return most
}

// floorResolution is the coarsest known resolution not above millis.
func floorResolution(millis int64) block.Resolution {
	for _, r := range []block.Resolution{block.OneHour, block.FiveMin} {
		if millis >= int64(r) {
			return r
		}
	}
	return block.Raw
}
