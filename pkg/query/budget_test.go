package query

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"

	"github.com/varve-io/varve/pkg/storeapi"
	"github.com/varve-io/varve/pkg/storeapi/storeapitest"
)

func newEngine(t *testing.T, s storeapi.Store, change func(*Options)) *Engine {
	t.Helper()
	o := Defaults()
	if change != nil {
		change(&o)
	}
	if err := o.Validate(); err != nil {
		t.Fatalf("options: %v", err)
	}
	return NewEngine(s, o, promslog.NewNopLogger(), prometheus.NewRegistry())
}

func TestOneQueryCannotTakeAllMemory(t *testing.T) {
	f := newFanout(t, fixed{up: []Endpoint{endpointOf(t, "a", storeapitest.OverGRPC(t, memory(t, storeapitest.Standard())))}})
	at := storeapitest.End
	for name, tc := range map[string]struct {
		change func(*Options)
		want   []string // parts of the message
	}{
		"the limit of one query":         {func(o *Options) { o.MaxBytes = 1000 }, []string{"--query.max-bytes=1000", `{__name__=~".+"}`, "shorten the time range"}},
		"the limit of all queries":       {func(o *Options) { o.MaxTotalBytes = 2000 }, []string{"--query.max-total-bytes=2000", "add matchers"}},
		"the limit of samples":           {func(o *Options) { o.MaxSamples = 10 }, []string{"--query.max-samples=10", "lengthen the step"}},
		"no limit is reached: an answer": {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, f, tc.change)
			answer, err := e.Range(t.Context(), `{__name__=~".+"}`, Steps{millis(storeapitest.Begin), millis(at), 60e9}, Params{PartialResponse: true})
			answer.Close()
			if tc.want == nil {
				if err != nil {
					t.Errorf("got error %v, want none", err)
				}
			} else if !IsLimit(err) {
				t.Fatalf("got error %v, want a limit", err)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want it to hold %q", err, want)
				}
			}
			if used := e.budget.Used(); used != 0 {
				t.Errorf("%d bytes are still accounted for after the query", used)
			}
		})
	}
}

func TestAnAccountGivesBackWhatItTook(t *testing.T) {
	b := NewBudget(100, 150)
	first, closeFirst := b.Open(context.Background())
	second, closeSecond := b.Open(context.Background())
	if err := accountOf(first).draw(90, "{}"); err != nil {
		t.Fatalf("first draw: %v", err)
	}
	if err := accountOf(second).draw(90, "{}"); !IsLimit(err) {
		t.Errorf("second draw: got %v, want the limit of all queries", err)
	}
	closeFirst()
	closeSecond()
	if err := accountOf(first).draw(1, "{}"); !errors.Is(err, context.Canceled) {
		t.Errorf("draw on a closed account: got %v, want %v", err, context.Canceled)
	}
	if b.Used() != 0 {
		t.Errorf("got %d bytes used after both were closed, want 0", b.Used())
	}
}
