package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/e2e/harness"
	"github.com/varve-io/varve/e2e/history"
)

// The buckets.
const (
	bucketRaw   = "raw"   // two replicas in blocks of two hours
	bucketDays  = "days"  // one of them in one block of two days, as a compactor leaves it
	bucketNoise = "noise" // as raw, with values that do not compress: 2 GiB of chunks at full scale
	bucketSmall = "small" // very many blocks of next to nothing
)

// The metrics. Of the narrow ones a question selects every n-th series, as it does of what all nodes have.
const (
	metricNarrow = "node_cpu_seconds_total"
	metricOther  = "node_disk_io_time_seconds_total"
	metricWide   = "http_requests_total"
	metricWider  = "http_request_duration_seconds_bucket"
	narrowOnly   = `{mode="m1"}` // one series of each node
)

const (
	fullSeries   = 10_224 // times two replicas, 54 hours and four samples a minute: 265 million samples
	nodes        = 20
	replicaLabel = "replica"
	interval     = 15 * time.Second
	blockRange   = 2 * time.Hour
	daysRange    = 48 * time.Hour
)

// scale is how large the data are.
type scale struct {
	series, hours, blocks int
}

// dataset is what all phases read: generated series, and a server with them in buckets.
type dataset struct {
	scale
	processes []history.Process
	noise     []history.Process
	s3        *harness.S3
}

// start is when the data begin: where a block of two days does.
func start() time.Time {
	return time.Date(2026, 9, 1, 0, 0, 0, 0, time.UTC).Truncate(daysRange)
}

func (d *dataset) end() time.Time { return start().Add(time.Duration(d.hours) * time.Hour) }

// compactedEnd is where the block of two days ends.
func (d *dataset) compactedEnd() time.Time {
	if whole := start().Add(daysRange); whole.Before(d.end()) {
		return whole
	}
	return d.end()
}

func replicas() []history.Replica {
	named := func(name string, phase time.Duration) history.Replica {
		return history.Replica{Labels: map[string]string{"cluster": "bench", replicaLabel: name}, Phase: phase}
	}
	return []history.Replica{named("a", 2*time.Second), named("b", 9*time.Second)}
}

// compacted is the replica whose samples the block of two days holds.
func compacted() history.Replica {
	return history.Replica{Labels: map[string]string{"cluster": "bench"}, Phase: 2 * time.Second}
}

// openData starts an S3 server over the data of a scale, which are generated if the
// cache does not have them. The caller closes them.
func openData(ctx context.Context, cache string, s scale, buckets []string, logf func(string, ...any)) (_ *dataset, err error) {
	dir := filepath.Join(cache, fmt.Sprintf("v2-%d-series-%d-hours-%d-blocks", s.series, s.hours, s.blocks))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	o := harness.FromEnv(dir, func(string, ...any) {})
	o.S3Args = []string{"--keep-alive"} // as S3 does
	c, err := harness.New(o)
	if err != nil {
		return nil, err
	}
	d := &dataset{scale: s, processes: processes(s.series), noise: noise(s.series)}
	if d.s3, err = c.S3(ctx, buckets...); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	for _, b := range buckets {
		done := filepath.Join(dir, b+".done")
		if _, err := os.Stat(done); err == nil {
			continue
		}
		began := time.Now()
		if err := d.fill(ctx, b, filepath.Join(dir, "new-"+b)); err != nil {
			return nil, fmt.Errorf("fill bucket %s: %w", b, err)
		}
		if err := os.WriteFile(done, nil, 0o644); err != nil {
			return nil, err
		}
		logf("bucket %s generated in %s", b, time.Since(began).Round(time.Second))
	}
	return d, nil
}

// Close ends the server. It is killed, for it would wait for idle connections; nothing is being written.
func (d *dataset) Close() error { return d.s3.Kill() }

