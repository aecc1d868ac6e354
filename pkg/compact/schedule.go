package compact

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/planner"
)

// schedule is one Run: it starts what the last plan has, as far as leases and
// places allow, and plans again when that is exhausted or has become old. Kinds
// of jobs have places of their own, so that none waits for another.
//
// All of it belongs to the goroutine of Run; jobs hand in their outcome.
type schedule struct {
	*Executor
	summary Summary

	listed time.Time // when the last look at the bucket began
	queue            // of the last plan
	stale  bool      // something changed since
	// leaving are the names that outputs may not have.
	leaving map[ulid.ULID]bool

	free    map[string]int // places by kind
	running int
	// used are the blocks of jobs that run, also those that they may write, or that ended after
	// so many looks: what the plan says of these is old until the next look at the bucket.
	used     map[ulid.ULID]int
	held     map[string]*holding // by the leases' keys
	outcomes chan outcome

	elsewhere map[string]bool // leases that others have, as of this plan
	errs      map[string]error
	published time.Time // when it was last said what waits
	sweeping  chan int  // brings how many uploads were aborted; nil while nobody looks
}

// holding is a lease with the number of jobs that run under it.
type holding struct {
	*lease
	running int
}

type outcome struct {
	jobs  []planner.Job
	err   error
	moved *progress
}

// inUse stands for a number of looks that is never reached.
const inUse = math.MaxInt

// maxUnseen bounds how many leases may be taken before the bucket is looked at
// again on their behalf.
const maxUnseen = 8

func (e *Executor) newSchedule() *schedule {
	return &schedule{
		Executor: e, summary: Summary{StartedAt: time.Now().UTC()}, stale: true,
		free:      e.places(),
		used:      map[ulid.ULID]int{},
		held:      map[string]*holding{},
		outcomes:  make(chan outcome),
		elsewhere: map[string]bool{},
		errs:      map[string]error{},
	}
}

// places says how many jobs of each kind may run at a time.
func (e *Executor) places() map[string]int {
	const small = 4 // a few requests each
	return map[string]int{
		kindCompact: e.opts.Concurrency, kindDownsample: e.opts.DownsampleConcurrency,
		kindRetire: small, kindExpire: small, kindDelete: small, kindClean: small,
	}
}

// run works until nothing is left that this process could do now.
func (s *schedule) run(ctx context.Context) error {
	defer s.sumUp()
	defer s.drain(ctx)
	s.sweep(ctx)
	for ctx.Err() == nil {
		if s.start(ctx) == 0 && s.stale || time.Since(s.listed) >= s.opts.RefreshInterval {
			if err := s.plan(ctx); err != nil {
				return err
			}
			continue
		}
		if s.running == 0 && !s.worthWaiting() {
			return s.result()
		}
		s.wait(ctx)
	}
	return ctx.Err()
}

// result joins what was set aside and what was given up in this run.
func (s *schedule) result() error {
	left := map[string]bool{}
	for j := range s.left() {
		left[j.String()] = true
	}
	maps.DeleteFunc(s.errs, func(job string, err error) bool { return classify(err) != corrupt && !left[job] })
	return join(s.errs)
}

// plan looks at the bucket and at what there is to do.
func (s *schedule) plan(ctx context.Context) error {
	s.listed = time.Now()
	s.leases.looks++
	seen, err := s.look(ctx)
	if err != nil {
		return err
	}
	jobs := slices.Clone(seen.jobs)
	s.leaving, s.stale = seen.leaving, false
	maps.DeleteFunc(s.used, func(_ ulid.ULID, ended int) bool { return ended < s.leases.looks })
	clear(s.elsewhere)
	planned := map[string]bool{}
	for _, j := range jobs {
		planned[j.String()] = true
	}
	maps.DeleteFunc(s.failed, func(job string, _ failure) bool { return !planned[job] })
	// Every process begins with other streams.
	order := map[string]uint64{}
	for _, j := range jobs {
		stream := j.Stream()
		if _, known := order[stream]; known {
			continue
		}
		h := fnv.New64a()
		_, _ = h.Write([]byte(s.leases.holder + stream))
		order[stream] = h.Sum64()
	}
	slices.SortStableFunc(jobs, func(a, b planner.Job) int { return cmp.Compare(order[a.Stream()], order[b.Stream()]) })
	s.queue = newQueue(jobs)
	return nil
}

