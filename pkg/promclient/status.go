package promclient

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"go.yaml.in/yaml/v2"
)

// Ready asks whether Prometheus is ready; an error says why it is not.
func (c *Client) Ready(ctx context.Context) error {
	_, err := c.page(ctx, "-/ready")
	return err
}

// page fetches what is outside the API.
func (c *Client) page(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base.JoinPath(path).String(), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("ask Prometheus: %w", err)
	}
	return c.read(req)
}

// Version returns the version of Prometheus, such as 3.15.0.
func (c *Client) Version(ctx context.Context) (string, error) {
	var data struct {
		Version string `json:"version"`
	}
	_, err := c.get(ctx, "api/v1/status/buildinfo", nil, &data)
	return data.Version, err
}

// ExternalLabels returns global.external_labels of the running configuration.
func (c *Client) ExternalLabels(ctx context.Context) (labels.Labels, error) {
	var data struct {
		YAML string `json:"yaml"`
	}
	if _, err := c.get(ctx, "api/v1/status/config", nil, &data); err != nil {
		return labels.EmptyLabels(), err
	}
	var conf struct {
		Global struct {
			ExternalLabels map[string]string `yaml:"external_labels"`
		} `yaml:"global"`
	}
	if err := yaml.Unmarshal([]byte(data.YAML), &conf); err != nil {
		return labels.EmptyLabels(), fmt.Errorf("read global.external_labels of Prometheus' configuration: %w", err)
	}
	return labels.FromMap(conf.Global.ExternalLabels), nil
}

// Flags are the flags of Prometheus that matter beside it.
type Flags struct {
	// Dir is --storage.tsdb.path as given, maybe relative to Prometheus' own working directory.
	Dir string
	// MinBlock and MaxBlock are the range of durations that local blocks have.
	MinBlock, MaxBlock time.Duration
	// DelayCompactFile names the file that Prometheus reads to learn which blocks
	// are uploaded and may be compacted; empty when it does not ask.
	DelayCompactFile string
}

// Flags asks with which flags Prometheus runs.
func (c *Client) Flags(ctx context.Context) (Flags, error) {
	var data map[string]string
	if _, err := c.get(ctx, "api/v1/status/flags", nil, &data); err != nil {
		return Flags{}, err
	}
	f := Flags{Dir: data["storage.tsdb.path"], DelayCompactFile: data["storage.tsdb.delay-compact-file.path"]}
	for name, into := range map[string]*time.Duration{
		"storage.tsdb.min-block-duration": &f.MinBlock,
		"storage.tsdb.max-block-duration": &f.MaxBlock,
	} {
		if data[name] == "" {
			continue
		}
		d, err := model.ParseDuration(data[name])
		if err != nil {
			return Flags{}, fmt.Errorf("read Prometheus' flag --%s=%s: %w", name, data[name], err)
		}
		*into = time.Duration(d)
	}
	return f, nil
}

// lowestMetric is in seconds, rounded down.
const lowestMetric = "prometheus_tsdb_lowest_timestamp_seconds"

// LowestTime returns the time of the oldest sample in Unix milliseconds, rounded
// down to a second. ok is false while there is none.
func (c *Client) LowestTime(ctx context.Context) (ms int64, ok bool, err error) {
	text, err := c.page(ctx, "metrics")
	if err != nil {
		return 0, false, err
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		value, found := strings.CutPrefix(lines.Text(), lowestMetric+" ")
		if !found {
			continue
		}
		seconds, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, false, fmt.Errorf("read %s of Prometheus: %w", lowestMetric, err)
		}
		// An empty head says MaxInt64 milliseconds.
		if !(math.Abs(seconds) < math.MaxInt64/1000/2) {
			return 0, false, nil
		}
		return int64(seconds) * 1000, true, nil
	}
	if err := lines.Err(); err != nil {
		return 0, false, fmt.Errorf("read metrics of Prometheus: %w", err)
	}
	return 0, false, nil
}
