package promapi

import (
	"context"
	"time"
)

// storeStatus is an endpoint as Thanos shows it.
type storeStatus struct {
	Name      string              `json:"name"`
	LastCheck time.Time           `json:"lastCheck"`
	LastError *string             `json:"lastError"`
	LabelSets []map[string]string `json:"labelSets"`
	MinTime   int64               `json:"minTime"`
	MaxTime   int64               `json:"maxTime"`
}

// stores lists the endpoints by component.
func (a *API) stores(context.Context, *params) (answer, error) {
	byComponent := map[string][]storeStatus{}
	for _, e := range a.Endpoints.Status() {
		s := storeStatus{
			Name: e.Address, LastCheck: e.LastCheck, MinTime: e.Info.MinTime, MaxTime: e.Info.MaxTime,
			LabelSets: make([]map[string]string, 0, len(e.Info.LabelSets)),
		}
		if e.LastError != nil {
			text := e.LastError.Error()
			s.LastError = &text
		}
		for _, set := range e.Info.LabelSets {
			s.LabelSets = append(s.LabelSets, set.Map())
		}
		component := e.Info.Component
		if component == "" {
			component = "unknown"
		}
		byComponent[component] = append(byComponent[component], s)
	}
	return answer{data: byComponent}, nil
}