// start starts every job that may, gives leases back that serve none, and returns
// how many it started. It looks at each job of a plan once: what keeps one back, but for
// a place, lasts until the next plan.
func (s *schedule) start(ctx context.Context) (started int) {
	for _, kind := range kinds() {
		for ctx.Err() == nil && s.free[kind] > 0 {
			j := s.peek(kind)
			if j == nil {
				break
			}
			h := s.holdingFor(ctx, j)
			if h == nil {
				s.pass(kind)
				continue
			}
			jobs := s.take(kind, s.batchable)
			s.launch(h, jobs)
			started += len(jobs)
		}
	}
	if time.Since(s.published) >= publishInterval {
		s.board.waits(s.waiting())
		s.published = time.Now()
	}
	for key, h := range s.held {
		if h.running == 0 && !s.unseen(h) {
			h.release(ctx)
			delete(s.held, key)
		}
	}
	return started
}

// holdingFor gives the lease under which a job may be started, or nil if it may not before the next plan.
func (s *schedule) holdingFor(ctx context.Context, j planner.Job) *holding {
	if !s.ready(j) {
		return nil
	}
	h := s.lease(ctx, j)
	if h != nil && s.unseen(h) {
		s.stale = true
		return nil
	}
	return h
}

// batchable reports whether a job is done together with others of its kind and stream.
// What failed before is done alone, so that it fails alone.
func (s *schedule) batchable(j planner.Job) bool {
	switch j.(type) {
	case planner.Delete, planner.Expire, planner.Retire:
		_, failed := s.failure(j)
		return !failed && s.ready(j)
	case planner.Compact, planner.Downsample, planner.Clean:
	}
	return false
}

// unseen reports whether what another process did before is not in the plan.
func (s *schedule) unseen(h *holding) bool { return h.since >= s.leases.looks }

// ready reports whether nothing but a lease and a place is missing for a job.
func (s *schedule) ready(j planner.Job) bool {
	if s.elsewhere[s.leases.key(j.Stream())] {
		return false
	}
	if _, paused := s.paused(j); paused {
		return false
	}
	return !slices.ContainsFunc(s.touches(j), func(id ulid.ULID) bool {
		_, used := s.used[id]
		return used
	})
}

// failure gives that of the last attempt at a job, if it ended with an error. Naming a job
// costs more than all else that is asked of one that waits, and mostly none has failed.
func (s *schedule) failure(j planner.Job) (failure, bool) {
	if len(s.failed) == 0 {
		return failure{}, false
	}
	f, failed := s.failed[j.String()]
	return f, failed
}

// paused reports whether a job ended with an error and is not tried again yet, and with what.
func (s *schedule) paused(j planner.Job) (failure, bool) {
	f, failed := s.failure(j)
	return f, failed && time.Now().Before(f.notBefore)
}

// lease gives the lease that a job needs, or nil if it cannot be had now.
func (s *schedule) lease(ctx context.Context, j planner.Job) *holding {
	key := s.leases.key(j.Stream())
	if h := s.held[key]; h != nil {
		if h.ctx.Err() != nil {
			s.elsewhere[key] = true // until its jobs have ended
			return nil
		}
		if until := h.settled(); s.listed.Before(until) {
			s.elsewhere[key] = true
			s.leases.seen[key] = sighting{expires: until}
			return nil
		}
		return h
	}
	unseen := 0
	for _, h := range s.held {
		if s.unseen(h) {
			unseen++
		}
	}
	if unseen >= maxUnseen {
		return nil
	}
	l, err := s.leases.acquire(ctx, key)
	if err != nil {
		s.elsewhere[key] = true
		if !errors.Is(err, errHeld) && ctx.Err() == nil {
			s.fail(j, err)
		}
		return nil
	}
	h := &holding{lease: l}
	s.held[key] = h
	return h
}

