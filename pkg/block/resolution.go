package block

import "fmt"

// Resolution is the distance between two samples of a block in milliseconds;
// zero stands for samples as they were scraped.
type Resolution int64

// The resolutions that a bucket knows.
const (
	Raw     Resolution = 0
	FiveMin Resolution = 5 * 60 * 1000
	OneHour Resolution = 60 * 60 * 1000
)

// String gives the name that flags, logs and metrics use: raw, 5m or 1h.
func (r Resolution) String() string {
	switch r {
	case Raw:
		return "raw"
	case FiveMin:
		return "5m"
	case OneHour:
		return "1h"
	}
	return fmt.Sprintf("resolution(%dms)", int64(r))
}

// Known reports whether r is raw, 5m or 1h.
func (r Resolution) Known() bool {
	return r == Raw || r == FiveMin || r == OneHour
}
