package compact

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/planner"
)

// Report is what an operator is told of the work on a bucket.
type Report struct {
	// RefreshedAt is when the bucket was looked at; it is absent before the first time.
	RefreshedAt *time.Time `json:"refreshedAt,omitempty"`
	// Holder is the name under which this process takes leases.
	Holder string `json:"holder,omitempty"`
	// Leases are of each stream, which any number of processes share, or of the bucket, where its
	// store has no conditional writes; it is absent before that is known.
	Leases  string    `json:"leases,omitempty"`
	Running []Running `json:"running"`
	// Waiting are jobs in the order in which they will be begun, the first of them if
	// there are very many: WaitingJobs is their number.
	Waiting     []Waiting `json:"waiting"`
	WaitingJobs int       `json:"waitingJobs"`
	Backlog     []Backlog `json:"backlog"`
	// Held are blocks that are in no job although something is still to become of
	// them, the first of them if there are very many: HeldBlocks is their number.
	Held        []Held        `json:"held"`
	HeldBlocks  int           `json:"heldBlocks"`
	Quarantined []Quarantined `json:"quarantined"`
	Reclaimable []Reclaimable `json:"reclaimable"`
	Neighbours  []Neighbour   `json:"neighbours"`
	// LastRun sums up what was done until nothing was left; it is absent before the first time.
	LastRun *Summary `json:"lastRun,omitempty"`
}

// What one lease is for.
const (
	leasesOfStreams = "stream"
	leaseOfBucket   = "bucket"
)

// Running is a job at work in this process.
type Running struct {
	Kind      string      `json:"kind"`
	Stream    string      `json:"stream"`
	Job       string      `json:"job"`
	Blocks    []ulid.ULID `json:"blocks"`
	StartedAt time.Time   `json:"startedAt"`
	// Bytes are those of the blocks that the job works on, Progress which part of them is read.
	Bytes        int64   `json:"bytes"`
	BytesRead    int64   `json:"bytesRead"`
	BytesWritten int64   `json:"bytesWritten"`
	Progress     float64 `json:"progress"`
}

// Waiting is a job that does not run.
type Waiting struct {
	Kind   string      `json:"kind"`
	Stream string      `json:"stream"`
	Job    string      `json:"job"`
	Blocks []ulid.ULID `json:"blocks"`
	Bytes  int64       `json:"bytes"`
	Since  time.Time   `json:"since"`
	// For is what it waits for: place, lease, pause, job or look. Detail says it in words.
	For    string     `json:"for"`
	Detail string     `json:"detail"`
	Until  *time.Time `json:"until,omitempty"`
	// Error is that of the last attempt, of the class transient, resource or corrupt.
	Error    string `json:"error,omitempty"`
	Class    string `json:"class,omitempty"`
	Attempts int    `json:"attempts,omitempty"`
}

// Held is a block that waits for something before it is in a job.
type Held struct {
	Block      ulid.ULID `json:"block"`
	Stream     string    `json:"stream"`
	Resolution string    `json:"resolution"`
	// For is what it waits for: fresh (its own age), replica, neighbour, range, coarser or mark.
	For    string     `json:"for"`
	Detail string     `json:"detail"`
	Until  *time.Time `json:"until,omitempty"`
}

// Quarantined is a block that is left out of work because of what is wrong with it,
// or because somebody said so.
type Quarantined struct {
	Block      ulid.ULID `json:"block"`
	Stream     string    `json:"stream,omitempty"`
	Resolution string    `json:"resolution,omitempty"`
	// Mark is the object that keeps the block out; it is empty for one whose meta.json cannot be used.
	Mark    string     `json:"mark,omitempty"`
	Reason  string     `json:"reason"`
	Meaning string     `json:"meaning"`
	Details string     `json:"details"`
	Since   *time.Time `json:"since,omitempty"`
	Remedy  string     `json:"remedy"`
}

// Reclaimable is what a block takes that is to be removed.
type Reclaimable struct {
	Block ulid.ULID `json:"block"`
	Bytes int64     `json:"bytes"`
	// At is when it is removed at the earliest.
	At  time.Time `json:"at"`
	Why string    `json:"why"`
}

