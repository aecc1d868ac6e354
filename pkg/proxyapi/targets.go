package proxyapi

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// TargetState selects targets.
type TargetState string

// The states; the empty one is AnyTarget, too.
const (
	AnyTarget     TargetState = "any"
	ActiveTarget  TargetState = "active"
	DroppedTarget TargetState = "dropped"
)

// TargetHealth is up, down or unknown.
type TargetHealth string

// The healths of a target.
const (
	HealthUp      TargetHealth = "up"
	HealthDown    TargetHealth = "down"
	HealthUnknown TargetHealth = "unknown"
)

// TargetsRequest selects targets.
type TargetsRequest struct {
	State TargetState
	Abort Strategy
}

// TargetDiscovery is what was discovered.
type TargetDiscovery struct {
	Active  []Target  `json:"activeTargets"`
	Dropped []Dropped `json:"droppedTargets"`
}

// MarshalJSON writes empty lists as Prometheus does.
func (d TargetDiscovery) MarshalJSON() ([]byte, error) {
	type plain TargetDiscovery
	d.Active, d.Dropped = list(d.Active), list(d.Dropped)
	return json.Marshal(plain(d)) //nolint:wrapcheck // the encoder says of what
}

// Target is what is scraped. The duration is in seconds.
type Target struct {
	DiscoveredLabels   labels.Labels `json:"discoveredLabels"`
	Labels             labels.Labels `json:"labels"`
	ScrapePool         string        `json:"scrapePool"`
	ScrapeURL          string        `json:"scrapeUrl"`
	GlobalURL          string        `json:"globalUrl"`
	LastError          string        `json:"lastError"`
	LastScrape         time.Time     `json:"lastScrape"`
	LastScrapeDuration float64       `json:"lastScrapeDuration"`
	Health             TargetHealth  `json:"health"`
}

// Dropped is a target that relabelling dropped.
type Dropped struct {
	DiscoveredLabels labels.Labels `json:"discoveredLabels"`
}

// MergeTargets makes one of the answers of several endpoints: replica labels go,
// and of targets that are then the same the one scraped last stays.
func MergeTargets(in []TargetDiscovery, replicaLabels []string) (out TargetDiscovery) {
	for _, d := range in {
		for _, t := range d.Active {
			t.DiscoveredLabels, t.Labels = dropLabels(t.DiscoveredLabels, replicaLabels), dropLabels(t.Labels, replicaLabels)
			out.Active = append(out.Active, t)
		}
		for _, t := range d.Dropped {
			out.Dropped = append(out.Dropped, Dropped{DiscoveredLabels: dropLabels(t.DiscoveredLabels, replicaLabels)})
		}
	}
	slices.SortStableFunc(out.Active, func(a, b Target) int {
		return cmp.Or(compareTargets(a, b), b.LastScrape.Compare(a.LastScrape))
	})
	out.Active = slices.CompactFunc(out.Active, func(a, b Target) bool { return compareTargets(a, b) == 0 })
	slices.SortStableFunc(out.Dropped, compareDropped)
	out.Dropped = slices.CompactFunc(out.Dropped, func(a, b Dropped) bool { return compareDropped(a, b) == 0 })
	return out
}

// compareTargets is 0 for the same target, whatever its last scrape gave.
func compareTargets(a, b Target) int {
	return cmp.Or(
		cmp.Compare(a.ScrapePool, b.ScrapePool),
		labels.Compare(a.Labels, b.Labels),
		cmp.Compare(a.ScrapeURL, b.ScrapeURL),
		labels.Compare(a.DiscoveredLabels, b.DiscoveredLabels),
	)
}

func compareDropped(a, b Dropped) int {
	return labels.Compare(a.DiscoveredLabels, b.DiscoveredLabels)
}
