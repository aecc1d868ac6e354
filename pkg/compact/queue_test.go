package compact

import (
	"slices"
	"testing"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/planner"
)

func TestAQueueGivesSmallJobsOfAStreamTogether(t *testing.T) {
	var jobs []planner.Job
	of := func(stream string, n int) {
		for range n {
			jobs = append(jobs, planner.Delete{Group: block.GroupKey{Stream: stream}, ID: ulid.ULID{byte(len(jobs))}})
		}
	}
	of("a", 2)
	jobs = append(jobs, planner.Downsample{Group: block.GroupKey{Stream: "a"}, Source: &block.Meta{}})
	of("a", 1)
	of("b", batchSize+3)
	q := newQueue(jobs)
	all := func(planner.Job) bool { return true }

	if got := q.take(kindDelete, all); !slices.Equal(got, []planner.Job{jobs[0], jobs[1], jobs[3]}) {
		t.Errorf("got %v, want the deletions of stream a", got)
	}
	if got := len(q.take(kindDelete, all)); got != batchSize {
		t.Errorf("of the next stream: got %d, want %d at once", got, batchSize)
	}
	if got := q.take(kindDelete, func(planner.Job) bool { return false }); len(got) != 1 {
		t.Errorf("of what is to be done alone: got %d at once", len(got))
	}
	q.pass(kindDelete)
	last := func(j planner.Job) bool { return j == jobs[len(jobs)-1] }
	if got := q.take(kindDelete, last); len(got) != 1 || got[0] != jobs[len(jobs)-1] || q.peek(kindDelete) != nil {
		t.Errorf("in the end: got %v and then %v, want the last one and nothing", got, q.peek(kindDelete))
	}
	if got := slices.Collect(q.passedOver()); !slices.Equal(got, []planner.Job{jobs[len(jobs)-2]}) {
		t.Errorf("passed over: got %v, want the last but one", got)
	}
	if got := slices.Collect(q.left()); !slices.Equal(got, []planner.Job{jobs[2], jobs[len(jobs)-2]}) {
		t.Errorf("not begun: got %v, want the downsampling and what was passed over", got)
	}
}
