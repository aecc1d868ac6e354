package sidecar

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"time"
)

// PrometheusOptions are the settings of Prometheus.
type PrometheusOptions struct {
	// ReadyTimeout is how long Prometheus may take to answer with external labels
	// after the start; then Run returns an error.
	ReadyTimeout time.Duration
	// Interval is the time between two looks at Prometheus, Timeout that of one look.
	Interval, Timeout time.Duration
}

// ShipperOptions are the settings of a Shipper.
type ShipperOptions struct {
	// Dir is Prometheus' data directory (--tsdb.path).
	Dir string
	// StateFile is the name, inside Dir, of the list of shipped blocks. Prometheus
	// may read it through --storage.tsdb.delay-compact-file.path.
	StateFile string
	// Compacted says which blocks are shipped besides those cut from the head.
	Compacted Compacted
	// Durations says whether Prometheus may merge blocks before they are shipped.
	Durations Durations
}

// Compacted is a choice about blocks that Prometheus itself has merged.
type Compacted int

// The choices.
const (
	// SkipCompacted leaves them: their sources were shipped.
	SkipCompacted Compacted = iota
	// ShipCompacted ships those with a source that was not.
	ShipCompacted
)

// Durations is a choice about Prometheus' block durations.
type Durations int

// The choices.
const (
	// EqualDurations wants --storage.tsdb.min-block-duration and max-block-duration
	// equal, unless Prometheus waits for the state file.
	EqualDurations Durations = iota
	// AnyDurations takes them as they are.
	AnyDurations
)

// StoreOptions are the settings of a Store.
type StoreOptions struct {
	// MinTime gives the oldest time to answer for in Unix milliseconds, asked for
	// with each request; nil means that there is none.
	MinTime func() int64
	// MaxSeries and MaxSamples bound one request; 0 means no limit.
	MaxSeries, MaxSamples int64
	// MaxHeld is how many bytes of series one request may hold back to put them in order.
	MaxHeld int64
}

// PrometheusDefaults returns Thanos' defaults.
func PrometheusDefaults() PrometheusOptions {
	return PrometheusOptions{ReadyTimeout: 10 * time.Minute, Interval: 30 * time.Second, Timeout: 30 * time.Second}
}

// ShipperDefaults returns the settings for the block directory of a Prometheus
// whose own compaction is off.
func ShipperDefaults() ShipperOptions {
	return ShipperOptions{Dir: "./data", StateFile: "thanos.shipper.json"}
}

// StoreDefaults returns settings without limits on what is asked for.
func StoreDefaults() StoreOptions { return StoreOptions{MaxHeld: 256 << 20} }

// Validate reports every setting that makes no sense.
func (o PrometheusOptions) Validate() error {
	var errs []error
	for flag, d := range map[string]time.Duration{
		"prometheus.ready_timeout": o.ReadyTimeout, "prometheus.get_config_interval": o.Interval, "prometheus.get_config_timeout": o.Timeout,
	} {
		if d <= 0 {
			errs = append(errs, fmt.Errorf("--%s=%s must be above 0", flag, d))
		}
	}
	return errors.Join(errs...)
}

// Validate reports every setting that makes no sense; it does not look at the disk.
func (o ShipperOptions) Validate() error {
	var errs []error
	if o.Dir == "" {
		errs = append(errs, errors.New("--tsdb.path is empty; give Prometheus' data directory"))
	}
	if o.StateFile == "" || filepath.Base(o.StateFile) != o.StateFile || o.StateFile == "." || o.StateFile == ".." {
		errs = append(errs, fmt.Errorf("--shipper.meta-file-name=%s must be the name of a file in --tsdb.path, without a directory", o.StateFile))
	}
	return errors.Join(errs...)
}

// Validate reports every setting that makes no sense.
func (o StoreOptions) Validate() error {
	if o.MaxSeries < 0 || o.MaxSamples < 0 || o.MaxHeld <= 0 {
		return fmt.Errorf("store limits: series %d and samples %d must not be negative, bytes %d must be above 0", o.MaxSeries, o.MaxSamples, o.MaxHeld)
	}
	return nil
}

// minTime is the oldest time to answer for.
func (o StoreOptions) minTime() int64 {
	if o.MinTime == nil {
		return math.MinInt64
	}
	return o.MinTime()
}
