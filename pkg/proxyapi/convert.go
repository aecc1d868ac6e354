package proxyapi

import (
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/varve-io/varve/pkg/proxyapi/proxypb"
	"github.com/varve-io/varve/pkg/storeapi/storepb"
)

func strategy(s Strategy) storepb.PartialResponseStrategy {
	if s {
		return storepb.PartialResponseStrategy_ABORT
	}
	return storepb.PartialResponseStrategy_WARN
}

func strategyFromWire(s storepb.PartialResponseStrategy) Strategy {
	return s == storepb.PartialResponseStrategy_ABORT
}

func labelsToWire(in labels.Labels) *storepb.LabelSet {
	out := &storepb.LabelSet{}
	in.Range(func(l labels.Label) {
		out.Labels = append(out.Labels, &storepb.Label{Name: l.Name, Value: l.Value})
	})
	return out
}

// labelsFromWire sorts; of a label that comes twice the last one holds.
func labelsFromWire(in *storepb.LabelSet) labels.Labels {
	b := labels.NewBuilder(labels.EmptyLabels())
	for _, l := range in.GetLabels() {
		b.Set(l.GetName(), l.GetValue())
	}
	return b.Labels()
}

// timeToWire has no message for the zero time.
func timeToWire(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func timeFromWire(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

func rulesRequestToWire(r RulesRequest) *proxypb.RulesRequest {
	out := &proxypb.RulesRequest{
		PartialResponseStrategy: strategy(r.Abort), MatcherString: r.Match, RuleName: r.Names, RuleGroup: r.Groups, File: r.Files,
	}
	switch r.Type {
	case Alerting:
		out.Type = proxypb.RulesRequest_ALERT
	case Recording:
		out.Type = proxypb.RulesRequest_RECORD
	}
	return out
}

func rulesRequestFromWire(in *proxypb.RulesRequest) RulesRequest {
	out := RulesRequest{
		Abort: strategyFromWire(in.PartialResponseStrategy), Match: in.MatcherString, Names: in.RuleName, Groups: in.RuleGroup, Files: in.File,
	}
	switch in.Type {
	case proxypb.RulesRequest_ALERT:
		out.Type = Alerting
	case proxypb.RulesRequest_RECORD:
		out.Type = Recording
	case proxypb.RulesRequest_ALL:
	}
	return out
}

func groupToWire(g RuleGroup) *proxypb.RuleGroup {
	out := &proxypb.RuleGroup{
		Name: g.Name, File: g.File, Interval: g.Interval, EvaluationDurationSeconds: g.EvaluationTime,
		LastEvaluation: timeToWire(g.LastEvaluation), PartialResponseStrategy: strategy(g.Abort), Limit: g.Limit,
	}
	for _, r := range g.Rules {
		out.Rules = append(out.Rules, ruleToWire(r))
	}
	return out
}

func ruleToWire(r Rule) *proxypb.Rule {
	if r.Type == Recording {
		return &proxypb.Rule{Result: &proxypb.Rule_Recording{Recording: &proxypb.RecordingRule{
			Name: r.Name, Query: r.Query, Labels: labelsToWire(r.Labels), Health: r.Health, LastError: r.LastError,
			EvaluationDurationSeconds: r.EvaluationTime, LastEvaluation: timeToWire(r.LastEvaluation),
		}}}
	}
	out := &proxypb.Alert{
		State: stateToWire(r.State), Name: r.Name, Query: r.Query, DurationSeconds: r.Duration, KeepFiringForSeconds: r.KeepFiringFor,
		Labels: labelsToWire(r.Labels), Annotations: labelsToWire(r.Annotations), Health: r.Health, LastError: r.LastError,
		EvaluationDurationSeconds: r.EvaluationTime, LastEvaluation: timeToWire(r.LastEvaluation),
	}
	for _, a := range r.Alerts {
		instance := &proxypb.AlertInstance{
			Labels: labelsToWire(a.Labels), Annotations: labelsToWire(a.Annotations), State: stateToWire(a.State),
			Value: a.Value, PartialResponseStrategy: strategy(a.Abort),
		}
		if a.ActiveAt != nil {
			instance.ActiveAt = timestamppb.New(*a.ActiveAt)
		}
		out.Alerts = append(out.Alerts, instance)
	}
	return &proxypb.Rule{Result: &proxypb.Rule_Alert{Alert: out}}
}

func groupFromWire(in *proxypb.RuleGroup) RuleGroup {
	out := RuleGroup{
		Name: in.GetName(), File: in.GetFile(), Interval: in.GetInterval(), EvaluationTime: in.GetEvaluationDurationSeconds(),
		LastEvaluation: timeFromWire(in.GetLastEvaluation()), Abort: strategyFromWire(in.GetPartialResponseStrategy()), Limit: in.GetLimit(),
	}
	for _, r := range in.GetRules() {
		switch {
		case r.GetAlert() != nil:
			out.Rules = append(out.Rules, alertFromWire(r.GetAlert()))
		case r.GetRecording() != nil:
			rec := r.GetRecording()
			out.Rules = append(out.Rules, Rule{
				Type: Recording, Name: rec.Name, Query: rec.Query, Labels: labelsFromWire(rec.Labels), Health: rec.Health, LastError: rec.LastError,
				EvaluationTime: rec.EvaluationDurationSeconds, LastEvaluation: timeFromWire(rec.LastEvaluation),
			})
		}
	}
	return out
}

func alertFromWire(in *proxypb.Alert) Rule {
	out := Rule{
		Type: Alerting, State: stateFromWire(in.State), Name: in.Name, Query: in.Query, Duration: in.DurationSeconds,
		KeepFiringFor: in.KeepFiringForSeconds, Labels: labelsFromWire(in.Labels), Annotations: labelsFromWire(in.Annotations),
		Health: in.Health, LastError: in.LastError, EvaluationTime: in.EvaluationDurationSeconds, LastEvaluation: timeFromWire(in.LastEvaluation),
	}
	for _, a := range in.Alerts {
		alert := Alert{
			Labels: labelsFromWire(a.GetLabels()), Annotations: labelsFromWire(a.GetAnnotations()), State: stateFromWire(a.GetState()),
			Value: a.GetValue(), Abort: strategyFromWire(a.GetPartialResponseStrategy()),
		}
		if a.GetActiveAt() != nil {
			at := a.GetActiveAt().AsTime()
			alert.ActiveAt = &at
		}
		out.Alerts = append(out.Alerts, alert)
	}
	return out
}

func stateToWire(s AlertState) proxypb.AlertState {
	switch s {
	case StateInactive:
		return proxypb.AlertState_INACTIVE
	case StatePending:
		return proxypb.AlertState_PENDING
	case StateFiring:
		return proxypb.AlertState_FIRING
	case StateUnknown:
	}
	return proxypb.AlertState_UNKNOWN
}

func stateFromWire(s proxypb.AlertState) AlertState {
	switch s {
	case proxypb.AlertState_INACTIVE:
		return StateInactive
	case proxypb.AlertState_PENDING:
		return StatePending
	case proxypb.AlertState_FIRING:
		return StateFiring
	case proxypb.AlertState_UNKNOWN:
	}
	return StateUnknown
}

func targetsRequestToWire(r TargetsRequest) *proxypb.TargetsRequest {
	out := &proxypb.TargetsRequest{PartialResponseStrategy: strategy(r.Abort)}
	switch r.State {
	case ActiveTarget:
		out.State = proxypb.TargetsRequest_ACTIVE
	case DroppedTarget:
		out.State = proxypb.TargetsRequest_DROPPED
	case AnyTarget:
	}
	return out
}

func targetsRequestFromWire(in *proxypb.TargetsRequest) TargetsRequest {
	out := TargetsRequest{State: AnyTarget, Abort: strategyFromWire(in.PartialResponseStrategy)}
	switch in.State {
	case proxypb.TargetsRequest_ACTIVE:
		out.State = ActiveTarget
	case proxypb.TargetsRequest_DROPPED:
		out.State = DroppedTarget
	case proxypb.TargetsRequest_ANY:
	}
	return out
}

func targetsToWire(d TargetDiscovery) *proxypb.TargetDiscovery {
	out := &proxypb.TargetDiscovery{}
	for _, t := range d.Active {
		health := proxypb.TargetHealth_TARGET_UNKNOWN
		switch t.Health {
		case HealthUp:
			health = proxypb.TargetHealth_UP
		case HealthDown:
			health = proxypb.TargetHealth_DOWN
		case HealthUnknown:
		}
		out.ActiveTargets = append(out.ActiveTargets, &proxypb.ActiveTarget{
			DiscoveredLabels: labelsToWire(t.DiscoveredLabels), Labels: labelsToWire(t.Labels), ScrapePool: t.ScrapePool,
			ScrapeUrl: t.ScrapeURL, GlobalUrl: t.GlobalURL, LastError: t.LastError, LastScrape: timeToWire(t.LastScrape),
			LastScrapeDuration: t.LastScrapeDuration, Health: health,
		})
	}
	for _, t := range d.Dropped {
		out.DroppedTargets = append(out.DroppedTargets, &proxypb.DroppedTarget{DiscoveredLabels: labelsToWire(t.DiscoveredLabels)})
	}
	return out
}

func targetsFromWire(in *proxypb.TargetDiscovery) (out TargetDiscovery) {
	for _, t := range in.GetActiveTargets() {
		health := HealthUnknown
		switch t.GetHealth() {
		case proxypb.TargetHealth_UP:
			health = HealthUp
		case proxypb.TargetHealth_DOWN:
			health = HealthDown
		case proxypb.TargetHealth_TARGET_UNKNOWN:
		}
		out.Active = append(out.Active, Target{
			DiscoveredLabels: labelsFromWire(t.GetDiscoveredLabels()), Labels: labelsFromWire(t.GetLabels()), ScrapePool: t.GetScrapePool(),
			ScrapeURL: t.GetScrapeUrl(), GlobalURL: t.GetGlobalUrl(), LastError: t.GetLastError(), LastScrape: timeFromWire(t.GetLastScrape()),
			LastScrapeDuration: t.GetLastScrapeDuration(), Health: health,
		})
	}
	for _, t := range in.GetDroppedTargets() {
		out.Dropped = append(out.Dropped, Dropped{DiscoveredLabels: labelsFromWire(t.GetDiscoveredLabels())})
	}
	return out
}

func metadataToWire(in map[string][]Meta) *proxypb.MetricMetadata {
	out := &proxypb.MetricMetadata{Metadata: map[string]*proxypb.MetricMetadataEntry{}}
	for name, metas := range in {
		entry := &proxypb.MetricMetadataEntry{}
		for _, m := range metas {
			entry.Metas = append(entry.Metas, &proxypb.Meta{Type: m.Type, Help: m.Help, Unit: m.Unit})
		}
		out.Metadata[name] = entry
	}
	return out
}

func metadataFromWire(in *proxypb.MetricMetadata) map[string][]Meta {
	out := map[string][]Meta{}
	for name, entry := range in.GetMetadata() {
		for _, m := range entry.GetMetas() {
			out[name] = append(out[name], Meta{Type: m.GetType(), Help: m.GetHelp(), Unit: m.GetUnit()})
		}
	}
	return out
}

func exemplarsToWire(in SeriesExemplars) *proxypb.ExemplarData {
	out := &proxypb.ExemplarData{SeriesLabels: labelsToWire(in.SeriesLabels)}
	for _, e := range in.Exemplars {
		out.Exemplars = append(out.Exemplars, &proxypb.Exemplar{Labels: labelsToWire(e.Labels), Value: e.Value, Ts: e.T})
	}
	return out
}

func exemplarsFromWire(in *proxypb.ExemplarData) SeriesExemplars {
	out := SeriesExemplars{SeriesLabels: labelsFromWire(in.GetSeriesLabels())}
	for _, e := range in.GetExemplars() {
		out.Exemplars = append(out.Exemplars, Exemplar{Labels: labelsFromWire(e.GetLabels()), Value: e.GetValue(), T: e.GetTs()})
	}
	return out
}

func statusRequestToWire(r StatusRequest) *proxypb.TSDBStatisticsRequest {
	out := &proxypb.TSDBStatisticsRequest{Limit: int32(min(r.Limit, 1<<31-1)), PartialResponseStrategy: strategy(r.Abort)}
	for _, m := range r.Matchers {
		out.Matchers = append(out.Matchers, &storepb.LabelMatcher{Type: storepb.LabelMatcher_Type(m.Type), Name: m.Name, Value: m.Value})
	}
	return out
}

func statusRequestFromWire(in *proxypb.TSDBStatisticsRequest) (StatusRequest, error) {
	out := StatusRequest{Limit: int(in.Limit), Abort: strategyFromWire(in.PartialResponseStrategy)}
	if in.Limit < 0 {
		return out, fmt.Errorf("%w: limit is %d", ErrBadRequest, in.Limit)
	}
	for _, m := range in.Matchers {
		if m.GetType() < storepb.LabelMatcher_EQ || m.GetType() > storepb.LabelMatcher_NRE {
			return out, fmt.Errorf("%w: matcher on label %q has unknown type %d", ErrBadRequest, m.GetName(), m.GetType())
		}
		lm, err := labels.NewMatcher(labels.MatchType(m.GetType()), m.GetName(), m.GetValue())
		if err != nil {
			return out, fmt.Errorf("%w: matcher on label %q: %w", ErrBadRequest, m.GetName(), err)
		}
		out.Matchers = append(out.Matchers, lm)
	}
	return out, nil
}

func statusToWire(in map[string]TSDBStatus) *proxypb.TSDBStatistics {
	out := &proxypb.TSDBStatistics{Statistics: map[string]*proxypb.TSDBStatisticsEntry{}}
	for tenant, s := range in {
		out.Statistics[tenant] = &proxypb.TSDBStatisticsEntry{
			HeadStatistics: &proxypb.HeadStatistics{
				NumSeries: s.Head.NumSeries, NumLabelPairs: s.Head.NumLabelPairs, ChunkCount: s.Head.ChunkCount,
				MinTime: s.Head.MinTime, MaxTime: s.Head.MaxTime,
			},
			SeriesCountByMetricName:     statsToWire(s.SeriesCountByMetricName),
			LabelValueCountByLabelName:  statsToWire(s.LabelValueCountByLabelName),
			MemoryInBytesByLabelName:    statsToWire(s.MemoryInBytesByLabelName),
			SeriesCountByLabelValuePair: statsToWire(s.SeriesCountByLabelValuePair),
		}
	}
	return out
}

func statusFromWire(in *proxypb.TSDBStatistics) map[string]TSDBStatus {
	out := map[string]TSDBStatus{}
	for tenant, s := range in.GetStatistics() {
		h := s.GetHeadStatistics()
		out[tenant] = TSDBStatus{
			Head: HeadStats{
				NumSeries: h.GetNumSeries(), NumLabelPairs: h.GetNumLabelPairs(), ChunkCount: h.GetChunkCount(),
				MinTime: h.GetMinTime(), MaxTime: h.GetMaxTime(),
			},
			SeriesCountByMetricName:     statsFromWire(s.GetSeriesCountByMetricName()),
			LabelValueCountByLabelName:  statsFromWire(s.GetLabelValueCountByLabelName()),
			MemoryInBytesByLabelName:    statsFromWire(s.GetMemoryInBytesByLabelName()),
			SeriesCountByLabelValuePair: statsFromWire(s.GetSeriesCountByLabelValuePair()),
		}
	}
	return out
}

func statsToWire(in []Stat) (out []*proxypb.Statistic) {
	for _, s := range in {
		out = append(out, &proxypb.Statistic{Name: s.Name, Value: s.Value})
	}
	return out
}

func statsFromWire(in []*proxypb.Statistic) (out []Stat) {
	for _, s := range in {
		out = append(out, Stat{Name: s.GetName(), Value: s.GetValue()})
	}
	return out
}
