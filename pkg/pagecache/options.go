package pagecache

import "fmt"

// Options are the settings of a Cache.
type Options struct {
	// MaxBytes of memory are used for pages; 0 keeps nothing.
	MaxBytes int64
	// Concurrency is the number of requests to the bucket in flight.
	Concurrency int
}

// Defaults returns the settings for a store gateway of moderate size.
func Defaults() Options { return Options{MaxBytes: 256 << 20, Concurrency: 32} }

// Validate reports settings that make no sense.
func (o Options) Validate() error {
	if o.MaxBytes < 0 {
		return fmt.Errorf("cache of %d bytes: give 0 or more", o.MaxBytes)
	}
	if o.Concurrency < 1 {
		return fmt.Errorf("%d bucket requests in flight: give 1 or more", o.Concurrency)
	}
	return nil
}