// launch runs jobs of one kind on their own, at one place.
func (s *schedule) launch(h *holding, jobs []planner.Job) {
	h.running++
	s.running++
	s.free[kindOf(jobs[0])]--
	t := task{s.Executor, fence(s.bkt, h.lease), s.leaving, s.listed, &progress{}}
	for _, j := range jobs {
		for _, id := range s.touches(j) {
			s.used[id] = inUse
		}
		s.board.started(j, t.moved)
	}
	go func() { s.outcomes <- outcome{jobs, t.do(h.ctx, jobs), t.moved} }()
}

// wait waits for the end of a job, or until it is worth looking again.
func (s *schedule) wait(ctx context.Context) {
	timer := time.NewTimer(time.Until(s.wake()))
	defer timer.Stop()
	select {
	case o := <-s.outcomes:
		s.end(o)
	case <-timer.C:
		s.stale = true
	case <-ctx.Done():
	}
}

// end takes the outcome of jobs.
func (s *schedule) end(o outcome) {
	first := o.jobs[0]
	h := s.held[s.leases.key(first.Stream())]
	h.running--
	s.running--
	s.free[kindOf(first)]++
	s.stale = true
	s.summary.BytesRead += o.moved.read.Load()
	s.summary.BytesWritten += o.moved.written.Load()
	for _, j := range o.jobs {
		s.board.ended(j)
		for _, id := range s.touches(j) {
			s.used[id] = s.leases.looks
		}
		s.judge(j, o.err)
	}
}

// judge takes how a job ended.
func (s *schedule) judge(j planner.Job, err error) {
	switch {
	case err == nil:
		s.summary.Done++
		delete(s.failed, j.String())
		delete(s.errs, j.String())
	case classify(err) == lost:
		s.log.Info("job left to another compactor", "job", j, "err", err)
	case classify(err) == resource && s.shrink(j, err):
		s.summary.Failed++
		s.log.Info("job is made smaller, it took more than there is", "job", j)
	default:
		s.summary.Failed++
		s.fail(j, err)
	}
}

// fail remembers an error of a job.
func (s *schedule) fail(j planner.Job, err error) {
	name := j.String()
	s.failed[name] = s.failed[name].again(err)
	s.errs[name] = fmt.Errorf("%s: %w", name, err)
}

// wake is when something may be started that may not now.
func (s *schedule) wake() time.Time {
	at := s.listed.Add(s.opts.RefreshInterval)
	if t := s.next(); !t.IsZero() && t.Before(at) {
		at = t
	}
	return at
}

// next is when the first of the jobs may be tried again that were not started and wait
// for a time to come; it is zero if there are none. Only jobs that were passed over do.
func (s *schedule) next() (first time.Time) {
	now := time.Now()
	for j := range s.passedOver() {
		if t := s.possible(j); t.After(now) && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

// possible is when a job may be tried again that was not started; for one that
// waits for other jobs of this process, or for a process that is alive, it is a
// time in the past.
func (s *schedule) possible(j planner.Job) time.Time {
	if f, paused := s.paused(j); paused {
		return f.notBefore
	}
	if key := s.leases.key(j.Stream()); s.elsewhere[key] {
		if seen := s.leases.seen[key]; !seen.changed {
			return seen.expires
		}
	}
	return time.Time{}
}

// worthWaiting reports whether a job may be tried again so soon that Run stays
// for it.
func (s *schedule) worthWaiting() bool {
	t := s.next()
	return !t.IsZero() && time.Until(t) <= s.opts.LeaseDuration
}

// drain waits for the jobs that run and gives all leases back.
func (s *schedule) drain(ctx context.Context) {
	for s.running > 0 {
		s.end(<-s.outcomes)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	for _, h := range s.held {
		h.release(ctx)
	}
	if s.sweeping != nil {
		s.summary.UploadsAborted += <-s.sweeping
	}
}
