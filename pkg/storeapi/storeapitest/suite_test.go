package storeapitest_test

import (
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"go.uber.org/goleak"

	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/storeapi"
	"github.com/varve-io/varve/pkg/storeapi/storeapitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func memory(t *testing.T, fs ...storeapitest.Fixture) storeapi.Store {
	t.Helper()
	m, err := storeapitest.NewMemory(fs...)
	if err != nil {
		t.Fatalf("memory store: %v", err)
	}
	return m
}

func TestSuite(t *testing.T) {
	for name, wrap := range map[string]func(testing.TB, storeapi.Store) storeapi.Store{
		"memory":                   func(_ testing.TB, s storeapi.Store) storeapi.Store { return s },
		"memory over gRPC":         storeapitest.OverGRPC,
		"memory over Thanos' gRPC": storeapitest.OverThanos,
	} {
		t.Run(name, func(t *testing.T) {
			storeapitest.Run(t, func(t *testing.T, f storeapitest.Fixture) storeapi.Store { return wrap(t, memory(t, f)) })
		})
		t.Run("replicas in "+name, func(t *testing.T) {
			storeapitest.RunReplicas(t, func(t *testing.T, fs []storeapitest.Fixture) storeapi.Store { return wrap(t, memory(t, fs...)) })
		})
	}
}

func TestBlockHoldsTheFixture(t *testing.T) {
	storeapitest.Run(t, func(t *testing.T, f storeapitest.Fixture) storeapi.Store {
		t.Helper()
		dir, meta := blocktest.Dir(t, f.Block())
		if got := labels.FromMap(meta.Thanos.Labels); !labels.Equal(got, f.External) {
			t.Errorf("external labels of the block: got %s, want %s", got, f.External)
		}
		return memory(t, storeapitest.Fixture{External: f.External, Series: blocktest.Read(t, dir)})
	})
}

func TestQueryableHoldsTheFixture(t *testing.T) {
	f := storeapitest.Standard()
	q, err := f.Queryable(t).ChunkQuerier(storeapitest.Begin, storeapitest.End)
	if err != nil {
		t.Fatalf("chunk querier: %v", err)
	}
	defer func() {
		if err := q.Close(); err != nil {
			t.Errorf("close querier: %v", err)
		}
	}()
	set := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
	n := 0
	for ; set.Next(); n++ {
		if want := f.Series[n].Labels; !labels.Equal(set.At().Labels(), want) {
			t.Errorf("series %d is %s, want %s", n, set.At().Labels(), want)
		}
	}
	if set.Err() != nil || n != len(f.Series) {
		t.Errorf("got %d series (%v), want %d", n, set.Err(), len(f.Series))
	}
}
