package compact

import (
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// scraped are the metrics that are read off the board when somebody asks.
type scraped struct{ *Executor }

const (
	// shownStreams is how many streams metrics name; the others are one, under otherStreams.
	shownStreams = 50
	otherStreams = "other"
)

// descriptions of what is scraped; a function, for there is no package state.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("varve_compact_"+name, help, labels, nil)
}

// Describe says nothing: which series there are follows from the bucket.
func (scraped) Describe(chan<- *prometheus.Desc) {}

// Collect gives the state of the work.
func (s scraped) Collect(out chan<- prometheus.Metric) {
	r := s.Report()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	if r.RefreshedAt == nil {
		return
	}
	gauge(desc("last_look_timestamp_seconds", "When the bucket was last looked at."), float64(r.RefreshedAt.UnixMilli())/1000)
	s.collectBacklog(r, gauge)
	s.collectRunning(r, gauge)
	s.collectBlocks(r, gauge)
	seen := 0.0
	for _, n := range r.Neighbours {
		seen = max(seen, float64(n.At.Unix()))
	}
	gauge(desc("thanos_seen_timestamp_seconds", "When a Thanos compactor last left a trace in a stream of this one since it started; 0 for never."), seen)
}

type gauges func(d *prometheus.Desc, v float64, labels ...string)

func (s scraped) collectBacklog(r Report, gauge gauges) {
	jobs := desc("backlog_jobs", "Jobs of the last plan that are not done, of the streams with most bytes; the other streams are one.", "stream")
	bytes := desc("backlog_bytes", "Bytes of the blocks that these jobs read.", "stream")
	eta := desc("backlog_eta_seconds", "Time until the last of these jobs is done, at the rate so far.", "stream")
	var other Backlog
	for i, b := range r.Backlog {
		if i >= shownStreams {
			other.Jobs += b.Jobs
			other.Bytes += b.Bytes
			if b.ETASeconds != nil && (other.ETASeconds == nil || *other.ETASeconds < *b.ETASeconds) {
				other.ETASeconds = b.ETASeconds
			}
			continue
		}
		b.gauges(b.Stream, jobs, bytes, eta, gauge)
	}
	other.gauges(otherStreams, jobs, bytes, eta, gauge)
	gauge(desc("oldest_job_seconds", "How long the oldest job that is not done has been in every plan."), s.oldest().Seconds())
}

func (b Backlog) gauges(stream string, jobs, bytes, eta *prometheus.Desc, gauge gauges) {
	gauge(jobs, float64(b.Jobs), stream)
	gauge(bytes, float64(b.Bytes), stream)
	if b.ETASeconds != nil {
		gauge(eta, *b.ETASeconds, stream)
	}
}

// oldest is how long the oldest job has been in every plan.
func (e *Executor) oldest() (age time.Duration) {
	b := e.board
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.waiting {
		if since, ok := b.first[w.job.String()]; ok {
			age = max(age, e.now().Sub(since))
		}
	}
	for name := range b.running {
		if since, ok := b.first[name]; ok {
			age = max(age, e.now().Sub(since))
		}
	}
	return age
}

func (s scraped) collectRunning(r Report, gauge gauges) {
	type sum struct{ jobs, bytes, read, seconds float64 }
	byKind := map[string]*sum{}
	for _, kind := range kinds() {
		byKind[kind] = &sum{}
	}
	for _, j := range r.Running {
		of := byKind[j.Kind]
		of.jobs++
		of.bytes += float64(j.Bytes)
		of.read += float64(j.Bytes) * j.Progress
		of.seconds = max(of.seconds, time.Since(j.StartedAt).Seconds())
	}
	jobs := desc("running_jobs", "Jobs that run, by kind.", "kind")
	bytes := desc("running_bytes", "Bytes of the blocks that the running jobs work on, by kind.", "kind")
	read := desc("running_read_bytes", "Bytes of these that are read.", "kind")
	seconds := desc("running_seconds", "How long the longest running job has run, by kind.", "kind")
	for kind, of := range byKind {
		gauge(jobs, of.jobs, kind)
		gauge(bytes, of.bytes, kind)
		gauge(read, of.read, kind)
		gauge(seconds, of.seconds, kind)
	}
}

func (s scraped) collectBlocks(r Report, gauge gauges) {
	byReason := map[string]float64{"other": 0}
	for known := range reasons() {
		byReason[string(known)] = 0
	}
	byReason[reasonManual] = 0
	type entry struct {
		id     ulid.ULID
		reason string
	}
	counted := map[entry]bool{} // a block may have two marks for one reason
	for _, q := range r.Quarantined {
		if counted[entry{q.Block, q.Reason}] {
			continue
		}
		counted[entry{q.Block, q.Reason}] = true
		reason := q.Reason
		if _, known := byReason[reason]; !known {
			reason = "other"
		}
		byReason[reason]++
	}
	quarantined := desc("quarantined_blocks", "Blocks that are left out of merging or downsampling, by the reason of their mark.", "reason")
	for reason, n := range byReason {
		gauge(quarantined, n, reason)
	}
	const now, day, later = "now", "1d", "later"
	byTime := map[string]float64{now: 0, day: 0, later: 0}
	for _, c := range r.Reclaimable {
		switch wait := c.At.Sub(s.now()); {
		case wait <= 0:
			byTime[now] += float64(c.Bytes)
		case wait <= 24*time.Hour:
			byTime[day] += float64(c.Bytes)
		default:
			byTime[later] += float64(c.Bytes)
		}
	}
	reclaimable := desc("reclaimable_bytes", "Bytes of blocks that are to be removed: now, within 1d, or later.", "due")
	for due, bytes := range byTime {
		gauge(reclaimable, bytes, due)
	}
}
