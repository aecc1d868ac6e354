package planner

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/block"
)

// world is a bucket of metas alone, and does jobs as the executor does them.
type world struct {
	policy  Policy
	now     time.Time
	blocks  map[ulid.ULID]*block.Entry
	partial []block.Partial
	names   map[ulid.ULID]string
	written int

	chance *rand.Rand       // shuffles jobs and lets some crash; nil for neither
	check  func(job string) // called after every job that marks blocks, if set
}

func newWorld() *world {
	return &world{policy: Defaults(), now: time.Unix(0, 0), blocks: map[ulid.ULID]*block.Entry{}, names: map[ulid.ULID]string{}}
}

// id is the ULID of a name. It comes before those of outputs, whatever the writer's version makes of these.
func (w *world) id(name string) ulid.ULID {
	var id ulid.ULID
	sum := sha256.Sum256([]byte(name))
	copy(id[7:], sum[:])
	w.names[id] = name
	return id
}

func (w *world) set() *block.Set {
	s := &block.Set{Blocks: slices.Collect(maps.Values(w.blocks)), Partial: slices.Clone(w.partial)}
	block.Sort(s.Blocks)
	return s
}

// maxRounds bounds how often a bucket is planned until nothing is left to do.
const maxRounds = 100

// exhaust plans and does until the plan is empty, and gives the jobs that were done.
func (w *world) exhaust() ([]string, error) {
	done := []string{}
	for range maxRounds {
		jobs := Plan(w.set(), w.policy, w.now)
		if len(jobs) == 0 {
			return done, nil
		}
		if w.chance != nil {
			w.chance.Shuffle(len(jobs), func(i, j int) { jobs[i], jobs[j] = jobs[j], jobs[i] })
		}
		for _, j := range jobs {
			text := w.describe(j)
			if id, ok := w.do(j); ok {
				text += " -> " + w.names[id]
			}
			done = append(done, text)
			switch j.(type) {
			case Compact, Retire, Expire:
				if w.check != nil {
					w.check(text)
				}
			}
		}
	}
	return done, fmt.Errorf("after %d rounds there is still something to do; last: %v", maxRounds, done[max(0, len(done)-10):])
}

// crash says whether the process dies now.
func (w *world) crash() bool { return w.chance != nil && w.chance.IntN(8) == 0 }

// do does a job and gives the block that it wrote, if any. A crash comes after
// the new block is complete and before all its sources are marked.
func (w *world) do(j Job) (ulid.ULID, bool) {
	switch j := j.(type) {
	case Compact:
		return w.compact(j)
	case Downsample:
		m := downsampled(j.Source, j.Resolution)
		w.write(m, block.Size(w.blocks[j.Source.ULID].Objects)/3)
		return m.ULID, true
	case Retire:
		w.mark(j.ID)
	case Expire:
		w.mark(j.Block.ULID)
	case Delete:
		w.remove(j.ID)
	case Clean:
		w.remove(j.ID)
	}
	return ulid.ULID{}, false
}

// compact gives the first of the blocks that it wrote.
func (w *world) compact(j Compact) (first ulid.ULID, ok bool) {
	for _, shard := range j.Into {
		if first != (ulid.ULID{}) && w.crash() {
			return first, true
		}
		m, size := w.merge(j, shard)
		coarse := m
		for _, r := range j.Beside {
			if w.crash() {
				return first, first != ulid.ULID{}
			}
			coarse = downsampled(coarse, r)
			w.write(coarse, size/3)
		}
		w.write(m, size)
		if first == (ulid.ULID{}) {
			first = m.ULID
		}
	}
	for _, s := range j.Sources {
		if w.crash() {
			break
		}
		w.mark(s.ULID)
	}
	return first, true
}

func downsampled(source *block.Meta, to block.Resolution) *block.Meta {
	m := *source
	m.ULID = block.Output{Kind: "downsample", Sources: []ulid.ULID{source.ULID}, Resolution: to}.ID()
	m.Thanos.Downsample.Resolution = to
	m.Thanos.Source = block.SourceCompactor
	return &m
}

// merge gives the block of a shard, and how large its index is.
func (w *world) merge(j Compact, shard block.Shard) (m *block.Meta, size int64) {
	m = &block.Meta{MinTime: j.Range.MinTime, MaxTime: j.Range.MaxTime, Version: 1}
	var ids []ulid.ULID
	var entries []*block.Entry
	for _, s := range j.Sources {
		ids = append(ids, s.ULID)
		entries = append(entries, w.blocks[s.ULID])
		m.Compaction.Level = max(m.Compaction.Level, s.Compaction.Level+1)
		m.Compaction.Sources = append(m.Compaction.Sources, s.Compaction.Sources...)
	}
	m.Compaction.Sources = block.SortedIDs(m.Compaction.Sources)
	m.Thanos.Labels = j.Labels(shard, w.policy.ReplicaLabels).Map()
	m.Thanos.Downsample.Resolution = j.Group.Resolution
	m.Thanos.Source = block.SourceCompactor
	m.ULID = block.Output{Kind: "compact", Sources: ids, Resolution: j.Group.Resolution, Shard: shard.String()}.ID()
	_, size = estimate(entries, w.policy.ReplicaLabels)
	n := int64(max(1, shard.Of) / max(1, j.Group.Shard.Of))
	return m, (size + n - 1) / n
}

func (w *world) write(m *block.Meta, size int64) {
	w.written++
	w.names[m.ULID] = fmt.Sprintf("N%d", w.written)
	w.blocks[m.ULID] = &block.Entry{Meta: m, Objects: map[string]int64{block.IndexFile: size}}
}

// mark sets a deletion mark on a fresh entry: those of a set are immutable.
func (w *world) mark(id ulid.ULID) {
	e, ok := w.blocks[id]
	if !ok || e.Deletion != nil {
		return
	}
	marked := *e
	marked.Deletion = &block.Mark{Kind: block.DeletionMark, ID: id, Time: w.now.Unix()}
	w.blocks[id] = &marked
}

func (w *world) remove(id ulid.ULID) {
	delete(w.blocks, id)
	w.partial = slices.DeleteFunc(w.partial, func(p block.Partial) bool { return p.ID == id })
}
