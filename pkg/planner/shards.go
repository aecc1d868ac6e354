package planner

import (
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/block"
)

// MaxSplit is into how many shards one job splits its series at most. What becomes too
// large again is split again.
const MaxSplit = 64

// Splits reports whether the job makes shards of its group's series.
func (j Compact) Splits() bool { return len(j.Into) > 0 && j.Into[0].Of > max(1, j.Group.Shard.Of) }

// Parts is into how many shards the job splits its group's series; 1 if it does not.
func (j Compact) Parts() uint64 {
	if !j.Splits() {
		return 1
	}
	return j.Into[0].Of / max(1, j.Group.Shard.Of)
}

// Splittable reports whether it could split them into twice as many.
func (j Compact) Splittable() bool {
	n := 2 * j.Parts()
	return n <= MaxSplit && n*max(1, j.Group.Shard.Of) <= block.MaxShards
}

// Labels are the external labels of the block that the job makes for a shard. A block
// that is split alone keeps those of its replica, with which its parts are merged.
func (j Compact) Labels(shard block.Shard, replicaLabels []string) labels.Labels {
	first := j.Sources[0]
	if len(j.Sources) == 1 {
		return block.WithShard(first.SeriesLabels(), shard)
	}
	return block.WithShard(first.StreamLabels(replicaLabels), shard)
}

// family are the groups of one stream and resolution, whatever their shards.
func (s *state) family(k block.GroupKey) []*group {
	k.Shard = block.Shard{}
	return s.families[k]
}

// finer are the groups of a group's shards.
func (s *state) finer(g *group) (out []*group) {
	for _, other := range s.family(g.key) {
		if other != g && g.key.Shard.Covers(other.key.Shard) {
			out = append(out, other)
		}
	}
	return out
}

// times is how many shards as small as the other's make one as large as the group's.
func (g *group) times(finer *group) uint64 { return finer.key.Shard.Of / max(1, g.key.Shard.Of) }

// unsplit are the blocks with series of a shard's group that are still to be split. What
// overlaps with them waits for their parts: of two that were merged before, without replica labels,
// nobody could tell that they are of one time.
func (s *state) unsplit(g *group) (blocks []*block.Entry) {
	for _, other := range s.family(g.key) {
		if other == g || !other.key.Shard.Covers(g.key.Shard) {
			continue
		}
		for _, e := range other.blocks {
			if e.NoCompact == nil && s.readFor(e.Meta, g.key.Shard) {
				blocks = append(blocks, e)
			}
		}
	}
	return blocks
}

// strays gives the jobs that split what came for a time whose series are in shards
// already, and all that overlaps with it, each block by itself so that its replica meets that
// of the shards. It returns the blocks that are left.
func (s *state) strays(g *group, blocks []*block.Entry) (jobs []Job, rest []*block.Entry) {
	finer := s.finer(g)
	if len(finer) == 0 {
		return nil, blocks
	}
	for _, run := range overlaps(blocks) {
		n := uint64(0)
		for _, f := range finer {
			met := slices.ContainsFunc(run, func(e *block.Entry) bool { return s.meets(e, f) })
			if met && (n == 0 || g.times(f) < n) {
				n = g.times(f)
			}
		}
		for _, e := range run {
			switch {
			case n == 0:
				rest = append(rest, e)
			case s.settled([]*block.Entry{e}):
				jobs = append(jobs, s.splitOne(g, e, n))
			default:
				s.hold([]*block.Entry{e})
			}
		}
	}
	return jobs, rest
}

// meets reports whether a block that can be merged is in the time of another, in a
// shard of which that one's series are still to be read.
func (s *state) meets(e *block.Entry, finer *group) bool {
	return s.readFor(e.Meta, finer.key.Shard) && slices.ContainsFunc(finer.blocks, func(f *block.Entry) bool {
		return f.NoCompact == nil && f.Meta.TimeRange().Overlaps(e.Meta.TimeRange())
	})
}

// readFor reports whether a block is read for series of a shard.
func (s *state) readFor(m *block.Meta, shard block.Shard) bool {
	return slices.ContainsFunc(s.shardsOf(m), shard.Overlaps)
}

// shardsOf are the shards of a block that no other block holds.
func (s *state) shardsOf(m *block.Meta) []block.Shard {
	if rest := s.remaining[m.ULID]; rest != nil {
		return rest
	}
	return []block.Shard{m.Shard()}
}

