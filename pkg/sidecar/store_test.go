package sidecar_test

import (
	"testing"

	"github.com/varve-io/varve/pkg/storeapi"
	"github.com/varve-io/varve/pkg/storeapi/storeapitest"
)

func TestStoreOverARealPrometheus(t *testing.T) {
	for name, wrap := range map[string]func(testing.TB, storeapi.Store) storeapi.Store{
		"in process": func(_ testing.TB, s storeapi.Store) storeapi.Store { return s },
		"over gRPC":  storeapitest.OverGRPC,
	} {
		t.Run(name, func(t *testing.T) {
			storeapitest.Run(t, func(t *testing.T, f storeapitest.Fixture) storeapi.Store {
				t.Helper()
				prom := startPrometheus(t, config{External: f.External.Map()}, f.Block())
				return wrap(t, storeOver(t, prom.url, nil))
			})
		})
	}
}
