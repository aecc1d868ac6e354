package querytest

import (
	"runtime/debug"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/promqltest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	debug.SetGCPercent(400) // every load makes blocks and servers anew; collecting them was a fifth of the time
	goleak.VerifyTestMain(m)
}

// The whole upstream suite, start timestamps, XOR2 and native histograms included.
func TestUpstreamPromQL(t *testing.T) {
	engine := promqltest.NewTestEngine(t, false, 5*time.Minute, promqltest.DefaultMaxSamplesPerQuery)
	promqltest.RunBuiltinTestsWithStorage(t, engine, NewStorage)
}