// leftover gives the job that goes on with the split of a block of which some shards are there.
func (s *state) leftover(g *group, e *block.Entry) (Job, bool) {
	if s.remaining[e.Meta.ULID] == nil {
		return nil, false
	}
	n := s.alongside(g, e.Meta.TimeRange())
	if n == 1 {
		return nil, false
	}
	return s.splitOne(g, e, n), true
}

func (s *state) splitOne(g *group, e *block.Entry, n uint64) Job {
	s.taken[e.Meta.ULID] = true
	return Compact{
		Group: g.key, Sources: []*block.Meta{e.Meta}, Range: e.Meta.TimeRange(), Into: s.lacking(g, []*block.Entry{e}, n),
		Reason: fmt.Sprintf("split in %d, as other blocks of its time are", n),
	}
}

// alongside is in how many shards others of a group's series in a time are at least; one if they are not split.
func (s *state) alongside(g *group, r block.TimeRange) uint64 {
	n := uint64(0)
	for _, f := range s.finer(g) {
		if anyOverlaps(f.blocks, r) && (n == 0 || g.times(f) < n) {
			n = g.times(f)
		}
	}
	return max(1, n)
}

// lacking are those of n shards which some of the blocks are still read for. In the
// others an earlier run has put all of their samples.
func (s *state) lacking(g *group, blocks []*block.Entry, n uint64) []block.Shard {
	return slices.DeleteFunc(g.key.Shard.Split(n), func(shard block.Shard) bool {
		return !slices.ContainsFunc(blocks, func(e *block.Entry) bool {
			return s.readFor(e.Meta, shard)
		})
	})
}

// split says into how many shards a merge has to split its series, and why.
func (s *state) split(g *group, blocks []*block.Entry) (n uint64, why string) {
	index, all := estimate(blocks, s.policy.ReplicaLabels)
	n = 1
	for _, limit := range []struct {
		what       string
		want, most int64
	}{
		{"index", index, s.policy.MaxIndexBytes},
		{"block", all, s.policy.MaxBlockBytes},
	} {
		if times := shardsFor(limit.want, limit.most); times > n {
			n = min(times, block.MaxShards/max(1, g.key.Shard.Of))
			why = fmt.Sprintf("split in %d, as one %s would have %s and may have %s", n, limit.what, bytesText(limit.want), bytesText(limit.most))
		}
	}
	if others := s.alongside(g, span(blocks)); others > n {
		return others, fmt.Sprintf("split in %d, as other blocks of its time are", others)
	}
	return n, why
}

// shardsFor is the least power of two by which so many bytes are to be divided; no limit is zero.
func shardsFor(want, most int64) uint64 {
	n := uint64(1)
	for most > 0 && (want-1)/int64(n) >= most && n < MaxSplit {
		n *= 2
	}
	return n
}

// estimate says how large index and block get at most that are merged from blocks.
// Of replicas of one time the largest counts, of all others each: how many series they
// have in common is known when they were read, and a block that has got too large nevertheless is
// split when that turns out.
func estimate(blocks []*block.Entry, replicaLabels []string) (index, all int64) {
	for _, run := range overlaps(blocks) {
		replicas := map[string][2]int64{}
		for _, e := range run {
			name := e.Meta.Replica(replicaLabels)
			sum := replicas[name]
			sum[0] += e.Objects[block.IndexFile]
			sum[1] += dataBytes(e)
			replicas[name] = sum
		}
		var most [2]int64
		for name, sum := range replicas {
			if name != "" {
				most[0], most[1] = max(most[0], sum[0]), max(most[1], sum[1])
			}
		}
		index += most[0] + replicas[""][0]
		all += most[1] + replicas[""][1]
	}
	return index, all
}

// dataBytes is the size of a block's index and chunks.
func dataBytes(e *block.Entry) (sum int64) {
	for name, n := range e.Objects {
		if name == block.IndexFile || strings.HasPrefix(name, block.ChunksDir+"/") {
			sum += n
		}
	}
	return sum
}

// bytesText is for people.
func bytesText(n int64) string {
	const gib, mib = 1 << 30, 1 << 20
	if n >= gib {
		return fmt.Sprintf("%.1f GiB", float64(n)/gib)
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/mib)
}
