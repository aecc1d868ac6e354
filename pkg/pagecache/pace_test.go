package pagecache

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestARequestThatComesWellIsNotOvertaken(t *testing.T) {
	p := newPace(newMetrics(prometheus.NewRegistry()))
	const n = 6 << 20 // expected to take 0.13 s
	for name, tc := range map[string]struct {
		came int64
		took time.Duration
		want bool
	}{
		"nothing came":                         {0, time.Second, true},
		"most came, if slowly":                 {5 << 20, 500 * time.Millisecond, false},
		"little came, slowly":                  {1 << 20, 500 * time.Millisecond, true},
		"half came at half the expected speed": {3 << 20, 200 * time.Millisecond, true},
		"most came long ago":                   {5 << 20, 10 * time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := p.late(tc.came, n, tc.took); got != tc.want {
				t.Errorf("late after %s with %d of %d bytes: got %v, want %v", tc.took, tc.came, n, got, tc.want)
			}
		})
	}
}
