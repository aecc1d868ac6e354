package proxyapi

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// RuleType is alerting or recording.
type RuleType string

// The types of rules.
const (
	Alerting  RuleType = "alerting"
	Recording RuleType = "recording"
)

// AlertState is unknown, inactive, pending or firing.
type AlertState string

// The states of an alert.
const (
	StateUnknown  AlertState = "unknown"
	StateInactive AlertState = "inactive"
	StatePending  AlertState = "pending"
	StateFiring   AlertState = "firing"
)

// urgency rises from unknown to firing.
func (s AlertState) urgency() int {
	return slices.Index([]AlertState{StateInactive, StatePending, StateFiring}, s)
}

// RulesRequest selects rules. Empty lists select everything.
type RulesRequest struct {
	// Type restricts to alerting or recording rules; empty means both.
	Type RuleType
	// Match holds selectors over the labels of rules; one of them must match.
	Match []string
	// Names, Groups and Files must contain a rule's name, its group's, its group's file.
	Names, Groups, Files []string
	Abort                Strategy
}

// RuleGroup is a group of rules, evaluated together. Durations are in seconds.
type RuleGroup struct {
	Name           string    `json:"name"`
	File           string    `json:"file"`
	Rules          []Rule    `json:"rules"`
	Interval       float64   `json:"interval"`
	Limit          int64     `json:"limit"`
	EvaluationTime float64   `json:"evaluationTime"`
	LastEvaluation time.Time `json:"lastEvaluation"`
	// Abort is set where the group's queries want all or nothing.
	Abort Strategy `json:"partialResponseStrategy"`
}

// MarshalJSON writes a group without rules as Prometheus does.
func (g RuleGroup) MarshalJSON() ([]byte, error) {
	type plain RuleGroup
	g.Rules = list(g.Rules)
	return json.Marshal(plain(g)) //nolint:wrapcheck // the encoder says of what
}

// Strategy is true for ABORT, false for WARN, which are its forms in JSON.
type Strategy bool

// MarshalText writes WARN or ABORT.
func (s Strategy) MarshalText() ([]byte, error) {
	if s {
		return []byte("ABORT"), nil
	}
	return []byte("WARN"), nil
}

// UnmarshalText reads what MarshalText writes; Prometheus itself has no such field.
func (s *Strategy) UnmarshalText(b []byte) error {
	*s = string(b) == "ABORT"
	return nil
}

// Rule is an alerting or a recording rule; the last group of fields is for alerts alone.
type Rule struct {
	Type           RuleType      `json:"type"`
	Name           string        `json:"name"`
	Query          string        `json:"query"`
	Labels         labels.Labels `json:"labels"`
	Health         string        `json:"health"`
	LastError      string        `json:"lastError,omitempty"`
	EvaluationTime float64       `json:"evaluationTime"`
	LastEvaluation time.Time     `json:"lastEvaluation"`

	State         AlertState    `json:"state"`
	Duration      float64       `json:"duration"`
	KeepFiringFor float64       `json:"keepFiringFor"`
	Annotations   labels.Labels `json:"annotations"`
	Alerts        []Alert       `json:"alerts"`
}

// MarshalJSON leaves out of a recording rule what only alerts have.
func (r Rule) MarshalJSON() ([]byte, error) {
	type plain Rule
	if r.Type == Alerting {
		r.Alerts = list(r.Alerts)
		return json.Marshal(plain(r)) //nolint:wrapcheck // the encoder says of what
	}
	return json.Marshal(struct { //nolint:wrapcheck // the encoder says of what
		plain
		// Deeper fields of these names are hidden by these, which are not written.
		State         *string `json:"state,omitempty"`
		Duration      *string `json:"duration,omitempty"`
		KeepFiringFor *string `json:"keepFiringFor,omitempty"`
		Annotations   *string `json:"annotations,omitempty"`
		Alerts        *string `json:"alerts,omitempty"`
	}{plain: plain(r)})
}

// Alert is one instance of an alerting rule.
type Alert struct {
	Labels      labels.Labels `json:"labels"`
	Annotations labels.Labels `json:"annotations"`
	State       AlertState    `json:"state"`
	ActiveAt    *time.Time    `json:"activeAt,omitempty"`
	Value       string        `json:"value"`
	Abort       Strategy      `json:"partialResponseStrategy"`
}

// FilterRules keeps the rules that the request selects; groups left without rules go.
func FilterRules(groups []RuleGroup, req RulesRequest) ([]RuleGroup, error) {
	selectors, err := parser.NewParser(parser.Options{}).ParseMetricSelectors(req.Match)
	if err != nil {
		return nil, fmt.Errorf("%w: rule selectors: %w", ErrBadRequest, err)
	}
	among := func(list []string, s string) bool { return len(list) == 0 || slices.Contains(list, s) }
	var out []RuleGroup
	for _, g := range groups {
		if !among(req.Groups, g.Name) || !among(req.Files, g.File) {
			continue
		}
		var kept []Rule
		for _, r := range g.Rules {
			if (req.Type == "" || r.Type == req.Type) && among(req.Names, r.Name) && anyMatches(selectors, r.Labels) {
				kept = append(kept, r)
			}
		}
		if g.Rules = kept; len(kept) > 0 {
			out = append(out, g)
		}
	}
	return out, nil
}

// anyMatches reports whether one of the selectors matches; none at all do.
func anyMatches(selectors [][]*labels.Matcher, lset labels.Labels) bool {
	return len(selectors) == 0 || slices.ContainsFunc(selectors, func(ms []*labels.Matcher) bool {
		return !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(lset.Get(m.Name)) })
	})
}

// MergeRules makes one list of the groups of several endpoints. Groups of the same
// file and name become one, replica labels go, and of rules that are then the same
// one stays: the most urgent alert, then whatever was evaluated last.
func MergeRules(groups []RuleGroup, replicaLabels []string) []RuleGroup {
	groups = slices.Clone(groups)
	slices.SortStableFunc(groups, func(a, b RuleGroup) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Name, b.Name))
	})
	var out []RuleGroup
	for _, g := range groups {
		if n := len(out); n > 0 && out[n-1].File == g.File && out[n-1].Name == g.Name {
			out[n-1].Rules = slices.Concat(out[n-1].Rules, g.Rules)
			continue
		}
		out = append(out, g)
	}
	for i := range out {
		out[i].Rules = mergeRules(out[i].Rules, replicaLabels)
	}
	return out
}

func mergeRules(in []Rule, replicaLabels []string) []Rule {
	rules := make([]Rule, len(in))
	for i, r := range in {
		r.Labels = dropLabels(r.Labels, replicaLabels)
		r.Alerts = slices.Clone(r.Alerts)
		for j := range r.Alerts {
			r.Alerts[j].Labels = dropLabels(r.Alerts[j].Labels, replicaLabels)
		}
		rules[i] = r
	}
	slices.SortStableFunc(rules, func(a, b Rule) int {
		return cmp.Or(compareRules(a, b), cmp.Compare(b.State.urgency(), a.State.urgency()), b.LastEvaluation.Compare(a.LastEvaluation))
	})
	return slices.CompactFunc(rules, func(a, b Rule) bool { return compareRules(a, b) == 0 })
}

// compareRules is 0 for the same rule, whatever its state. Alerts come first.
func compareRules(a, b Rule) int {
	return cmp.Or(
		cmp.Compare(a.Type, b.Type), // "alerting" < "recording"
		cmp.Compare(a.Name, b.Name),
		labels.Compare(a.Labels, b.Labels),
		cmp.Compare(a.Query, b.Query),
		cmp.Compare(a.Duration, b.Duration),
	)
}
