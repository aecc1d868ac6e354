package query

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
	"github.com/varve-io/varve/pkg/storeapi/storeapitest"
)

// gated answers once its gate is open.
type gated struct {
	storeapi.Store
	waiting atomic.Int64
	gate    chan struct{}
}

func (g *gated) Series(context.Context, *storeapi.Request) series.Set {
	g.waiting.Add(1)
	defer g.waiting.Add(-1)
	<-g.gate
	return series.EmptySet()
}

func TestSelectorsAreFetchedSideBySideUpToALimit(t *testing.T) {
	const selectors = 6
	expr := strings.Repeat("up + ", selectors-1) + "up"
	for limit, want := range map[int]int64{1: 1, 4: 4, 10: selectors} {
		t.Run(fmt.Sprintf("--query.max-concurrent-select=%d", limit), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &gated{gate: make(chan struct{})}
				e := newEngine(t, g, func(o *Options) { o.MaxConcurrentSelect = limit })
				done := make(chan error)
				go func() {
					answer, err := e.Instant(t.Context(), expr, millis(storeapitest.Begin), Params{})
					answer.Close()
					done <- err
				}()
				synctest.Wait() // until all that may ask have asked
				if got := g.waiting.Load(); got != want {
					t.Errorf("%d of %d selectors are fetched at once, want %d", got, selectors, want)
				}
				close(g.gate)
				if err := <-done; err != nil {
					t.Errorf("got error %v, want none", err)
				}
			})
		})
	}
}
