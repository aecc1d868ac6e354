package planner

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/block"
)

// Plan gives the jobs that bring the bucket nearer to its policy, which must be
// valid. An empty plan means that nothing is left to do at this time. Equal
// arguments give equal plans; the set is not changed, and jobs point into it.
func Plan(set *block.Set, policy Policy, now time.Time) []Job {
	return look(set, policy, now).plan(set)
}

func (s *state) plan(set *block.Set) []Job {
	jobs := s.retire()
	expire := s.expire() // first, so that nothing else is done to what goes
	for _, g := range s.groups {
		jobs = append(jobs, s.compact(g)...)
	}
	jobs = append(jobs, s.downsample()...)
	jobs = append(jobs, expire...)
	jobs = append(jobs, s.remove(set)...)
	return jobs
}

// state is what a plan is made from.
type state struct {
	policy Policy
	now    time.Time
	// live are the blocks that readers see: neither marked for deletion nor superseded.
	live   []*block.Entry
	hidden []Retire
	groups []*group
	byKey  map[block.GroupKey]*group
	// families are the groups that differ in their shards alone, by the key of the whole.
	families map[block.GroupKey][]*group
	// remaining are the shards that live blocks are read for of which others hold the rest.
	remaining map[ulid.ULID][]block.Shard
	// made are the sources of all live blocks of a group.
	made map[block.GroupKey]map[ulid.ULID]bool
	// replicas are the replicas of each stream of which the bucket has a raw block, marked ones included.
	replicas map[string]map[string]bool
	// taken are the blocks that a job of this plan reads or removes.
	taken map[ulid.ULID]bool
	// held are the blocks whose merge waits for another block.
	held map[ulid.ULID]bool
}

// group holds live blocks of one stream and resolution, in a set's order.
type group struct {
	key    block.GroupKey
	blocks []*block.Entry
	newest int64 // the latest start of a block
}

func look(set *block.Set, policy Policy, now time.Time) *state {
	s := &state{
		policy: policy, now: now,
		byKey:    map[block.GroupKey]*group{},
		families: map[block.GroupKey][]*group{},
		made:     map[block.GroupKey]map[ulid.ULID]bool{},
		replicas: map[string]map[string]bool{},
		taken:    map[ulid.ULID]bool{},
		held:     map[ulid.ULID]bool{},
	}
	unmarked := block.Select(set.Blocks, func(e *block.Entry) bool { return e.Deletion == nil })
	superseded := block.Superseded(unmarked)
	s.remaining = block.Remaining(unmarked)
	for _, e := range unmarked {
		if by, ok := superseded[e.Meta.ULID]; ok {
			s.hidden = append(s.hidden, Retire{Group: e.Meta.Group(policy.ReplicaLabels), ID: e.Meta.ULID, By: by})
			continue
		}
		s.live = append(s.live, e)
	}
	s.group()
	for _, e := range set.Blocks {
		s.noteReplica(e.Meta)
	}
	return s
}

// group sorts live blocks into groups and notes what is in them.
func (s *state) group() {
	for _, e := range s.live {
		key := e.Meta.Group(s.policy.ReplicaLabels)
		g := s.byKey[key]
		if g == nil {
			g = &group{key: key, newest: math.MinInt64}
			s.byKey[key] = g
			s.groups = append(s.groups, g)
			whole := block.GroupKey{Stream: key.Stream, Resolution: key.Resolution}
			s.families[whole] = append(s.families[whole], g)
			s.made[key] = map[ulid.ULID]bool{}
		}
		g.blocks = append(g.blocks, e)
		g.newest = max(g.newest, e.Meta.MinTime)
		for _, id := range e.Meta.Origin() {
			s.made[key][id] = true
		}
	}
	slices.SortFunc(s.groups, func(a, b *group) int {
		return cmp.Or(strings.Compare(a.key.Stream, b.key.Stream), cmp.Compare(a.key.Resolution, b.key.Resolution),
			cmp.Compare(a.key.Shard.Of, b.key.Shard.Of), cmp.Compare(a.key.Shard.Index, b.key.Shard.Index))
	})
}

// hold keeps blocks for a merge that comes later.
func (s *state) hold(blocks []*block.Entry) {
	for _, e := range blocks {
		s.held[e.Meta.ULID] = true
	}
}

func (s *state) noteReplica(m *block.Meta) {
	r := m.Replica(s.policy.ReplicaLabels)
	if r == "" || m.Resolution() != block.Raw {
		return
	}
	stream := m.Group(s.policy.ReplicaLabels).Stream
	if s.replicas[stream] == nil {
		s.replicas[stream] = map[string]bool{}
	}
	s.replicas[stream][r] = true
}

// has reports whether blocks of resolution r hold all that m holds.
func (s *state) has(m *block.Meta, r block.Resolution) bool {
	key := m.Group(s.policy.ReplicaLabels)
	key.Resolution = r
	groups := s.family(key)
	return !slices.ContainsFunc(m.Origin(), func(id ulid.ULID) bool {
		var in []block.Shard
		for _, g := range groups {
			if s.made[g.key][id] {
				in = append(in, g.key.Shard)
			}
		}
		return !key.Shard.CoveredBy(in)
	})
}

func (s *state) retire() []Job {
	jobs := make([]Job, len(s.hidden))
	for i, r := range s.hidden {
		jobs[i] = r
	}
	return jobs
}

// remove gives the deletions: what was marked long enough ago, and unfinished
// uploads. A deletion that was broken off left a partial block with its mark.
func (s *state) remove(set *block.Set) []Job {
	var jobs []Job
	for _, e := range set.Blocks {
		if e.MarkedFor(s.policy.DeleteDelay, s.now) {
			jobs = append(jobs, Delete{e.Meta.Group(s.policy.ReplicaLabels), e.Meta.ULID})
		}
	}
	for _, p := range set.Partial {
		newest := p.LastModified
		if newest.IsZero() {
			newest = ulid.Time(p.ID.Time())
		}
		switch {
		case p.Deletion != nil:
			if !s.now.Before(p.Deletion.At().Add(s.policy.DeleteDelay)) {
				jobs = append(jobs, Delete{ID: p.ID})
			}
		case !s.now.Before(newest.Add(s.policy.PartialAge)):
			jobs = append(jobs, Clean{p.ID})
		}
	}
	return jobs
}
