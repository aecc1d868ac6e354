package compact

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/planner"
)

// board is what everybody may know of the work: Run writes on it, and HTTP
// requests and scrapes of metrics read it.
type board struct {
	mu sync.Mutex

	sight   sight
	running map[string]*runningJob // by the job's text
	waiting []waitingJob           // in the order in which they will be begun
	first   map[string]time.Time   // since when a job has been in every plan

	// What merging and downsampling moved so far, and for how long at least one of them ran.
	moved     int64
	busy      time.Duration
	busySince time.Time // zero while none runs

	last   Summary // of the last run
	alien  aliens
	leases string // what one lease is for, see Report
}

// sight is a look at the bucket and what is to be done there.
type sight struct {
	at      time.Time
	set     *block.Set
	jobs    []planner.Job
	held    []planner.Held
	leaving map[ulid.ULID]bool // names that outputs may not have
	sizes   map[ulid.ULID]int64
}

// size is how many bytes the blocks of a job have that it reads or removes.
func (s sight) size(j planner.Job) (sum int64) {
	for _, id := range j.Blocks() {
		sum += s.sizes[id]
	}
	return sum
}

func newBoard() *board {
	return &board{running: map[string]*runningJob{}, first: map[string]time.Time{}}
}

// runningJob is a job at work.
type runningJob struct {
	job      planner.Job
	began    time.Time
	bytes    int64 // of its sources
	progress *progress
}

// done is which part of its sources a job has read. It is not all before the job
// ends: what was written is read again.
func (r *runningJob) done() float64 {
	if r.bytes == 0 {
		return 0
	}
	return min(float64(r.progress.read.Load())/float64(r.bytes), 0.99)
}

// heavy reports whether a job reads samples.
func heavy(j planner.Job) bool { return kindOf(j) == kindCompact || kindOf(j) == kindDownsample }

// planned takes a new plan, and the neighbours that were seen; it gives those that nobody knew of.
func (b *board) planned(s sight, seen []Neighbour) []Neighbour {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sight = s
	first := make(map[string]time.Time, len(s.jobs))
	for _, j := range s.jobs {
		name := j.String()
		first[name] = s.at
		if t, ok := b.first[name]; ok {
			first[name] = t
		}
	}
	b.first = first
	return b.alien.see(seen)
}

// started takes a job that begins.
func (b *board) started(j planner.Job, p *progress) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if heavy(j) && !b.atWork() {
		b.busySince = time.Now()
	}
	b.running[j.String()] = &runningJob{job: j, began: time.Now(), bytes: b.sight.size(j), progress: p}
}

// atWork reports whether a job runs that reads samples.
func (b *board) atWork() bool {
	for _, r := range b.running {
		if heavy(r.job) {
			return true
		}
	}
	return false
}

// ended takes a job that came to its end.
func (b *board) ended(j planner.Job) {
	b.mu.Lock()
	defer b.mu.Unlock()
	name := j.String()
	r := b.running[name]
	delete(b.running, name)
	if !heavy(j) || r == nil {
		return
	}
	b.moved += min(r.progress.read.Load(), r.bytes)
	if !b.atWork() {
		b.busy += time.Since(b.busySince)
		b.busySince = time.Time{}
	}
}

// leased takes what one lease is for.
func (b *board) leased(of string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leases = of
}

// waits takes what waits now.
func (b *board) waits(jobs []waitingJob) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting = jobs
}

// finished takes the summary of a run, and what waits for the next.
func (b *board) finished(s Summary, left []waitingJob) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last, b.waiting = s, left
}

// rate is how many bytes of sources a second are merged and downsampled, or zero
// while nobody knows. The caller holds the lock.
func (b *board) rate() float64 {
	const enough = time.Second
	moved, busy := b.moved, b.busy
	for _, r := range b.running {
		if heavy(r.job) {
			moved += min(r.progress.read.Load(), r.bytes)
		}
	}
	if !b.busySince.IsZero() {
		busy += time.Since(b.busySince)
	}
	if busy < enough {
		return 0
	}
	return float64(moved) / busy.Seconds()
}

// Backlog is what is left to do for a stream: jobs of the last plan that are not
// done. What they lead to is not among them.
type Backlog struct {
	Stream string `json:"stream"`
	Jobs   int    `json:"jobs"`
	Bytes  int64  `json:"bytes"`
	// ETASeconds is when the last of them is done, at the rate so far; absent before there is one.
	ETASeconds *float64 `json:"etaSeconds,omitempty"`
}

// backlog gives the streams with work left, largest first. The caller holds the lock.
func (b *board) backlog() []Backlog {
	byStream := map[string]*Backlog{}
	rate := b.rate()
	var ahead float64 // bytes
	add := func(j planner.Job, left float64) {
		l := byStream[j.Stream()]
		if l == nil {
			l = &Backlog{Stream: j.Stream()}
			byStream[j.Stream()] = l
		}
		l.Jobs++
		if heavy(j) {
			l.Bytes += int64(left)
			ahead += left
		}
		if rate > 0 {
			eta := ahead / rate
			l.ETASeconds = &eta
		}
	}
	for _, r := range b.running {
		add(r.job, float64(r.bytes)*(1-r.done()))
	}
	for _, w := range b.waiting {
		add(w.job, float64(b.sight.size(w.job)))
	}
	list := make([]Backlog, 0, len(byStream))
	for _, l := range byStream {
		list = append(list, *l)
	}
	slices.SortFunc(list, func(a, b Backlog) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(b.Jobs, a.Jobs), strings.Compare(a.Stream, b.Stream))
	})
	return list
}
