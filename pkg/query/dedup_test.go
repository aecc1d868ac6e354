package query

import (
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/dedup"
	"github.com/varve-io/varve/pkg/storeapi/storeapitest"
)

// TestTheFunctionSaysHowReplicasBecomeOne counts the samples of an hour that two
// replicas scraped every 15 s, half an interval apart.
func TestTheFunctionSaysHowReplicasBecomeOne(t *testing.T) {
	start := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	replica := func(name string, shift time.Duration) storeapitest.Fixture {
		values := make([]float64, 240)
		return storeapitest.Fixture{
			External: labels.FromStrings("replica", name),
			Series: []blocktest.Series{
				blocktest.Floats(labels.FromStrings(labels.MetricName, "up"), start.Add(shift).UnixMilli(), 15_000, values...),
			},
		}
	}
	f := newFanout(t, fixed{up: []Endpoint{
		endpointOf(t, "a", memory(t, replica("a", time.Second))),
		endpointOf(t, "b", memory(t, replica("b", 8*time.Second))),
	}})
	// The first penalty is five seconds, less than what lies between the replicas: one sample too many.
	for function, want := range map[dedup.Func]float64{dedup.Default: 240, dedup.Penalty: 241, dedup.Chain: 480} {
		t.Run(function.String(), func(t *testing.T) {
			e := newEngine(t, f, func(o *Options) { o.Dedup.Func = function })
			answer, err := e.Instant(t.Context(), `count_over_time(up[1h])`, start.Add(time.Hour-time.Millisecond),
				Params{Dedup: true, ReplicaLabels: []string{"replica"}})
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Close()
			v, ok := answer.Value.(promql.Vector)
			if !ok || len(v) != 1 || v[0].F != want {
				t.Errorf("got %v, want one series of %v samples", answer.Value, want)
			}
		})
	}
}
