package history

import (
	"bufio"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// Exporter exposes the processes as they are now, in Prometheus' text format, so
// that a real Prometheus goes on where the generated history ends. Scrapes need
// honor_labels, for the processes name their own job and instance.
func Exporter(processes []Process) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		out := bufio.NewWriter(w)
		now := time.Now().UnixMilli()
		for _, p := range processes {
			fmt.Fprintf(out, "%s %v\n", sampleName(p.Labels), p.At(now))
		}
		_ = out.Flush() // a scraper that went away is its own affair
	})
}

// sampleName is name{label="value",…} as the text format wants it.
func sampleName(lset labels.Labels) string {
	var pairs []string
	lset.DropReserved(func(name string) bool { return name == labels.MetricName }).Range(func(l labels.Label) {
		pairs = append(pairs, fmt.Sprintf("%s=%q", l.Name, l.Value))
	})
	return lset.Get(labels.MetricName) + "{" + strings.Join(pairs, ",") + "}"
}
