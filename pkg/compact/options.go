package compact

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/varve-io/varve/pkg/dedup"
	"github.com/varve-io/varve/pkg/planner"
)

// Options are the compactor's settings.
type Options struct {
	// Dir is for the files of running jobs; what is in it may be deleted while the
	// compactor is stopped.
	Dir string
	// Policy says what the bucket should become.
	Policy planner.Policy
	// Dedup says how replicas become one series.
	Dedup dedup.Options
	// NativeEncodings leaves XOR2 chunks and start timestamps in merged blocks as
	// they are. A Thanos that shares the bucket cannot read them.
	NativeEncodings bool
	// Concurrency is how many compactions run at a time, DownsampleConcurrency how
	// many blocks are downsampled at a time; neither waits for the other.
	// FetchConcurrency is for how many blocks one job fetches something at a time.
	Concurrency, DownsampleConcurrency, FetchConcurrency int
	// RefreshInterval is how often the bucket is looked at while jobs run.
	RefreshInterval time.Duration
	// LeaseDuration is how long the stream of a process that died is left to it.
	LeaseDuration time.Duration
}

// Defaults returns the settings of a compactor that merges and downsamples and keeps everything.
func Defaults() Options {
	return Options{
		Dir:                   "./data",
		Policy:                planner.Defaults(),
		Concurrency:           1,
		DownsampleConcurrency: 1,
		FetchConcurrency:      4,
		RefreshInterval:       5 * time.Minute,
		LeaseDuration:         time.Minute,
	}
}

// Validate says what is wrong with the settings.
func (o Options) Validate() error {
	var errs []error
	if o.Dir == "" {
		errs = append(errs, errors.New("--data-dir is empty; give a directory for the files of running jobs"))
	}
	if o.Concurrency < 1 {
		errs = append(errs, fmt.Errorf("--compact.concurrency=%d: at least one job has to run", o.Concurrency))
	}
	if o.DownsampleConcurrency < 1 {
		errs = append(errs, fmt.Errorf("--downsample.concurrency=%d: at least one job has to run", o.DownsampleConcurrency))
	}
	if o.LeaseDuration < time.Second {
		errs = append(errs, fmt.Errorf("--debug.lease-duration=%s: give at least a second, renewals take their time", o.LeaseDuration))
	}
	if o.RefreshInterval <= 0 {
		errs = append(errs, fmt.Errorf("--wait-interval=%s; give more than 0", o.RefreshInterval))
	}
	if o.FetchConcurrency < 1 {
		errs = append(errs, fmt.Errorf("--compact.blocks-fetch-concurrency=%d: at least one block has to be read", o.FetchConcurrency))
	}
	return errors.Join(append(errs, o.Policy.Validate())...)
}

// params is the text of all settings that change the bytes of a merged block.
func (o Options) params() string {
	text := fmt.Sprintf("replica=%s dedup=%v", strings.Join(o.Policy.ReplicaLabels, ","), o.Dedup)
	if o.NativeEncodings {
		text += " native"
	}
	return text
}
