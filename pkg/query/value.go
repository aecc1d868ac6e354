package query

import (
	"fmt"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// value is a float or a native histogram; h is never written to once it is set.
type value struct {
	f float64
	h *histogram.FloatHistogram
}

// point is a value at a time in Unix milliseconds.
type point struct {
	t int64
	v value
}

func (v value) valueType() chunkenc.ValueType {
	if v.h != nil {
		return chunkenc.ValFloatHistogram
	}
	return chunkenc.ValFloat
}

func (v value) sameType(o value) bool { return (v.h == nil) == (o.h == nil) }

// total is the number itself, or how many observations a histogram holds.
func (v value) total() float64 {
	if v.h != nil {
		return v.h.Count
	}
	return v.f
}

// addable reports whether o is of v's type, with buckets of the same sort if both are histograms.
func (v value) addable(o value) bool {
	return v.sameType(o) && (v.h == nil || v.h.UsesCustomBuckets() == o.h.UsesCustomBuckets())
}

func (v value) times(factor float64) value {
	if v.h == nil {
		return value{f: v.f * factor}
	}
	return value{h: v.h.Copy().Mul(factor)}
}

// plus and minus need addable values.
func (v value) plus(o value) (value, error) {
	if v.h == nil {
		return value{f: v.f + o.f}, nil
	}
	sum, _, _, err := v.h.Copy().Add(o.h)
	if err != nil {
		return value{}, fmt.Errorf("add histograms of downsampled data: %w", err)
	}
	return value{h: noReset(sum)}, nil
}

func (v value) minus(o value) (value, error) {
	if v.h == nil {
		return value{f: v.f - o.f}, nil
	}
	difference, _, _, err := v.h.Copy().Sub(o.h)
	if err != nil {
		return value{}, fmt.Errorf("subtract histograms of downsampled data: %w", err)
	}
	return value{h: noReset(difference)}, nil
}

// noReset says that no reset precedes h, unless it is a gauge: resets have been
// applied already, and rounding must not look like one.
func noReset(h *histogram.FloatHistogram) *histogram.FloatHistogram {
	if h.CounterResetHint != histogram.GaugeType {
		h.CounterResetHint = histogram.NotCounterReset
	}
	return h
}

// fellFrom reports whether a counter was reset between before and v.
func (v value) fellFrom(before value) bool {
	if v.h == nil {
		return v.f < before.f
	}
	return v.h.DetectReset(before.h)
}

// sampler makes samples where somebody looks.
type sampler interface {
	// after returns the first sample later than t.
	after(t int64) (point, bool, error)
}

// sampled reads a sampler as a chunkenc.Iterator.
type sampled struct {
	src     sampler
	at      point
	started bool
	err     error
}

func (s *sampled) advance(t int64) chunkenc.ValueType {
	if s.err != nil {
		return chunkenc.ValNone
	}
	at, ok, err := s.src.after(t)
	if s.err = err; !ok || err != nil {
		return chunkenc.ValNone
	}
	s.at, s.started = at, true
	return at.v.valueType()
}

func (s *sampled) Next() chunkenc.ValueType {
	if !s.started {
		return s.advance(minTime)
	}
	return s.advance(s.at.t)
}

func (s *sampled) Seek(t int64) chunkenc.ValueType { //nolint:govet // Prometheus' Seek, not io.Seeker's
	switch {
	case !s.started:
		return s.advance(max(t, minTime+1) - 1)
	case s.at.t >= t:
		return s.at.v.valueType()
	}
	return s.advance(t - 1)
}

func (s *sampled) At() (int64, float64) { return s.at.t, s.at.v.f }

// AtHistogram is never asked for: histograms of downsampled data are float histograms.
func (s *sampled) AtHistogram(*histogram.Histogram) (int64, *histogram.Histogram) {
	return s.at.t, nil
}

func (s *sampled) AtFloatHistogram(h *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	if h == nil {
		return s.at.t, s.at.v.h.Copy()
	}
	s.at.v.h.CopyTo(h)
	return s.at.t, h
}

func (s *sampled) AtT() int64  { return s.at.t }
func (s *sampled) AtST() int64 { return 0 }
func (s *sampled) Err() error  { return s.err }