// shown is how many jobs, and blocks that are held, a report lists at most.
const shown = 1000

// about gives those of a list that are about one of the blocks; without any it gives all.
func about[T any](ids []ulid.ULID, list []T, blocks func(T) []ulid.ULID) []T {
	if len(ids) == 0 {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), func(one T) bool {
		return !slices.ContainsFunc(blocks(one), func(id ulid.ULID) bool { return slices.Contains(ids, id) })
	})
}

// Report says what is known now. With ids it lists only what is about these blocks.
func (e *Executor) Report(ids ...ulid.ULID) Report {
	b := e.board
	b.mu.Lock()
	defer b.mu.Unlock()
	waiting := about(ids, b.waiting, func(w waitingJob) []ulid.ULID { return w.job.Blocks() })
	held := about(ids, b.sight.held, func(h planner.Held) []ulid.ULID { return []ulid.ULID{h.Block.ULID} })
	r := Report{
		Holder: e.holder, Leases: b.leases, Running: about(ids, b.runningNow(), func(r Running) []ulid.ULID { return r.Blocks }),
		WaitingJobs: len(waiting), Waiting: []Waiting{}, Backlog: b.backlog(), Held: []Held{}, HeldBlocks: len(held),
		Quarantined: []Quarantined{}, Reclaimable: []Reclaimable{}, Neighbours: slices.Clone(b.alien.seen),
	}
	if !b.last.EndedAt.IsZero() {
		last := b.last
		r.LastRun = &last
	}
	if r.Neighbours == nil {
		r.Neighbours = []Neighbour{}
	}
	for _, w := range waiting[:min(len(waiting), shown)] {
		r.Waiting = append(r.Waiting, b.described(w))
	}
	for _, h := range held[:min(len(held), shown)] {
		out := Held{Block: h.Block.ULID, Stream: h.Group.Stream, Resolution: h.Group.Resolution.String(), For: string(h.Why), Detail: h.Detail}
		if !h.Until.IsZero() {
			until := h.Until.UTC()
			out.Until = &until
		}
		r.Held = append(r.Held, out)
	}
	if set := b.sight.set; set != nil {
		at := b.sight.at // the report outlives the lock
		r.RefreshedAt = &at
		r.Quarantined = about(ids, e.quarantined(set), func(q Quarantined) []ulid.ULID { return []ulid.ULID{q.Block} })
		r.Reclaimable = about(ids, e.reclaimable(set), func(r Reclaimable) []ulid.ULID { return []ulid.ULID{r.Block} })
	}
	return r
}

// runningNow gives the running jobs, the oldest first.
func (b *board) runningNow() []Running {
	list := make([]Running, 0, len(b.running))
	for name, r := range b.running {
		list = append(list, Running{
			Kind: kindOf(r.job), Stream: r.job.Stream(), Job: name, Blocks: r.job.Blocks(), StartedAt: r.began.UTC(),
			Bytes: r.bytes, BytesRead: r.progress.read.Load(), BytesWritten: r.progress.written.Load(), Progress: r.done(),
		})
	}
	slices.SortFunc(list, func(a, b Running) int { return cmp.Or(a.StartedAt.Compare(b.StartedAt), strings.Compare(a.Job, b.Job)) })
	return list
}

func (b *board) described(w waitingJob) Waiting {
	name := w.job.String()
	out := Waiting{
		Kind: kindOf(w.job), Stream: w.job.Stream(), Job: name, Blocks: w.job.Blocks(), Bytes: b.sight.size(w.job),
		Since: b.first[name].UTC(), For: string(w.why),
	}
	switch w.why {
	case forPlace:
		out.Detail = "other jobs of its kind run"
		if heavy(w.job) {
			out.Detail += "; " + map[string]string{kindCompact: "--compact.concurrency", kindDownsample: "--downsample.concurrency"}[out.Kind] + " says how many may"
		}
	case forLease:
		out.Detail = "another compactor works on the stream"
	case forPause:
		out.Detail = "its last attempt ended with an error"
	case forJob:
		out.Detail = "another job has one of its blocks"
	case forLook:
		out.Detail = "the bucket is looked at again first"
	}
	if !w.until.IsZero() {
		until := w.until.UTC()
		out.Until = &until
	}
	if f := w.failure; f.err != nil {
		out.Error, out.Class, out.Attempts = f.err.Error(), string(f.class), f.times
	}
	return out
}

