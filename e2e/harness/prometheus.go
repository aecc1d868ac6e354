package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// PrometheusOptions describe one Prometheus server.
type PrometheusOptions struct {
	// Name is the process name and that of its directory.
	Name string
	// Address is where it listens, host:port; empty means a free port.
	Address string
	// ExternalLabels identify it in what it ships.
	ExternalLabels map[string]string
	// Targets are the addresses to scrape, by job.
	Targets map[string][]string
	// Interval is the scrape interval; 0 means one second.
	Interval time.Duration
	// RuleFiles are absolute paths of rule files.
	RuleFiles []string
	// Args are added to the command line.
	Args []string
}

// Prometheus is a running Prometheus server that cuts a block every minute.
type Prometheus struct {
	*Process
	// Address is host:port, URL the same with its scheme.
	Address, URL string
	// Dir is the data directory, where blocks appear.
	Dir string
	API PromAPI
}

// Prometheus starts a Prometheus and waits until it is ready. Its local
// compaction is off, as a sidecar wants it. A second one of the same name
// opens the data of the first, which must have ended.
func (c *Cluster) Prometheus(ctx context.Context, o PrometheusOptions) (*Prometheus, error) {
	home, err := c.Dir(o.Name)
	if err != nil {
		return nil, err
	}
	binary, err := c.Tool("prometheus")
	if err != nil {
		return nil, err
	}
	if o.Address == "" {
		if o.Address, err = FreeAddress(); err != nil {
			return nil, err
		}
	}
	config := filepath.Join(home, "prometheus.yml")
	if err := writePrometheusConfig(config, o); err != nil {
		return nil, err
	}
	data := filepath.Join(home, "data")
	p, err := c.Start(Command{
		Name: o.Name,
		Path: binary,
		Args: append([]string{
			"--config.file=" + config,
			"--storage.tsdb.path=" + data,
			"--storage.tsdb.min-block-duration=1m",
			"--storage.tsdb.max-block-duration=1m",
			"--web.listen-address=" + o.Address,
			"--web.enable-lifecycle",
			"--log.level=warn",
		}, o.Args...),
	})
	if err != nil {
		return nil, err
	}
	url := "http://" + o.Address
	prom := &Prometheus{Process: p, Address: o.Address, URL: url, Dir: data, API: PromAPI{URL: url}}
	return prom, p.WaitReady(ctx, HTTPReady(url+"/-/ready"))
}

// writePrometheusConfig writes the configuration as JSON, which is YAML too.
func writePrometheusConfig(path string, o PrometheusOptions) error {
	type static struct {
		Targets []string `json:"targets"`
	}
	type job struct {
		Name string `json:"job_name"`
		// HonorLabels lets an exporter speak for instances that it invents.
		HonorLabels bool     `json:"honor_labels"`
		Configs     []static `json:"static_configs"`
	}
	interval := o.Interval
	if interval == 0 {
		interval = time.Second
	}
	jobs := []job{}
	for _, name := range slices.Sorted(maps.Keys(o.Targets)) {
		jobs = append(jobs, job{Name: name, HonorLabels: true, Configs: []static{{Targets: o.Targets[name]}}})
	}
	config, err := json.MarshalIndent(map[string]any{
		"global": map[string]any{
			"scrape_interval":     interval.String(),
			"scrape_timeout":      interval.String(),
			"evaluation_interval": interval.String(),
			"external_labels":     o.ExternalLabels,
		},
		"rule_files":     o.RuleFiles,
		"scrape_configs": jobs,
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode configuration of %s: %w", o.Name, err)
	}
	return os.WriteFile(path, config, 0o644)
}
