package compact

import (
	"errors"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/planner"
)

// waitingJob is a job of the plan that does not run now.
type waitingJob struct {
	job     planner.Job
	why     wait
	until   time.Time // zero if nobody knows
	failure failure   // of its last attempt, if that ended with an error
}

// wait is what a job waits for.
type wait string

// What jobs wait for.
const (
	forPlace wait = "place" // other jobs of its kind run
	forLease wait = "lease" // another compactor works on the stream
	forPause wait = "pause" // it ended with an error and is tried again later
	forJob   wait = "job"   // another job has one of its blocks
	forLook  wait = "look"  // the bucket is to be looked at again first
)

// publishInterval is how often it is said what waits, at most: there may be very many jobs.
const publishInterval = time.Second

// waiting says of every job that is not begun what it waits for.
func (s *schedule) waiting() []waitingJob {
	var list []waitingJob
	for j := range s.left() {
		f, _ := s.paused(j)
		list = append(list, waitingJob{job: j, why: s.why(j), until: s.possible(j), failure: f})
	}
	return list
}

func (s *schedule) why(j planner.Job) wait {
	running := func(id ulid.ULID) bool { return s.used[id] == inUse }
	_, paused := s.paused(j)
	switch {
	case paused:
		return forPause
	case s.elsewhere[s.leases.key(j.Stream())]:
		return forLease
	case slices.ContainsFunc(j.Blocks(), running):
		return forJob
	case s.free[kindOf(j)] == 0:
		return forPlace
	}
	return forLook
}

// sumUp leaves the summary of the run on the board.
func (s *schedule) sumUp() {
	sum := &s.summary
	sum.EndedAt = time.Now().UTC()
	for j := range s.left() {
		sum.Left++
		if s.elsewhere[s.leases.key(j.Stream())] {
			sum.Elsewhere++
		}
	}
	aside := map[ulid.ULID]bool{}
	for _, err := range s.errs {
		if e, ok := errors.AsType[*corruptError](err); ok {
			aside[e.id] = true
		}
	}
	sum.Quarantined = len(aside)
	s.board.finished(*sum, s.waiting())
}
