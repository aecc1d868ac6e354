package compact

import (
	"errors"
	"fmt"
	"strings"

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
	// Concurrency is how many jobs run at a time, FetchConcurrency for how
	// many blocks one job fetches something at a time.
	Concurrency, FetchConcurrency int
}

// Defaults returns the settings of a compactor that merges and downsamples and keeps everything.
func Defaults() Options {
	return Options{
		Dir:              "./data",
		Policy:           planner.Defaults(),
		Concurrency:      1,
		FetchConcurrency: 4,
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
