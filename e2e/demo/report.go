package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/varve-io/varve/e2e/harness"
)

// explain prints what a visitor can do now.
func (d *demo) explain() {
	url := "http://" + d.query.HTTP
	now := time.Now().Unix()
	month := now - int64(d.days)*24*3600
	fmt.Fprintf(d.out, `
  Varve is up. Query:  %[1]s

  Grafana data source: type Prometheus, URL %[1]s, no authentication,
  HTTP method POST, Prometheus type Thanos, scrape interval %[2]s.

  Both replicas as one, now:
    curl -s '%[1]s/api/v1/query' --data-urlencode 'query=up'
  Requests per second over %[3]d days:
    curl -s '%[1]s/api/v1/query_range' --data-urlencode 'query=sum(rate(demo_requests_total[1h]))' -d 'start=%[4]d&end=%[5]d&step=3600'
  The same from downsampled blocks, once the compactor has made them:
    curl -s '%[1]s/api/v1/query_range' --data-urlencode 'query=sum(rate(demo_requests_total[3h]))' -d 'start=%[4]d&end=%[5]d&step=10800&max_source_resolution=1h'

  Logs are in %[6]s/logs. Ctrl-C ends everything.

`, url, liveInterval, d.days, month, now, d.dir)
}

// watch prints what becomes of the bucket until ctx ends.
func (d *demo) watch(ctx context.Context) error {
	ticker := time.NewTicker(5 * time.Second)
	defer ticker.Stop()
	metas := map[string]blockMeta{}
	last := ""
	for {
		status, err := d.status(ctx, metas)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			status = "look at the bucket: " + err.Error()
		}
		if status != last {
			d.say("%s", status)
			last = status
		}
		select {
		case <-ctx.Done():
			return nil
		case <-d.compact.Done():
			return fmt.Errorf("compact ended (%s); see %s/logs/compact.log", d.compact.State(), d.dir)
		case <-ticker.C:
		}
	}
}

// blockMeta is the part of meta.json that the report needs.
type blockMeta struct {
	MinTime int64 `json:"minTime"`
	MaxTime int64 `json:"maxTime"`
	Thanos  struct {
		Labels     map[string]string `json:"labels"`
		Downsample struct {
			Resolution int64 `json:"resolution"`
		} `json:"downsample"`
	} `json:"thanos"`
}

// status sums the bucket up in a line. metas remembers what was read before.
func (d *demo) status(ctx context.Context, metas map[string]blockMeta) (string, error) {
	keys, err := d.bucket.Keys(ctx)
	if err != nil {
		return "", err
	}
	var live []string
	marked := 0
	for _, key := range keys {
		id, file, _ := strings.Cut(key, "/")
		if file != "meta.json" {
			continue
		}
		if _, found := slices.BinarySearch(keys, id+"/deletion-mark.json"); found {
			marked++
			continue
		}
		live = append(live, id)
		if _, ok := metas[id]; ok {
			continue
		}
		data, err := d.bucket.Get(ctx, key)
		if err != nil {
			return "", err
		}
		var m blockMeta
		if err := json.Unmarshal(data, &m); err != nil {
			return "", fmt.Errorf("read %s: %w", key, err)
		}
		metas[id] = m
	}
	counts := map[string]int{}
	for _, id := range live {
		counts[kindOf(metas[id])]++
	}
	return fmt.Sprintf("bucket: %d blocks from single replicas, %d deduplicated, %d at 5m, %d at 1h; %d replaced and marked for deletion; %s",
		counts["replica"], counts["merged"], counts["5m"], counts["1h"], marked, d.samples(ctx)), nil
}

func kindOf(m blockMeta) string {
	switch {
	case m.Thanos.Downsample.Resolution == 300_000:
		return "5m"
	case m.Thanos.Downsample.Resolution == 3_600_000:
		return "1h"
	case m.Thanos.Labels["prometheus_replica"] != "":
		return "replica"
	}
	return "merged"
}

// samples asks query how many series of the demo it sees right now.
func (d *demo) samples(ctx context.Context) string {
	answer, err := d.query.API().Query(ctx, `count(demo_requests_total) + count(demo_temperature_celsius)`, time.Now())
	if err != nil {
		return "query: " + err.Error()
	}
	return fmt.Sprintf("query sees %s live series", only(answer))
}

// only is the value of an answer with a single sample.
func only(a *harness.Answer) string {
	if len(a.Series) != 1 || len(a.Series[0].Samples) != 1 {
		return "no"
	}
	return fmt.Sprint(a.Series[0].Samples[0].V)
}