// quarantined gives the blocks that are left out of work, those that broke latest first.
func (e *Executor) quarantined(set *block.Set) []Quarantined {
	list := []Quarantined{}
	for _, entry := range set.Blocks {
		if entry.Deletion != nil {
			continue
		}
		for _, m := range []*block.Mark{entry.NoCompact, entry.NoDownsample} {
			if m == nil || m.Reason == reasonEmpty {
				continue
			}
			since := m.At().UTC()
			list = append(list, Quarantined{
				Block: entry.Meta.ULID, Stream: entry.Meta.Group(e.opts.Policy.ReplicaLabels).Stream, Resolution: entry.Meta.Resolution().String(),
				Mark: string(m.Kind), Reason: m.Reason, Meaning: meaning(m.Reason), Details: m.Details, Since: &since, Remedy: remedy(entry.Meta.ULID, m),
			})
		}
	}
	for _, u := range set.Unreadable {
		list = append(list, Quarantined{
			Block: u.ID, Reason: string(metaUnreadable), Meaning: meaning(string(metaUnreadable)), Details: u.Err.Error(),
			Remedy: "put the right " + block.MetaFile + " back, from the block's producer or a backup, or remove the block's objects; nothing else touches them",
		})
	}
	slices.SortStableFunc(list, func(a, b Quarantined) int { return b.since().Compare(a.since()) })
	return list
}

func (q Quarantined) since() time.Time {
	if q.Since == nil {
		return time.Time{}
	}
	return *q.Since
}

// Reasons of marks that stand for no damage.
const (
	reasonManual = "manual"
	reasonEmpty  = "empty"
)

// meaning says what a mark's reason means, whoever set it.
func meaning(r string) string {
	if text, ok := reasons()[reason(r)]; ok {
		return text
	}
	switch r {
	case reasonManual:
		return "somebody set the mark"
	case "block-index-out-of-order-chunk":
		return "Thanos found chunks out of order, which Varve merges"
	case "downsample-vertical-compaction":
		return "Thanos does not merge overlapping downsampled blocks, which Varve does"
	}
	return "another program set the mark"
}

// remedy says what an operator can do about a mark.
func remedy(id ulid.ULID, m *block.Mark) string {
	unmark := fmt.Sprintf("bucket unmark --id=%s --marker=%s", id, m.Kind)
	r := reason(m.Reason)
	switch {
	case r == tooLarge:
		return "none is needed: readers use the block as it is. Split the stream by another external label, or take the mark away to try again: " + unmark
	case reasons()[r] != "":
		return fmt.Sprintf("bucket repair --id=%s makes a new block of what can be read, and --deduplication.replica-label fills the rest from the other replica; if the objects were put right, %s", id, unmark)
	}
	return "if the reason is gone: " + unmark
}

// reclaimable gives what is to be removed, the first to go first.
func (e *Executor) reclaimable(set *block.Set) []Reclaimable {
	p := e.opts.Policy
	list := []Reclaimable{}
	add := func(id ulid.ULID, objects map[string]int64, at time.Time, why string) {
		list = append(list, Reclaimable{id, block.Size(objects), at.UTC(), why})
	}
	for _, b := range set.Blocks {
		if b.Deletion != nil {
			add(b.Meta.ULID, b.Objects, b.Deletion.At().Add(p.DeleteDelay), "marked for deletion: "+b.Deletion.Details)
		}
	}
	for _, u := range set.Partial {
		switch {
		case u.Deletion != nil:
			add(u.ID, u.Objects, u.Deletion.At().Add(p.DeleteDelay), "its deletion was begun: "+u.Deletion.Details)
		default:
			newest := u.LastModified
			if newest.IsZero() {
				newest = ulid.Time(u.ID.Time())
			}
			add(u.ID, u.Objects, newest.Add(p.PartialAge), "an upload that was begun and not completed")
		}
	}
	slices.SortStableFunc(list, func(a, b Reclaimable) int { return a.At.Compare(b.At) })
	return list
}
