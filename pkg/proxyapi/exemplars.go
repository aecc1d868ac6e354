package proxyapi

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// ExemplarsRequest selects the exemplars of the series in a query. Times are
// inclusive Unix milliseconds.
type ExemplarsRequest struct {
	Query      string
	Start, End int64
	Abort      Strategy
}

// SeriesExemplars are the exemplars of one series, in the order of time.
type SeriesExemplars struct {
	SeriesLabels labels.Labels `json:"seriesLabels"`
	Exemplars    []Exemplar    `json:"exemplars"`
}

// MarshalJSON writes empty lists as Prometheus does.
func (s SeriesExemplars) MarshalJSON() ([]byte, error) {
	type plain SeriesExemplars
	s.Exemplars = list(s.Exemplars)
	return json.Marshal(plain(s)) //nolint:wrapcheck // the encoder says of what
}

// Exemplar is an example of a sample; T is in Unix milliseconds.
type Exemplar struct {
	Labels labels.Labels
	Value  float64
	T      int64
}

// exemplarJSON has Prometheus' form: the value as text, the time in seconds.
type exemplarJSON struct {
	Labels    labels.Labels `json:"labels"`
	Value     string        `json:"value"`
	Timestamp json.Number   `json:"timestamp"`
}

// MarshalJSON writes Prometheus' form.
func (e Exemplar) MarshalJSON() ([]byte, error) {
	return json.Marshal(exemplarJSON{ //nolint:wrapcheck // the encoder says of what
		Labels: e.Labels, Value: strconv.FormatFloat(e.Value, 'f', -1, 64),
		Timestamp: json.Number(strconv.FormatFloat(float64(e.T)/1000, 'f', -1, 64)),
	})
}

// UnmarshalJSON reads Prometheus' form.
func (e *Exemplar) UnmarshalJSON(b []byte) error {
	var in exemplarJSON
	if err := json.Unmarshal(b, &in); err != nil {
		return err //nolint:wrapcheck // the decoder says of what
	}
	seconds, err := in.Timestamp.Float64()
	if err != nil {
		return fmt.Errorf("exemplar timestamp %q: %w", in.Timestamp, err)
	}
	v, err := strconv.ParseFloat(in.Value, 64)
	if err != nil {
		return fmt.Errorf("exemplar value %q: %w", in.Value, err)
	}
	*e = Exemplar{Labels: in.Labels, Value: v, T: int64(math.Round(seconds * 1000))}
	return nil
}

// ExemplarQuery is what to ask an endpoint with these external label sets: the
// selectors of the query that some of its series may satisfy, joined by " + ". It
// is empty when there are none. Matchers on external labels are taken out, because
// a Prometheus does not know its own; for an endpoint that is itself a querier,
// pass its label sets to MatchingSelectors instead.
func ExemplarQuery(query string, sets []labels.Labels) (string, error) {
	selectors, err := matching(query, sets)
	if err != nil {
		return "", err
	}
	for i, ms := range selectors {
		selectors[i] = slices.DeleteFunc(slices.Clone(ms), func(m *labels.Matcher) bool {
			return slices.ContainsFunc(sets, func(s labels.Labels) bool { return s.Has(m.Name) })
		})
	}
	return joinSelectors(selectors), nil
}

// MatchingSelectors is ExemplarQuery with all matchers left in.
func MatchingSelectors(query string, sets []labels.Labels) (string, error) {
	selectors, err := matching(query, sets)
	return joinSelectors(selectors), err
}

// matching returns the selectors of a query that do not contradict every label set.
func matching(query string, sets []labels.Labels) ([][]*labels.Matcher, error) {
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(query)
	if err != nil {
		return nil, fmt.Errorf("%w: parse %q: %w", ErrBadRequest, query, err)
	}
	var out [][]*labels.Matcher
	for _, ms := range parser.ExtractSelectors(expr) {
		fits := func(s labels.Labels) bool {
			return !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return s.Has(m.Name) && !m.Matches(s.Get(m.Name)) })
		}
		if len(sets) == 0 || slices.ContainsFunc(sets, fits) {
			out = append(out, ms)
		}
	}
	return out, nil
}

// joinSelectors leaves out selectors without matchers, which nobody answers.
func joinSelectors(selectors [][]*labels.Matcher) string {
	var parts []string
	for _, ms := range selectors {
		texts := make([]string, 0, len(ms))
		for _, m := range ms {
			texts = append(texts, m.String())
		}
		if len(texts) > 0 {
			parts = append(parts, "{"+strings.Join(texts, ", ")+"}")
		}
	}
	return strings.Join(parts, " + ")
}

// MergeExemplars joins the answers of several endpoints by series without the
// replica labels; equal exemplars become one.
func MergeExemplars(in []SeriesExemplars, replicaLabels []string) []SeriesExemplars {
	all := make([]SeriesExemplars, len(in))
	for i, s := range in {
		all[i] = SeriesExemplars{SeriesLabels: dropLabels(s.SeriesLabels, replicaLabels), Exemplars: s.Exemplars}
	}
	slices.SortStableFunc(all, func(a, b SeriesExemplars) int { return labels.Compare(a.SeriesLabels, b.SeriesLabels) })
	var out []SeriesExemplars
	for _, s := range all {
		if n := len(out); n > 0 && labels.Equal(out[n-1].SeriesLabels, s.SeriesLabels) {
			out[n-1].Exemplars = slices.Concat(out[n-1].Exemplars, s.Exemplars)
			continue
		}
		s.Exemplars = slices.Clone(s.Exemplars)
		out = append(out, s)
	}
	for i := range out {
		slices.SortFunc(out[i].Exemplars, compareExemplars)
		out[i].Exemplars = slices.CompactFunc(out[i].Exemplars, func(a, b Exemplar) bool { return compareExemplars(a, b) == 0 })
	}
	return out
}

func compareExemplars(a, b Exemplar) int {
	return cmp.Or(cmp.Compare(a.T, b.T), labels.Compare(a.Labels, b.Labels), cmp.Compare(a.Value, b.Value))
}
