// Package history generates months of metrics as TSDB blocks, as if a pair of
// Prometheus replicas had scraped the same processes for that long and their
// sidecars had shipped every block.
//
// The processes are functions of time, so a test knows the truth at any instant.
package history

import (
	"fmt"
	"math"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// Process is one scraped time series, as the function of time it really is.
type Process struct {
	Labels labels.Labels
	// At is the value at a Unix time in milliseconds.
	At func(t int64) float64
}

const (
	day = 24 * 3600.0
	// restartEvery is how long a generated process lives; its counters start
	// from zero then.
	restartEvery = 6*day + 5*3600 + 17*60
)

// Processes returns n series: two thirds counters that rise with the time of
// day and restart every six days, one third gauges.
func Processes(n int) []Process {
	out := make([]Process, 0, n)
	for i := range n {
		instance := fmt.Sprintf("10.0.0.%d:8080", i%10+1)
		if i%3 == 2 {
			out = append(out, gauge(i, instance))
			continue
		}
		out = append(out, counter(i, instance))
	}
	return out
}

// counter rises at rate·(1 + ½·sin(time of day)): its integral, in whole events.
func counter(i int, instance string) Process {
	rate := 1 + float64(i%17)
	phase := float64(i % 24)
	shift := float64(i%10) * 3 * 3600 // processes do not restart together
	w := 2 * math.Pi / day
	integral := func(s float64) float64 { return rate * (s - math.Cos(w*s+phase)/(2*w)) }
	return Process{
		Labels: labels.FromStrings(labels.MetricName, "demo_requests_total", "job", "demo", "instance", instance,
			"handler", fmt.Sprintf("/api/%d", i), "code", []string{"200", "500"}[i%2]),
		At: func(t int64) float64 {
			s := float64(t) / 1000
			start := math.Floor((s+shift)/restartEvery)*restartEvery - shift
			return math.Floor(integral(s) - integral(start))
		},
	}
}

// gauge swings around its mean with the time of day and, a little, every few minutes.
func gauge(i int, instance string) Process {
	mean := 20 + float64(i%13)
	w := 2 * math.Pi / day
	return Process{
		Labels: labels.FromStrings(labels.MetricName, "demo_temperature_celsius", "job", "demo", "instance", instance,
			"sensor", fmt.Sprintf("s%d", i)),
		At: func(t int64) float64 {
			s := float64(t) / 1000
			v := mean + 8*math.Sin(w*s+float64(i)) + math.Sin(w*200*s)
			return math.Round(v*100) / 100
		},
	}
}

// Outage is a span in which a replica scraped nothing; From is inclusive, To exclusive.
type Outage struct{ From, To time.Time }

func (o Outage) holds(t int64) bool {
	return t >= o.From.UnixMilli() && t < o.To.UnixMilli()
}