// fill generates the blocks of a bucket in a directory of its own, and uploads them.
func (d *dataset) fill(ctx context.Context, bucket, dir string) (err error) {
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if bucket == bucketSmall {
		return d.fillSmall(ctx, dir)
	}
	var dirs []string
	for i, p := range d.plan(bucket) {
		more, err := history.Write(ctx, filepath.Join(dir, strconv.Itoa(i)), p.replica, p.options)
		if err != nil {
			return err
		}
		dirs = append(dirs, more...)
	}
	b := history.Bucket{Endpoint: d.s3.Endpoint, Name: bucket, AccessKey: harness.AccessKey, SecretKey: harness.SecretKey}
	return b.Upload(ctx, dirs, func() {})
}

// job is one replica's part of a bucket.
type job struct {
	replica history.Replica
	options history.Options
}

// plan says what a bucket holds.
func (d *dataset) plan(bucket string) []job {
	o := history.Options{Start: start(), End: d.end(), Interval: interval, BlockRange: blockRange, Processes: d.processes}
	switch bucket {
	case bucketDays:
		o.BlockRange, o.End = daysRange, d.compactedEnd()
		return []job{{compacted(), o}}
	case bucketNoise:
		o.Processes = d.noise
	}
	var jobs []job
	for _, r := range replicas() {
		jobs = append(jobs, job{r, o})
	}
	return jobs
}

// processes are series with the labels of a Kubernetes cluster: 4 % of each of two metrics, 24 % and 43 % of
// the next two, and the rest spread over forty others.
func processes(n int) []history.Process {
	narrow := max(2, n*20/fullSeries) * nodes
	wide, wider := n*2400/fullSeries, n*4400/fullSeries
	out := history.Processes(n)
	for i := range out {
		out[i].Labels = labelsOf(i, []int{narrow, narrow, wide, wider})
	}
	return out
}

// labelsOf are the labels of the i-th series, where the first metrics have so many.
func labelsOf(i int, sizes []int) labels.Labels {
	metric := 0
	for metric < len(sizes) && i >= sizes[metric] {
		i -= sizes[metric]
		metric++
	}
	switch metric {
	case 0, 1:
		return labels.FromStrings(labels.MetricName, []string{metricNarrow, metricOther}[metric], "job", "node",
			"instance", fmt.Sprintf("10.0.0.%d:9100", i%nodes), "mode", fmt.Sprintf("m%d", i/nodes))
	case 2:
		return workload(metricWide, i, "code", []string{"200", "404", "500"}[i%3], "handler", fmt.Sprintf("/api/v1/h%d", i/3%40))
	case 3:
		return workload(metricWider, i, "le", fmt.Sprint(0.005*math.Pow(2, float64(i%10))), "handler", fmt.Sprintf("/api/v1/h%d", i/10%22))
	}
	return workload(fmt.Sprintf("process_metric_%d_total", i%40), i, "device", fmt.Sprintf("dev%d", i/40%5))
}

// workload are labels of a pod, which is another for each i.
func workload(metric string, i int, more ...string) labels.Labels {
	return labels.FromStrings(append([]string{
		labels.MetricName, metric,
		"namespace", fmt.Sprintf("team-%d", i%12),
		"pod", fmt.Sprintf("workload-%d-7d9f8b6c5-%05x", i%60, i*7919%1_048_573),
		"instance", fmt.Sprintf("10.%d.%d.%d:8080", i/250/250, i/250%250, i%250),
	}, more...)...)
}

// noise are the same series with values that do not compress.
func noise(n int) []history.Process {
	out := slices.Clone(processes(n))
	for i := range out {
		seed := out[i].Labels.Hash()
		out[i].At = func(t int64) float64 {
			bits := mix(seed ^ uint64(t))
			return math.Float64frombits(bits &^ (1 << 62)) // neither infinite nor NaN
		}
	}
	return out
}

// mix spreads every bit of x over all bits of the result.
func mix(x uint64) uint64 {
	x ^= x >> 31
	x *= 0x9fb21c651e98df25
	x ^= x >> 29
	x *= 0xd6e8feb86659fd93
	return x ^ x>>32
}
