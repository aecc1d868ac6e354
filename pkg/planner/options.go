package planner

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/varve-io/varve/pkg/block"
)

const day = 24 * time.Hour

// Policy says what a bucket should become.
type Policy struct {
	// Levels are the ranges that blocks are merged into, rising, each a multiple
	// of the one before. The first is the length of the blocks that arrive;
	// shorter ones, as a Prometheus for tests cuts them, are merged into it.
	Levels []time.Duration
	// ReplicaLabels are the external labels on which replicas of one stream
	// differ. Their blocks become one block without these labels.
	ReplicaLabels []string

	// Retention is how long samples of a resolution are kept; zero or absent means for ever.
	Retention map[block.Resolution]time.Duration
	// DeleteDelay is how long a block stays after its deletion mark came, so that
	// readers let go of it first; zero means not at all.
	DeleteDelay time.Duration
	// ConsistencyDelay is how long a new block is left alone.
	ConsistencyDelay time.Duration
	// PartialAge is the age of its newest object at which an unfinished upload is removed.
	PartialAge time.Duration

	// MaxIndexBytes and MaxBlockBytes are how large index and block are made at most:
	// what would get larger is split by series. A MaxBlockBytes of zero sets no limit.
	MaxIndexBytes, MaxBlockBytes int64

	// NoDownsampling stops the making of coarser blocks, and the waiting for them.
	NoDownsampling bool
	// DownsampleAfter is the length a block must have to be downsampled to a
	// resolution, unless its time is closed.
	DownsampleAfter map[block.Resolution]time.Duration
	// CloseAfter is how long after its end a range counts as complete although
	// nothing newer came: the stream stopped.
	CloseAfter time.Duration
}

// MaxIndex is the most bytes that an index can have: it points to series by numbers of 32 bits, in steps of 16 bytes.
const MaxIndex = 64 << 30

// Defaults are Thanos' own ranges and delays; everything is kept for ever.
func Defaults() Policy {
	return Policy{
		Levels:           []time.Duration{2 * time.Hour, 8 * time.Hour, 2 * day, 14 * day},
		Retention:        map[block.Resolution]time.Duration{},
		DeleteDelay:      2 * day,
		ConsistencyDelay: 30 * time.Minute,
		PartialAge:       2 * day,
		DownsampleAfter:  map[block.Resolution]time.Duration{block.FiveMin: 40 * time.Hour, block.OneHour: 10 * day},
		CloseAfter:       day,
		MaxIndexBytes:    MaxIndex,
	}
}

// Validate refuses what cannot be obeyed, and names the flags to change.
func (p Policy) Validate() error {
	var errs []error
	if len(p.Levels) == 0 {
		errs = append(errs, errors.New("there is no compaction range"))
	}
	for i, l := range p.Levels {
		if l < time.Millisecond || i > 0 && (l <= p.Levels[i-1] || l%p.Levels[i-1] != 0) {
			errs = append(errs, fmt.Errorf("compaction range %s must be a larger multiple of the one before it", l))
		}
	}
	for name, d := range map[string]time.Duration{
		"--delete-delay": p.DeleteDelay, "--consistency-delay": p.ConsistencyDelay,
		"the age of unfinished uploads": p.PartialAge, "the time after which a range is closed": p.CloseAfter,
	} {
		if d < 0 {
			errs = append(errs, fmt.Errorf("%s is %s, must not be negative", name, d))
		}
	}
	if p.MaxIndexBytes <= 0 || p.MaxIndexBytes > MaxIndex {
		errs = append(errs, fmt.Errorf("--compact.block-max-index-size is %s: give more than 0 and at most %s, which is all that an index can have", bytesText(p.MaxIndexBytes), bytesText(MaxIndex)))
	}
	if p.MaxBlockBytes < 0 {
		errs = append(errs, fmt.Errorf("--compact.block-max-size is %d, must not be negative; 0 sets no limit", p.MaxBlockBytes))
	}
	for _, r := range []block.Resolution{block.Raw, block.FiveMin, block.OneHour} {
		errs = append(errs, p.validRetention(r))
	}
	return errors.Join(errs...)
}

// validRetention refuses a retention that is over before the next resolution can be made.
func (p Policy) validRetention(r block.Resolution) error {
	keep := p.Retention[r]
	if keep < 0 {
		return fmt.Errorf("--retention.resolution-%s is %s, must not be negative; 0d keeps everything", r, keep)
	}
	next, ok := coarser(r)
	if !ok || keep == 0 || p.NoDownsampling || keep >= p.DownsampleAfter[next] {
		return nil
	}
	return fmt.Errorf("--retention.resolution-%s is %s, but %s samples are made from blocks of %s: raise it, set it to 0d (for ever), or set --downsampling.disable",
		r, keep, next, p.DownsampleAfter[next])
}

// coarser is the resolution that is made from r.
func coarser(r block.Resolution) (block.Resolution, bool) {
	switch r {
	case block.Raw:
		return block.FiveMin, true
	case block.FiveMin:
		return block.OneHour, true
	case block.OneHour:
	}
	return 0, false
}

// window gives the aligned range of the given length that holds t.
func window(t int64, length time.Duration) block.TimeRange {
	l := length.Milliseconds()
	start := t - ((t%l)+l)%l // also before 1970
	return block.TimeRange{MinTime: start, MaxTime: start + l}
}

// closed reports whether nothing more is expected for a range that ends at t.
func (p Policy) closed(t int64, now time.Time) bool {
	return t+p.CloseAfter.Milliseconds() <= now.UnixMilli()
}

// levelFor is the shortest range of at least that length, or the longest there is.
func (p Policy) levelFor(length time.Duration) time.Duration {
	if i := slices.IndexFunc(p.Levels, func(l time.Duration) bool { return l >= length }); i >= 0 {
		return p.Levels[i]
	}
	return p.Levels[len(p.Levels)-1]
}
