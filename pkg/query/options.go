package query

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/dedup"
)

// EndpointOptions are the settings of discovery.
type EndpointOptions struct {
	// Addresses are host:port, dns+host:port, dnsdualstack+host:port, dnssrv+name or dnssrvnoa+name.
	Addresses []string
	// Strict are host:port addresses that are missed for as long as they do not answer.
	Strict []string
	// DNSInterval is the time between two look-ups of a name.
	DNSInterval time.Duration
	// InfoTimeout is the deadline of an Info call and of the look-ups of a round.
	InfoTimeout time.Duration
	// UnhealthyTimeout is how long an endpoint that does not answer is missed.
	UnhealthyTimeout time.Duration
}

// FanoutOptions are the settings of the fan-out.
type FanoutOptions struct {
	// ResponseTimeout is how long a label call to an endpoint may take, and how long the
	// connections of Dialer bear silence in a stream; 0 means as long as the query may take.
	ResponseTimeout time.Duration
	// SelectorLabels are added to what we announce upward.
	SelectorLabels labels.Labels
}

// Options are the settings of evaluation.
type Options struct {
	// ReplicaLabels tell replicas apart; a query may name others.
	ReplicaLabels []string
	// Dedup says how replicas become one series.
	Dedup dedup.Options
	// Timeout ends a query; MaxConcurrent of them are evaluated at once, each
	// with MaxConcurrentSelect selectors being fetched at once.
	Timeout             time.Duration
	MaxConcurrent       int
	MaxConcurrentSelect int
	// MaxSamples is the most samples that a query may hold while it is evaluated.
	MaxSamples int
	// MaxBytes is the most bytes of series that a query may receive, and MaxTotalBytes those of all running queries.
	MaxBytes, MaxTotalBytes int64
	// LookbackDelta is how far back an instant selector looks.
	LookbackDelta time.Duration
	// DefaultEvaluationInterval is the step of a subquery that has none.
	DefaultEvaluationInterval time.Duration
	// AutoDownsampling allows data as coarse as a fifth of the step when a query does not say.
	AutoDownsampling bool
	// InstantMaxSourceResolution is what auto means for an instant query.
	InstantMaxSourceResolution time.Duration
	// ExperimentalFunctions switches PromQL's experimental functions on.
	ExperimentalFunctions bool
}

// DefaultEndpointOptions returns the defaults of discovery.
func DefaultEndpointOptions() EndpointOptions {
	return EndpointOptions{DNSInterval: 30 * time.Second, InfoTimeout: 5 * time.Second, UnhealthyTimeout: 5 * time.Minute}
}

// DefaultFanoutOptions returns the defaults of the fan-out.
func DefaultFanoutOptions() FanoutOptions {
	return FanoutOptions{ResponseTimeout: 30 * time.Second}
}

// SampleLimit is the most samples that a query may hold while it is evaluated:
// an eighth of the memory that the process may take, at 16 bytes a sample, and no more than 50 million.
func SampleLimit(memory int64) int { return int(min(memory/8/16, 50_000_000)) }

// Defaults returns the defaults of evaluation. The limits are those of a
// process that may take 2 GiB; derive them from the real limit where it is known.
func Defaults() Options {
	o := Options{
		Dedup:                     dedup.Defaults(),
		Timeout:                   2 * time.Minute,
		MaxConcurrent:             20,
		MaxConcurrentSelect:       4,
		LookbackDelta:             5 * time.Minute,
		DefaultEvaluationInterval: time.Minute,
		AutoDownsampling:          true,
	}
	o.MaxSamples = SampleLimit(2 << 30)
	o.MaxBytes, o.MaxTotalBytes = ByteLimits(2 << 30)
	return o
}

// ByteLimits derives the limits of one query and of all together from the memory
// that the process may take: a quarter and a half of it, because evaluation needs
// room beside the series it reads.
func ByteLimits(memory int64) (perQuery, total int64) {
	return memory / 4, memory / 2
}

// Validate reports every setting that cannot work.
func (o EndpointOptions) Validate() error {
	var errs []error
	for _, address := range o.Strict {
		if isLookup(address) {
			errs = append(errs, fmt.Errorf("--endpoint-strict=%s: a strict endpoint is a plain host:port", address))
		}
	}
	if o.DNSInterval <= 0 || o.InfoTimeout <= 0 || o.UnhealthyTimeout <= 0 {
		errs = append(errs, errors.New("--store.sd-dns-interval, --endpoint.info-timeout and --store.unhealthy-timeout must be above zero"))
	}
	return errors.Join(errs...)
}

// Validate reports every setting that cannot work.
func (o FanoutOptions) Validate() error {
	if o.ResponseTimeout < 0 {
		return errors.New("--store.response-timeout is negative; 0 means no limit but that of the query")
	}
	return nil
}

// Validate reports every setting that cannot work.
func (o Options) Validate() error {
	var errs []error
	for flag, ok := range map[string]bool{
		"query.timeout":                     o.Timeout > 0,
		"query.max-concurrent":              o.MaxConcurrent > 0,
		"query.max-concurrent-select":       o.MaxConcurrentSelect > 0,
		"query.max-samples":                 o.MaxSamples > 0,
		"query.max-bytes":                   o.MaxBytes > 0,
		"query.max-total-bytes":             o.MaxTotalBytes > 0,
		"query.lookback-delta":              o.LookbackDelta > 0,
		"query.default-evaluation-interval": o.DefaultEvaluationInterval > 0,
	} {
		if !ok {
			errs = append(errs, fmt.Errorf("--%s must be above zero", flag))
		}
	}
	return errors.Join(errs...)
}
