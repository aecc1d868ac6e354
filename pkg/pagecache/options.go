package pagecache

import (
	"errors"
	"fmt"
	"time"
)

// Options are the settings of a Cache.
type Options struct {
	// MemoryBytes are used for pages in memory, bookkeeping included; 0 keeps nothing.
	MemoryBytes int64
	// Dir holds pages on local disk, up to DiskBytes. It is created, and may be deleted
	// at any time. Without a directory, or with 0 bytes, pages are kept in memory only.
	Dir       string
	DiskBytes int64
	// Remote keeps pages where other processes find them too; it may be nil. What comes
	// in long requests is not kept there.
	Remote Remote
	// Concurrency is the most requests to the bucket in flight; a bucket that says
	// it is asked too much gets fewer.
	Concurrency int
	// PartBytes is the length from twice which on a range is read in parallel parts.
	PartBytes int64
	// Attempts is how often a range is asked for that could not be read whole.
	Attempts int
	// Patience is the least time for which a request may bring no byte.
	Patience time.Duration
}

// Defaults returns the settings for a store gateway of moderate size.
func Defaults() Options {
	return Options{
		MemoryBytes: 32 << 20,
		DiskBytes:   4 << 30,
		Concurrency: 32,
		PartBytes:   8 << 20,
		Attempts:    5,
		Patience:    10 * time.Second,
	}
}

// minPart is the least that is worth a request of its own.
const minPart = 1 << 20

// Validate reports every setting that makes no sense.
func (o Options) Validate() error {
	var errs []error
	if o.MemoryBytes < 0 {
		errs = append(errs, fmt.Errorf("%d bytes of memory for cached pages: give 0 or more", o.MemoryBytes))
	}
	if o.DiskBytes != 0 && o.DiskBytes < minDisk {
		errs = append(errs, fmt.Errorf("%d bytes of disk for cached pages: give 0 for none, or %d or more", o.DiskBytes, minDisk))
	}
	if o.Concurrency < 1 {
		errs = append(errs, fmt.Errorf("%d bucket requests in flight: give 1 or more", o.Concurrency))
	}
	if o.PartBytes < minPart {
		errs = append(errs, fmt.Errorf("parts of %d bytes: give %d or more", o.PartBytes, minPart))
	}
	if o.Attempts < 1 {
		errs = append(errs, fmt.Errorf("%d attempts to read a range: give 1 or more", o.Attempts))
	}
	if o.Patience <= 0 {
		errs = append(errs, fmt.Errorf("%s of patience with a request that brings nothing: give more than 0", o.Patience))
	}
	return errors.Join(errs...)
}
