package storeapi

import (
	"errors"
	"fmt"
	"time"
)

// Options are the settings of a Client.
type Options struct {
	// ResponseTimeout bounds the wait for each single frame of a series stream; 0 means no bound.
	ResponseTimeout time.Duration
	// MaxBytes bounds what one series stream may carry; 0 means no bound.
	MaxBytes int64
	// BatchSize is how many series a peer may pack into one frame. Peers of other
	// kinds, which do not bound the bytes of a frame, may pack foreignBatch at most.
	BatchSize int
	// ReadAhead is how many frames are received before they are asked for.
	ReadAhead int
}

// foreignBatch keeps a frame of long series at a few megabytes.
const foreignBatch = 64

// Defaults are the settings that suit most.
func Defaults() Options {
	return Options{BatchSize: 4096, ReadAhead: 4}
}

// Validate names every setting that cannot be.
func (o Options) Validate() error {
	var errs []error
	if o.ResponseTimeout < 0 {
		errs = append(errs, fmt.Errorf("response timeout %s is negative", o.ResponseTimeout))
	}
	if o.MaxBytes < 0 {
		errs = append(errs, errors.New("the byte limit is negative; 0 means no limit"))
	}
	if o.BatchSize < 1 || o.ReadAhead < 1 {
		errs = append(errs, errors.New("batch size and read-ahead must be 1 or more"))
	}
	return errors.Join(errs...)
}
