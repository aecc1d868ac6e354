package query

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
	"github.com/varve-io/varve/pkg/storeapi/storeapitest"
)

// fixed is a set of members that does not change.
type fixed struct {
	up      []Endpoint
	missing []Missing
}

func (f fixed) Members() ([]Endpoint, []Missing) { return f.up, f.missing }

// peerOf makes a Peer of a Store.
type peerOf struct{ storeapi.Store }

func (peerOf) Close() error { return nil }

func endpointOf(t *testing.T, address string, s storeapi.Store) Endpoint {
	t.Helper()
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatalf("info of %s: %v", address, err)
	}
	return Endpoint{Address: address, Info: info, Peer: peerOf{s}}
}

func memory(t *testing.T, fs ...storeapitest.Fixture) storeapi.Store {
	t.Helper()
	m, err := storeapitest.NewMemory(fs...)
	if err != nil {
		t.Fatalf("encode fixture: %v", err)
	}
	return m
}

func newFanout(t *testing.T, m members) *Fanout {
	t.Helper()
	return NewFanout(m, DefaultFanoutOptions(), prometheus.NewRegistry())
}

func TestFanoutOverGRPC(t *testing.T) {
	storeapitest.Run(t, func(t *testing.T, f storeapitest.Fixture) storeapi.Store {
		t.Helper()
		// The same data twice, as from a sidecar and a store gateway.
		return newFanout(t, fixed{up: []Endpoint{
			endpointOf(t, "a", storeapitest.OverGRPC(t, memory(t, f))),
			endpointOf(t, "b", storeapitest.OverGRPC(t, memory(t, f))),
		}})
	})
}

func TestFanoutOverReplicas(t *testing.T) {
	storeapitest.RunReplicas(t, func(t *testing.T, fs []storeapitest.Fixture) storeapi.Store {
		t.Helper()
		m := fixed{}
		for _, f := range fs {
			m.up = append(m.up, endpointOf(t, f.External.Get("replica"), storeapitest.OverGRPC(t, memory(t, f))))
		}
		return newFanout(t, m)
	})
}

func TestQueriersStack(t *testing.T) {
	storeapitest.RunReplicas(t, func(t *testing.T, fs []storeapitest.Fixture) storeapi.Store {
		t.Helper()
		m := fixed{}
		for _, f := range fs {
			below := newFanout(t, fixed{up: []Endpoint{endpointOf(t, "store", memory(t, f))}})
			m.up = append(m.up, endpointOf(t, "querier "+f.External.Get("replica"), storeapitest.OverGRPC(t, below)))
		}
		return newFanout(t, m)
	})
}

// broken answers Info and nothing else.
type broken struct {
	storeapi.Store
	err error
}

func (b broken) Series(context.Context, *storeapi.Request) series.Set { return series.ErrSet(b.err) }

func (b broken) LabelNames(context.Context, *storeapi.LabelsRequest) ([]string, annotations.Annotations, error) {
	return nil, nil, b.err
}

// silent answers Info, and else nothing until it is cancelled.
type silent struct{ storeapi.Store }

func (silent) Series(ctx context.Context, _ *storeapi.Request) series.Set {
	<-ctx.Done()
	return series.ErrSet(ctx.Err())
}

func everything(partial storeapi.PartialResponse) *storeapi.Request {
	return &storeapi.Request{
		MinTime: storeapitest.Begin, MaxTime: storeapitest.End, Partial: partial,
		Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+")},
	}
}

