package store

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v2"

	"github.com/varve-io/varve/pkg/pagecache"
)

// Options are the settings of a Gateway.
type Options struct {
	// Dir holds the page directories of indexes. It is created, and may be deleted
	// while no Gateway uses it.
	Dir string
	// Cache keeps chunk bytes.
	Cache pagecache.Options

	// MinTime and MaxTime bound the data that is answered; nil means no bound.
	MinTime, MaxTime func(now time.Time) time.Time
	// Selector says by external labels and __block_id which blocks to answer for.
	Selector []*relabel.Config
	// ConsistencyDelay is the age that a block must have to be answered for.
	ConsistencyDelay time.Duration
	// IgnoreDeletionMarksDelay is how long a block is answered for after it was
	// marked for deletion.
	IgnoreDeletionMarksDelay time.Duration

	// MaxConcurrency is the number of requests for series or labels that are answered at
	// once; others wait. A quarter of them are such as need little.
	MaxConcurrency int
	// RequestBytes is the memory that one request may hold.
	RequestBytes int64
	// MemoryBytes is the memory that all requests may hold together; others
	// wait. Zero means half of what the memory limit leaves beside the caches.
	MemoryBytes int64
	Limits      Limits
	// LogLongerThan is the time from which on a request is logged with what it took. Zero
	// means none is, but at the level debug, where all are.
	LogLongerThan time.Duration
}

// Limits end a request that asks for too much. Zero means no limit.
type Limits struct {
	// TouchedSeries are the series that match in all blocks together.
	TouchedSeries int64
	// ResponseSeries are the series of an answer.
	ResponseSeries int64
	// Samples are those in the chunks that are read.
	Samples int64
	// ResponseSamples are those in the chunks of an answer.
	ResponseSamples int64
	// DownloadedBytes are the bytes of indexes and chunks that are read, from a cache or the
	// bucket. Requests for labels have this limit, too.
	DownloadedBytes int64
}

// Defaults returns the settings of a gateway for all of a bucket.
func Defaults() Options {
	return Options{
		Dir:                      "./data",
		Cache:                    pagecache.Defaults(),
		IgnoreDeletionMarksDelay: 24 * time.Hour,
		MaxConcurrency:           20,
		RequestBytes:             64 << 20,
		LogLongerThan:            20 * time.Second,
	}
}

// minRequestBytes is the least memory with which a request makes progress.
const minRequestBytes = 1 << 20

// Validate reports every setting that makes no sense.
func (o Options) Validate() error {
	var errs []error
	if o.Dir == "" {
		errs = append(errs, errors.New("no data directory; give --data-dir"))
	}
	if o.ConsistencyDelay < 0 || o.IgnoreDeletionMarksDelay < 0 {
		errs = append(errs, errors.New("--consistency-delay and --ignore-deletion-marks-delay cannot be below zero"))
	}
	if o.MaxConcurrency < 1 {
		errs = append(errs, fmt.Errorf("--store.grpc.series-max-concurrency=%d; give 1 or more", o.MaxConcurrency))
	}
	if o.RequestBytes < minRequestBytes {
		errs = append(errs, fmt.Errorf("--store.request-bytes=%d; give %d or more", o.RequestBytes, minRequestBytes))
	}
	if o.MemoryBytes != 0 && o.MemoryBytes < firstShare(o.RequestBytes) {
		errs = append(errs, fmt.Errorf("%s=%d; give a quarter of %s or more, or 0", flagProcess, o.MemoryBytes, flagMemory))
	}
	for flag, limit := range map[string]int64{
		flagTouchedSeries: o.Limits.TouchedSeries, flagResponseSeries: o.Limits.ResponseSeries,
		flagSamples: o.Limits.Samples, flagResponseSamples: o.Limits.ResponseSamples, flagBytes: o.Limits.DownloadedBytes,
	} {
		if limit < 0 {
			errs = append(errs, fmt.Errorf("%s=%d; give 0 for no limit", flag, limit))
		}
	}
	return errors.Join(append(errs, o.Cache.Validate())...)
}

// ParseSelector reads the content of --selector.relabel-config: Prometheus'
// relabel rules with the actions keep, drop and hashmod.
func ParseSelector(content []byte) ([]*relabel.Config, error) {
	var rules []*relabel.Config
	if err := yaml.UnmarshalStrict(content, &rules); err != nil {
		return nil, fmt.Errorf("parse --selector.relabel-config: %w", err)
	}
	for i, r := range rules {
		if r == nil {
			return nil, fmt.Errorf("rule %d of --selector.relabel-config is empty", i+1)
		}
		switch r.Action {
		case relabel.Keep, relabel.Drop, relabel.HashMod:
		default:
			return nil, fmt.Errorf("rule %d of --selector.relabel-config: action %q; only keep, drop and hashmod select blocks", i+1, r.Action)
		}
		if err := r.Validate(model.UTF8Validation); err != nil {
			return nil, fmt.Errorf("rule %d of --selector.relabel-config: %w", i+1, err)
		}
	}
	return rules, nil
}
