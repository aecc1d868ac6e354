package query

import (
	"testing"
	"time"

	"github.com/varve-io/varve/pkg/storeapi/storeapitest"
)

func TestASubqueryOfTooManyStepsIsRefusedBeforeItTakesMemory(t *testing.T) {
	f := newFanout(t, fixed{up: []Endpoint{endpointOf(t, "a", memory(t, storeapitest.Standard()))}})
	e := newEngine(t, f, nil)
	at := millis(storeapitest.End)
	for expr, refused := range map[string]bool{
		`sum_over_time(count(up)[10y:1ms])`:                      true,
		`max_over_time(vector(1)[1y:10ms])`:                      true,
		`vector(1) + max_over_time(vector(1)[20d:10ms])`:         true,
		`max_over_time(max_over_time(vector(1)[1m:1s])[20d:1s])`: true,
		`max_over_time(max_over_time(vector(1)[20d:1m])[1m:1s])`: false,
		`max_over_time(vector(1)[1d:1s])`:                        false,
		`max_over_time(vector(1)[30d:])`:                         false,
	} {
		t.Run(expr, func(t *testing.T) {
			answer, err := e.Instant(t.Context(), expr, at, Params{PartialResponse: true})
			answer.Close()
			if IsLimit(err) != refused {
				t.Errorf("instant: got error %v, want a limit: %t", err, refused)
			}
		})
	}
	steps := Steps{Start: at.Add(-30 * 24 * time.Hour), End: at, Step: time.Hour}
	answer, err := e.Range(t.Context(), `max_over_time(vector(1)[1m:1s])`, steps, Params{PartialResponse: true})
	answer.Close()
	if !IsLimit(err) {
		t.Errorf("a subquery by the second under a range query of a month: got error %v, want a limit", err)
	}
}
