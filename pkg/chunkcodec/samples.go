package chunkcodec

import (
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Samples is a run of samples in columns. The caller owns and reuses it; the
// histograms it points to are never written to.
type Samples struct {
	// T are the times in Unix milliseconds.
	T []int64
	// V has the length of T; where a histogram stands it holds 0.
	V []float64
	// ST are the start timestamps, 0 where unknown. It is empty when none is
	// known, else it has the length of T.
	ST []int64
	// H and FH are the histograms with integer and with float counts, nil where
	// something else stands. Each is empty when there is none, else it has the length
	// of T. Several may share spans and bounds.
	H  []*histogram.Histogram
	FH []*histogram.FloatHistogram
}

// Len is the number of samples.
func (s *Samples) Len() int { return len(s.T) }

// Reset empties s and keeps its memory.
func (s *Samples) Reset() {
	clear(s.H)
	clear(s.FH)
	*s = Samples{T: s.T[:0], V: s.V[:0], ST: s.ST[:0], H: s.H[:0], FH: s.FH[:0]}
}

// Type says what stands at i.
func (s *Samples) Type(i int) chunkenc.ValueType {
	switch {
	case len(s.H) > 0 && s.H[i] != nil:
		return chunkenc.ValHistogram
	case len(s.FH) > 0 && s.FH[i] != nil:
		return chunkenc.ValFloatHistogram
	}
	return chunkenc.ValFloat
}

// run returns the first position after from whose type is another.
func (s *Samples) run(from int) int {
	if len(s.H) == 0 && len(s.FH) == 0 {
		return s.Len()
	}
	to := from + 1
	for to < s.Len() && s.Type(to) == s.Type(from) {
		to++
	}
	return to
}

// Start is the start timestamp at i, 0 when it is not known.
func (s *Samples) Start(i int) int64 {
	if len(s.ST) == 0 {
		return 0
	}
	return s.ST[i]
}

// AppendFloat appends a float.
func (s *Samples) AppendFloat(st, t int64, v float64) {
	s.T = append(s.T, t)
	s.V = append(s.V, v)
	s.align(st)
}

// AppendHistogram appends a histogram with integer counts.
func (s *Samples) AppendHistogram(st, t int64, h *histogram.Histogram) {
	s.AppendFloat(st, t, 0)
	s.H = resize(s.H, s.Len())
	s.H[s.Len()-1] = h
}

// AppendFloatHistogram appends a histogram with float counts.
func (s *Samples) AppendFloatHistogram(st, t int64, h *histogram.FloatHistogram) {
	s.AppendFloat(st, t, 0)
	s.FH = resize(s.FH, s.Len())
	s.FH[s.Len()-1] = h
}

// Append appends the samples of src from position from up to to.
func (s *Samples) Append(src *Samples, from, to int) {
	if from == to {
		return
	}
	n := s.Len()
	s.T = append(s.T, src.T[from:to]...)
	s.V = append(s.V, src.V[from:to]...)
	s.ST = appendColumn(s.ST, src.ST, n, from, to)
	s.H = appendColumn(s.H, src.H, n, from, to)
	s.FH = appendColumn(s.FH, src.FH, n, from, to)
}

// appendColumn keeps an optional column, so far meant for n samples, aligned with the times.
func appendColumn[V any](dst, src []V, n, from, to int) []V {
	switch {
	case len(src) > 0:
		return append(resize(dst, n), src[from:to]...)
	case len(dst) > 0:
		return resize(dst, n+to-from)
	}
	return dst
}

// align completes the optional columns after a time was appended.
func (s *Samples) align(st int64) {
	n := s.Len()
	if st != 0 || len(s.ST) > 0 {
		s.ST = resize(s.ST, n)
		s.ST[n-1] = st
	}
	if len(s.H) > 0 {
		s.H = resize(s.H, n)
	}
	if len(s.FH) > 0 {
		s.FH = resize(s.FH, n)
	}
}

// level cuts or fills the optional columns to the number of times, and drops
// start timestamps of which none is known.
func (s *Samples) level() {
	n := s.Len()
	if len(s.ST) > 0 {
		s.ST = resize(s.ST, n)[:n]
		if !slices.ContainsFunc(s.ST, func(st int64) bool { return st != 0 }) {
			s.ST = s.ST[:0]
		}
	}
	if len(s.H) > 0 {
		s.H = resize(s.H, n)
	}
	if len(s.FH) > 0 {
		s.FH = resize(s.FH, n)
	}
}

// extend makes v n elements longer; what they hold is for the caller to write.
func extend[V any](v []V, n int) []V {
	return slices.Grow(v, n)[:len(v)+n]
}

// resize makes v n long, new elements zero.
func resize[V any](v []V, n int) []V {
	var zero V
	for len(v) < n {
		v = append(v, zero)
	}
	return v
}

// Truncate keeps the first n samples.
func (s *Samples) Truncate(n int) {
	clear(s.H[min(n, len(s.H)):])
	clear(s.FH[min(n, len(s.FH)):])
	s.T, s.V = s.T[:n], s.V[:n]
	s.ST, s.H, s.FH = s.ST[:min(n, len(s.ST))], s.H[:min(n, len(s.H))], s.FH[:min(n, len(s.FH))]
}
