package compact

import (
	"iter"

	"github.com/varve-io/varve/pkg/planner"
)

// batchSize is how many small jobs of one kind and stream are done together.
const batchSize = 64

// queue is a plan: the jobs of each kind in their order. What is asked of it after a job
// ended costs nothing for those that wait.
type queue struct {
	jobs   []planner.Job
	begun  []bool
	behind map[string][]int // by kind: numbers of jobs that were not looked at yet
	passed []int            // of those that may not be started before the next plan
}

func newQueue(jobs []planner.Job) queue {
	q := queue{jobs: jobs, begun: make([]bool, len(jobs)), behind: map[string][]int{}}
	for i, j := range jobs {
		kind := kindOf(j)
		q.behind[kind] = append(q.behind[kind], i)
	}
	return q
}

// peek gives the next job of a kind, or nil.
func (q *queue) peek(kind string) planner.Job {
	if len(q.behind[kind]) == 0 {
		return nil
	}
	return q.jobs[q.behind[kind][0]]
}

// pass leaves the next job of a kind to the next plan.
func (q *queue) pass(kind string) {
	q.passed = append(q.passed, q.behind[kind][0])
	q.behind[kind] = q.behind[kind][1:]
}

// take takes the next job of a kind to be started, and with it those behind it of the
// same stream if it is one to be done together with others, and as far as these are.
func (q *queue) take(kind string, together func(planner.Job) bool) []planner.Job {
	var out []planner.Job
	first, most := q.peek(kind), 1
	if together(first) {
		most = batchSize
	}
	for _, i := range q.behind[kind] {
		j := q.jobs[i]
		if len(out) == most || j.Stream() != first.Stream() || len(out) > 0 && !together(j) {
			break
		}
		q.begun[i] = true
		out = append(out, j)
	}
	q.behind[kind] = q.behind[kind][len(out):]
	return out
}

// left are all jobs that were not started, in the order of the plan.
func (q *queue) left() iter.Seq[planner.Job] {
	return func(yield func(planner.Job) bool) {
		for i, j := range q.jobs {
			if !q.begun[i] && !yield(j) {
				return
			}
		}
	}
}

// passedOver are the jobs that were left to the next plan.
func (q *queue) passedOver() iter.Seq[planner.Job] {
	return func(yield func(planner.Job) bool) {
		for _, i := range q.passed {
			if !yield(q.jobs[i]) {
				return
			}
		}
	}
}
