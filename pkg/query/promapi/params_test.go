package promapi

import (
	"net/url"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"

	"github.com/varve-io/varve/pkg/query"
)

func TestAQueryThatSaysNothingMayReadCoarseData(t *testing.T) {
	const hour, none = time.Hour, time.Duration(0)
	for name, tc := range map[string]struct {
		asked  string // max_source_resolution
		change func(*query.Options)
		step   time.Duration
		want   time.Duration
	}{
		"nothing said":                      {"", nil, hour, 12 * time.Minute},
		"auto":                              {"auto", nil, 5 * hour, hour},
		"raw":                               {"0s", nil, hour, none},
		"5m":                                {"5m", nil, 5 * hour, 5 * time.Minute},
		"seconds, as Thanos takes them":     {"3600", nil, time.Minute, hour},
		"nothing said, instant":             {"", nil, 0, none},
		"nothing said, instant, set to 1h":  {"", func(o *query.Options) { o.InstantMaxSourceResolution = hour }, 0, hour},
		"nothing said, switched off":        {"", func(o *query.Options) { o.AutoDownsampling = false }, hour, none},
		"auto, although it is switched off": {"auto", func(o *query.Options) { o.AutoDownsampling = false }, hour, 12 * time.Minute},
	} {
		o := query.Defaults()
		if tc.change != nil {
			tc.change(&o)
		}
		engine := query.NewEngine(nil, o, promslog.NewNopLogger(), prometheus.NewRegistry())
		p := &params{api: &API{Backend: Backend{Engine: engine}}, form: url.Values{"max_source_resolution": {tc.asked}}}
		if got := p.resolution(tc.step); got != tc.want || p.err() != nil {
			t.Errorf("%s: got %s and %v, want %s", name, got, p.err(), tc.want)
		}
	}
}