func TestWhatIsMissingIsSaid(t *testing.T) {
	good := memory(t, storeapitest.Standard())
	whole := len(collect(t, newFanout(t, fixed{up: []Endpoint{endpointOf(t, "good", good)}}), everything(storeapi.Abort)).series)
	refused := errors.New("connection refused")
	elsewhere := storeapi.Info{APIs: storeapi.StoreAPI, MinTime: storeapitest.End + 1, MaxTime: storeapitest.End + 2}

	for name, tc := range map[string]struct {
		add     func(*fixed)
		want    string // in the warning or the error; empty: the answer is complete
		inAbort error
	}{
		"an endpoint whose stream breaks": {
			func(f *fixed) { f.up = append(f.up, endpointOf(t, "bad", broken{good, refused})) },
			"store bad with {cluster=\"eu\", prometheus=\"p\", replica=\"a\"}: connection refused", storeapi.ErrUnavailable,
		},
		"an endpoint that does not answer Info": {
			func(f *fixed) { f.missing = append(f.missing, Missing{Address: "gone", Reason: refused}) },
			"endpoint gone is missing: connection refused", storeapi.ErrUnavailable,
		},
		"an endpoint that had no data in the time range": {
			func(f *fixed) {
				f.missing = append(f.missing, Missing{Address: "gone", Known: true, Info: elsewhere, Reason: refused})
			}, "", nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := fixed{up: []Endpoint{endpointOf(t, "good", good)}}
			tc.add(&m)
			f := newFanout(t, m)

			warned := collect(t, f, everything(storeapi.Warn))
			if warned.err != nil || len(warned.series) != whole {
				t.Fatalf("with partial response: got %d series, error %v, want %d and none", len(warned.series), warned.err, whole)
			}
			if got := warned.warningText(); !strings.Contains(got, tc.want) || tc.want == "" && got != "" {
				t.Errorf("warnings: got %q, want %q", got, tc.want)
			}
			strict := collect(t, f, everything(storeapi.Abort))
			if !errors.Is(strict.err, tc.inAbort) {
				t.Errorf("without partial response: got error %v, want %v", strict.err, tc.inAbort)
			}
		})
	}
}

func TestErrorsThatNoPartialAnswerHides(t *testing.T) {
	good := memory(t, storeapitest.Standard())
	for name, want := range map[string]error{"a limit": storeapi.ErrLimit, "a bad request": storeapi.ErrBadRequest} {
		t.Run(name, func(t *testing.T) {
			f := newFanout(t, fixed{up: []Endpoint{endpointOf(t, "good", good), endpointOf(t, "bad", broken{good, want})}})
			if got := collect(t, f, everything(storeapi.Warn)); !errors.Is(got.err, want) {
				t.Errorf("got error %v, want %v", got.err, want)
			}
		})
	}
}

func TestLabelCallsSayWhatIsMissing(t *testing.T) {
	good := memory(t, storeapitest.Standard())
	f := newFanout(t, fixed{up: []Endpoint{endpointOf(t, "good", good), endpointOf(t, "bad", broken{good, errors.New("reset")})}})
	req := &storeapi.LabelsRequest{MinTime: storeapitest.Begin, MaxTime: storeapitest.End}
	names, warnings, err := f.LabelNames(t.Context(), req)
	if err != nil || len(names) == 0 || len(warnings) != 1 {
		t.Errorf("got %v, warnings %v, error %v, want names and one warning", names, warnings, err)
	}
	req.Partial = storeapi.Abort
	if _, _, err := f.LabelNames(t.Context(), req); !errors.Is(err, storeapi.ErrUnavailable) {
		t.Errorf("without partial response: got error %v, want %v", err, storeapi.ErrUnavailable)
	}
}

func TestSelectorLabelsAreOurOwn(t *testing.T) {
	o := DefaultFanoutOptions()
	o.SelectorLabels = labels.FromStrings("region", "west")
	f := NewFanout(fixed{up: []Endpoint{endpointOf(t, "good", memory(t, storeapitest.Standard()))}}, o, prometheus.NewRegistry())
	info, err := f.Info(t.Context())
	if err != nil || info.LabelSets[0].Get("region") != "west" {
		t.Errorf("info: got %v, error %v, want label sets with the region", info.LabelSets, err)
	}
	req := everything(storeapi.Warn)
	req.Matchers = append(req.Matchers, labels.MustNewMatcher(labels.MatchEqual, "region", "west"))
	if got := collect(t, f, req); got.err != nil || len(got.series) == 0 {
		t.Errorf("matching: got %d series, error %v, want some", len(got.series), got.err)
	}
	req.Matchers = []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "region", "east")}
	if got := collect(t, f, req); got.err != nil || len(got.series) != 0 {
		t.Errorf("contradicting: got %d series, error %v, want none", len(got.series), got.err)
	}
}

type collected struct {
	series   []series.Series
	warnings annotations.Annotations
	err      error
}

func (c collected) warningText() string {
	texts, _ := c.warnings.AsStrings("", 0, 0)
	return strings.Join(texts, "\n")
}

// collect asks and ends the context, as every caller must.
func collect(t *testing.T, s storeapi.Store, req *storeapi.Request) (c collected) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c.series, c.warnings, c.err = series.Collect(s.Series(ctx, req))
	return c
}
