package query

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/util/annotations"

	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
	"github.com/varve-io/varve/pkg/storeapi/storeapitest"
)

// faulty panics when its answers are made.
type faulty struct{ storeapi.Store }

func (faulty) Close() error { return nil }

func (f faulty) Series(ctx context.Context, req *storeapi.Request) series.Set {
	return &faultySet{Set: f.Store.Series(ctx, req)}
}

func (faulty) LabelNames(context.Context, *storeapi.LabelsRequest) ([]string, annotations.Annotations, error) {
	return []string{"a", "b"}[:hostile(3)], nil, nil
}

func (faulty) Rules(context.Context, RulesRequest) ([]RuleGroup, annotations.Annotations, error) {
	return []RuleGroup{{}}[:hostile(2)], nil, nil
}

// faultySet panics at its second series.
type faultySet struct {
	series.Set
	n int
}

func (f *faultySet) Next() bool {
	f.n++
	return []bool{true}[hostile(f.n-1)] && f.Set.Next()
}

// hostile is a length out of bad data.
func hostile(n int) int { return n }

func TestAPanicEndsItsRequestAlone(t *testing.T) {
	good := memory(t, storeapitest.Standard())
	bad := endpointOf(t, "bad", good)
	bad.Info.APIs |= ProxyAPIs
	bad.Peer = faulty{good}
	fanout := newFanout(t, fixed{up: []Endpoint{endpointOf(t, "good", good), bad}})

	ask := func(s storeapi.Store) func() error {
		return func() error {
			e := newEngine(t, s, nil)
			answer, err := e.Range(t.Context(), `{__name__=~".+"}`, Steps{millis(storeapitest.Begin), millis(storeapitest.End), 60e9}, Params{PartialResponse: true})
			answer.Close()
			if used := e.budget.Used(); used != 0 {
				t.Errorf("%d bytes are still accounted for after the query", used)
			}
			return err
		}
	}
	for name, request := range map[string]func() error{
		"while series are fetched":            ask(faulty{good}),
		"while a member of a fan-out is read": ask(fanout),
		"in a label call to a member": func() error {
			_, _, err := fanout.LabelNames(t.Context(), &storeapi.LabelsRequest{MaxTime: 1 << 60})
			return err
		},
		"in a call to another of its services": func() error { _, _, err := NewProxy(fanout, nil).Rules(t.Context(), RulesRequest{}); return err },
	} {
		t.Run(name, func(t *testing.T) {
			if err := request(); !errors.Is(err, ErrInternal) || !strings.Contains(err.Error(), "panics_test.go:") {
				t.Errorf("got error %v, want an internal one that names the place", err)
			}
		})
	}
}
