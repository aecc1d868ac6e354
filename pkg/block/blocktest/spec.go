package blocktest

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
)

// Spec says what a block shall hold. Its zero value with some samples is usable.
type Spec struct {
	// Load is promqltest text: any number of load commands, whose first sample is at the Unix epoch.
	Load string
	// Series are added to what Load gives.
	Series []Series
	// Offset is added to every timestamp, those of Series as well.
	Offset time.Duration

	// Labels are the external labels, replica label included.
	Labels map[string]string
	// MinTime and MaxTime are the block's range in Unix milliseconds; both zero
	// stands for the range of the samples.
	MinTime, MaxTime int64
	// Level is the compaction level; zero stands for 1, a block cut from a head.
	Level int
	// Chunks chooses the chunk encodings.
	Chunks Chunks
	// ID is the block's ULID; the zero ULID stands for one that follows from the
	// content, with the block's end as its time.
	ID ulid.ULID
}

// Chunks is a choice among the encodings that Prometheus can write.
type Chunks int

// The choices. Start timestamps are kept by WithStart alone.
const (
	Classic   Chunks = iota // XOR, histogram, float histogram
	XOR2                    // XOR2 in place of XOR
	WithStart               // XOR2 and both histograms in their forms with start timestamps
)

// Series is one series with its samples, rising in time.
type Series struct {
	Labels  labels.Labels
	Samples []Sample
}

// Sample is a float, or a histogram if one of H and FH is set.
type Sample struct {
	ST int64 // start timestamp in Unix milliseconds; zero means none
	T  int64 // Unix milliseconds
	V  float64
	H  *histogram.Histogram
	FH *histogram.FloatHistogram
}

// Floats builds a series from values at a steady interval, both in milliseconds.
func Floats(lset labels.Labels, start, step int64, values ...float64) Series {
	s := Series{Labels: lset}
	for i, v := range values {
		s.Samples = append(s.Samples, Sample{T: start + int64(i)*step, V: v})
	}
	return s
}

// point is a sample on its way into a head, which wants them in the order of time.
type point struct {
	labels labels.Labels
	Sample
}

// points gives all samples of the spec in the order of time, then labels.
func (s Spec) points(t testing.TB) []point {
	t.Helper()
	all := slices.Clone(s.Series)
	if s.Load != "" {
		all = append(all, Load(t, s.Load)...)
	}
	shift := s.Offset.Milliseconds()
	var points []point
	for _, series := range all {
		for _, p := range series.Samples {
			p.T += shift
			switch {
			case s.Chunks != WithStart:
				p.ST = 0 // a Prometheus that keeps none; the chunk's encoding alone would let it through
			case p.ST != 0:
				p.ST += shift
			}
			points = append(points, point{series.Labels, p})
		}
	}
	slices.SortStableFunc(points, func(a, b point) int {
		return cmp.Or(cmp.Compare(a.T, b.T), labels.Compare(a.labels, b.labels))
	})
	return points
}

// timeRange is the block's range; every sample must be inside.
func (s Spec) timeRange(t testing.TB, points []point) (mint, maxt int64) {
	t.Helper()
	if len(points) == 0 {
		t.Fatal("a block needs at least one sample")
	}
	first, last := points[0].T, points[len(points)-1].T
	if s.MinTime == 0 && s.MaxTime == 0 {
		return first, last + 1
	}
	if first < s.MinTime || last >= s.MaxTime {
		t.Fatalf("samples from %d to %d lie outside the block's range [%d, %d)", first, last, s.MinTime, s.MaxTime)
	}
	return s.MinTime, s.MaxTime
}

// id is the spec's ULID, or one that follows from all that it says.
func (s Spec) id(points []point, maxt int64) ulid.ULID {
	if s.ID != (ulid.ULID{}) {
		return s.ID
	}
	h := sha256.New()
	fmt.Fprint(h, labels.FromMap(s.Labels), s.MinTime, maxt, s.Level, s.Chunks)
	for _, p := range points {
		fmt.Fprint(h, p.labels, p.ST, p.T, p.V, p.H, p.FH)
	}
	var id ulid.ULID
	copy(id[6:], h.Sum(nil))
	_ = id.SetTime(uint64(max(maxt, 0))) // tests do not reach the year 10889
	return id
}
