package planner

import (
	"fmt"
	"time"

	"github.com/varve-io/varve/pkg/block"
)

// reasonManual is the reason of marks that a person set.
const reasonManual = "manual"

// expire gives the blocks that are past their retention and needed for nothing
// else, and takes them.
func (s *state) expire() []Job {
	var jobs []Job
	for _, e := range s.live {
		r := e.Meta.Resolution()
		if !s.past(e.Meta, r) || s.needed(e) {
			continue
		}
		s.taken[e.Meta.ULID] = true
		jobs = append(jobs, Expire{Group: e.Meta.Group(s.policy.ReplicaLabels), Block: e.Meta, Reason: fmt.Sprintf("%s samples are kept until %s, the block ends at %s",
			r, s.now.Add(-s.policy.Retention[r]).UTC().Format(time.RFC3339), time.UnixMilli(e.Meta.MaxTime).UTC().Format(time.RFC3339))})
	}
	return jobs
}

// needed reports whether some coarser resolution that is still kept lacks the
// block's samples. A person may waive it by a no-downsample mark; one that was
// set because downsampling met an error waives nothing.
func (s *state) needed(e *block.Entry) bool {
	if s.policy.NoDownsampling || e.NoDownsample != nil && e.NoDownsample.Reason == reasonManual {
		return false
	}
	for r, ok := coarser(e.Meta.Resolution()); ok; r, ok = coarser(r) {
		if !s.past(e.Meta, r) && !s.has(e.Meta, r) {
			return true
		}
	}
	return false
}
