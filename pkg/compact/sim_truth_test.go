package compact

import (
	"context"
	"errors"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/dedup"
	"github.com/varve-io/varve/pkg/merge"
	"github.com/varve-io/varve/pkg/series"
)

// What came of a stream is compared with all that was put into it and is not broken:
//
//   - Where deduplication gives the same in however many steps it is done, blocks hold, sample by
//     sample and window by window, what it makes of all inputs at once. That is so for chain, for
//     default if every replica's block was there when its time was merged, and for penalty if there is
//     one replica, too.
//   - Elsewhere every sample is one of an input's, and every window holds no more than the inputs' samples
//     in it. That no sample of an input is further away than deduplication allows is the reader's business.

// truth is what the inputs of a stream say, by the names of series.
type truth struct {
	points map[string]map[int64]point // after deduplication, by slot
	all    map[string]map[int64]bool  // the times of all samples of all replicas
	exact  bool                       // points are what blocks have to hold
}

// truthOf is about the inputs of a stream that are not broken.
func (w *simWorld) truthOf(stream string) truth {
	out := truth{points: map[string]map[int64]point{}, all: map[string]map[int64]bool{}}
	replicas := map[string]bool{}
	var sets []series.Set
	for _, in := range w.inputs {
		if _, broken := w.broken[in.meta.ULID]; broken || in.stream != stream {
			continue
		}
		replicas[in.meta.Replica(w.opts.Policy.ReplicaLabels)] = true
		sets = append(sets, in.content.set(in.meta, w.opts.Policy.ReplicaLabels))
		for _, s := range in.content {
			name := s.Labels.Get("__name__")
			if out.all[name] == nil {
				out.all[name] = map[int64]bool{}
			}
			found, err := points(s, block.Raw)
			if err != nil {
				w.fault("input %s: %v", in.meta.ULID, err)
			}
			for _, p := range found {
				out.all[name][p.at] = true
			}
		}
	}
	set := dedup.NewSet(merge.Sets(sets...), w.opts.Dedup)
	for set.Next() {
		var err error
		if out.points[set.At().Labels.Get("__name__")], err = points(*set.At(), block.Raw); err != nil {
			w.fault("all of %s: %v", stream, err)
		}
	}
	if err := set.Err(); err != nil {
		w.fault("all of %s: %v", stream, err)
	}
	switch w.opts.Dedup.Func {
	case dedup.Chain:
		out.exact = true
	case dedup.Default:
		out.exact = !w.untimely[stream]
	case dedup.Penalty:
		out.exact = !w.untimely[stream] && len(replicas) == 1
	}
	return out
}

// checkContent compares a block with all that was put in for its time.
func (w *simWorld) checkContent(ctx context.Context, key block.GroupKey, b *simBlock, all truth) {
	c, ok := w.contentOf(ctx, b.meta.ULID)
	if !ok {
		w.fault("%s has no index", b.meta.ULID)
		return
	}
	for _, name := range w.series {
		if !key.Shard.Holds(labels.FromStrings(labels.MetricName, name)) {
			continue
		}
		var got map[int64]point
		if i := slices.IndexFunc(c, func(s series.Series) bool { return s.Labels.Get("__name__") == name }); i >= 0 {
			var err error
			if got, err = points(c[i], key.Resolution); err != nil {
				w.fault("%s: %v", b.meta.ULID, err)
				return
			}
		}
		if !all.exact {
			w.checkOrigin(key, b, got, all.all[name])
			continue
		}
		for at := b.meta.MinTime / slot; at*slot < b.meta.MaxTime; at++ {
			want := all.points[name][at]
			if key.Resolution != block.Raw {
				if key.Resolution == block.OneHour && at%perHour != 0 {
					continue
				}
				want = windowAt(all.points[name], at, key.Resolution)
			}
			if got[at] != want && w.exact(key) {
				w.fault("%s: %s of %s has %v in slot %d, want %v", key, name, b.meta.ULID, got[at], at-w.begin, want)
				return
			}
		}
	}
}

// windowAt is what the raw samples of a window give.
func windowAt(raw map[int64]point, at int64, r block.Resolution) (out point) {
	n := int64(1)
	if r == block.OneHour {
		n = perHour
	}
	for i := at; i < at+n; i++ {
		p, ok := raw[i]
		if !ok {
			continue
		}
		if out.count == 0 {
			out.low, out.high = p.low, p.high
		}
		out.count++
		out.sum += p.sum
		out.low, out.high = min(out.low, p.low), max(out.high, p.high)
	}
	return out
}

// checkOrigin makes sure that a block holds nothing that nobody scraped.
func (w *simWorld) checkOrigin(key block.GroupKey, b *simBlock, got map[int64]point, times map[int64]bool) {
	most := map[block.Resolution]float64{block.Raw: 1, block.FiveMin: 1, block.OneHour: perHour}[key.Resolution]
	if w.opts.Dedup.Func == dedup.Penalty {
		most *= 3 // it may begin with a sample of every replica
	}
	for at, p := range got {
		if key.Resolution == block.Raw && !times[p.at] || p.count > most {
			w.fault("%s: %s has %v in slot %d, which nobody scraped", key, b.meta.ULID, p, at-w.begin)
			return
		}
	}
}

// exact reports whether a window must hold all samples that ever came for it. What
// came when its finer samples had expired is merged with it window by window, of
// which the fuller one counts; so are replicas whose samples expired before they were merged.
func (w *simWorld) exact(key block.GroupKey) bool {
	keep, late := w.opts.Policy.Retention, w.untimely[key.Stream]
	switch key.Resolution {
	case block.Raw:
		return true
	case block.FiveMin: // has one sample in a window
		return keep[block.Raw] == 0 || !late
	case block.OneHour:
		return keep[block.Raw] == 0 && (keep[block.FiveMin] == 0 || !late)
	}
	return false
}

// slack is how many slots away a reader may find a sample instead of the one of an
// input, by what deduplication promises: 1.5 scrape intervals. Penalty promises
// nothing, and waits for twice the longest hole; what is asked of it is enough to see that blocks are missing.
func (w *simWorld) slack(stream string) int {
	switch w.opts.Dedup.Func {
	case dedup.Chain:
		return 0
	case dedup.Default:
		return 1
	case dedup.Penalty:
		if w.untimely[stream] {
			return 2 * perHour
		}
	}
	return 4
}

func (w *simWorld) isBroken(id ulid.ULID) (reason, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	because, ok := w.broken[id]
	return because, ok
}

// onlyBroken reports whether an error blames no other blocks than broken ones, each
// for what is wrong with it.
func (w *simWorld) onlyBroken(err error) bool {
	if all, ok := errors.AsType[interface {
		error
		Unwrap() []error
	}](err); ok {
		return !slices.ContainsFunc(all.Unwrap(), func(err error) bool { return !w.onlyBroken(err) })
	}
	corrupt, ok := errors.AsType[*corruptError](err)
	return ok && w.broken[corrupt.id] == corrupt.reason
}
