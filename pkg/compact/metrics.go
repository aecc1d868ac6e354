package compact

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/varve-io/varve/pkg/planner"
)

type metrics struct {
	todo        *prometheus.GaugeVec
	jobs        *prometheus.CounterVec
	failures    *prometheus.CounterVec
	quarantined *prometheus.CounterVec
	samples     *prometheus.CounterVec

	uploadsAborted prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	kind := []string{"kind"}
	return &metrics{
		todo: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "varve_compact_todo_jobs", Help: "Jobs of the last plan, by kind; what they lead to is not counted.",
		}, kind),
		jobs: f.NewCounterVec(prometheus.CounterOpts{
			Name: "varve_compact_jobs_total", Help: "Jobs done, by kind.",
		}, kind),
		failures: f.NewCounterVec(prometheus.CounterOpts{
			Name: "varve_compact_job_failures_total", Help: "Attempts at a job that ended in an error, by kind.",
		}, kind),
		quarantined: f.NewCounterVec(prometheus.CounterOpts{
			Name: "varve_compact_blocks_quarantined_total", Help: "Blocks set aside by a mark because they cannot be read, by reason.",
		}, []string{"reason"}),
		samples: f.NewCounterVec(prometheus.CounterOpts{
			Name: "varve_compact_samples_written_total", Help: "Samples in uploaded blocks, by resolution.",
		}, []string{"resolution"}),
		uploadsAborted: f.NewCounter(prometheus.CounterOpts{
			Name: "varve_compact_uploads_aborted_total", Help: "Unfinished uploads aborted because nobody went on with them.",
		}),
	}
}

// plan shows how many jobs of each kind a plan has.
func (m *metrics) plan(jobs []planner.Job) {
	m.todo.Reset()
	for _, j := range jobs {
		m.todo.WithLabelValues(kindOf(j)).Inc()
	}
}
