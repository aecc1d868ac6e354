package compact

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/bucket"
)

// maxSkew is how far the clock of a simulated machine is off at most.
const maxSkew = 10 * time.Minute

// simWorld is a bucket, what was put into it, and a reader who looks at it after
// each change that matters.
type simWorld struct {
	bkt    *bucket.Memory
	opts   Options
	series []string // of every stream
	begin  int64    // the first slot
	chance *rand.Rand
	later  sync.WaitGroup // requests that nobody waits for

	mu       sync.Mutex
	contents map[string]content
	calm     bool // nothing goes wrong any more
	blocks   map[ulid.ULID]*simBlock
	inputs   []*simBlock
	broken   map[ulid.ULID]reason // inputs that no job can read
	untimely map[string]bool      // streams with blocks that came late, or across others
	retired  map[ulid.ULID]int
	epochs   map[string]leaseState
	saw      map[string]int // what happened, how often
	wrong    []string
}

// bits are the slots that a series has, from the world's first on.
type bits [8]uint64

func (b *bits) set(i int64) { b[i/64] |= 1 << (i % 64) }

// spread sets the n slots on either side of every slot, too.
func (b bits) spread(n int) bits {
	for range n {
		out := b
		for i := range b {
			out[i] |= b[i]<<1 | b[i]>>1
			if i > 0 {
				out[i] |= b[i-1] >> 63
				out[i-1] |= b[i] << 63
			}
		}
		b = out
	}
	return b
}

func (b *bits) add(o bits) {
	for i := range b {
		b[i] |= o[i]
	}
}

// without gives what b has and o lacks.
func (b bits) without(o bits) bits {
	for i := range b {
		b[i] &^= o[i]
	}
	return b
}

// simBlock is a complete block as a reader sees it.
type simBlock struct {
	meta   *block.Meta
	stream string
	marked *block.Mark // for deletion
	aside  map[block.MarkKind]reason
	slots  []bits // by series

	content content // of inputs
}

// see counts what happens, so that a test can say what was put to it.
func (w *simWorld) see(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.saw[what]++
}

func (w *simWorld) rough() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.calm
}

func (w *simWorld) fault(format string, args ...any) {
	if len(w.wrong) < 5 {
		w.wrong = append(w.wrong, time.Now().UTC().Format("02 15:04:05.000 ")+fmt.Sprintf(format, args...))
	}
}

// write lets one write take effect and looks at what it did.
func (w *simWorld) write(ctx context.Context, name string, data []byte, effect func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	id, rel, ok := block.ParseName(name)
	had := w.blocks[id]
	if err := effect(); err != nil {
		return err
	}
	if !ok {
		w.leased(name, data)
		return nil
	}
	switch {
	case data == nil && rel == block.MetaFile:
		w.gone(id, had)
	case data == nil && had != nil && (rel == block.IndexFile || strings.HasPrefix(rel, block.ChunksDir)):
		w.fault("%s is deleted while its block is complete", name)
	case data == nil:
		return nil
	case rel == block.MetaFile:
		w.appeared(ctx, id, data)
	case rel == string(block.DeletionMark):
		w.markedBy(id, had, data)
	case rel == string(block.NoCompactMark) || rel == string(block.NoDownsampleMark):
		w.setAside(id, had, block.MarkKind(rel), data)
	default:
		return nil
	}
	w.look()
	return nil
}

func (w *simWorld) appeared(ctx context.Context, id ulid.ULID, data []byte) {
	m, err := block.ParseMeta(data)
	if err != nil {
		w.fault("%s: %v", id, err)
		return
	}
	c, ok := w.contentOf(ctx, id)
	if !ok {
		w.fault("%s is complete without its index", id)
		return
	}
	if w.blocks[id] == nil && m.Thanos.Source == block.SourceCompactor {
		delete(w.retired, id) // an output that was removed may be made again while its source is there
	}
	w.blocks[id] = w.newBlock(m, c)
}

func (w *simWorld) newBlock(m *block.Meta, c content) *simBlock {
	return &simBlock{meta: m, stream: w.streamOf(m), slots: w.slotsOf(c, m.Resolution()), aside: map[block.MarkKind]reason{}}
}

func (w *simWorld) streamOf(m *block.Meta) string { return m.Group(w.opts.Policy.ReplicaLabels).Stream }

// contentOf is what a block's index stands for.
func (w *simWorld) contentOf(ctx context.Context, id ulid.ULID) (content, bool) {
	hash, _, err := w.bkt.GetVersion(context.WithoutCancel(ctx), block.IndexName(id))
	return w.contents[string(hash)], err == nil
}

func (w *simWorld) gone(id ulid.ULID, had *simBlock) {
	delete(w.blocks, id)
	switch {
	case had == nil:
	case had.marked == nil:
		w.fault("%s is deleted without a mark", id)
	case time.Since(had.marked.At()) < w.opts.Policy.DeleteDelay-2*maxSkew:
		w.fault("%s is deleted %s after its mark, readers may still use it", id, time.Since(had.marked.At()))
	}
}

func (w *simWorld) markedBy(id ulid.ULID, had *simBlock, data []byte) {
	mark, err := block.ParseMark(block.DeletionMark, data)
	if err != nil {
		w.fault("%s: %v", id, err)
	}
	if w.retired[id]++; w.retired[id] > 1 {
		w.fault("%s is retired %d times", id, w.retired[id])
	}
	if had == nil {
		w.fault("%s is marked and not there", id)
		return
	}
	had.marked = mark
	if _, broken := w.broken[id]; broken {
		if r, kept := w.needed(had.meta, time.Now()); kept {
			w.fault("%s is broken, and marked for deletion while its samples are kept at %s", id, r)
		}
	}
	w.saw["marked "+had.meta.Resolution().String()]++
}

// setAside looks at a mark that keeps a block from being worked on.
func (w *simWorld) setAside(id ulid.ULID, had *simBlock, kind block.MarkKind, data []byte) {
	mark, err := block.ParseMark(kind, data)
	if err != nil {
		w.fault("%s: %v", id, err)
		return
	}
	if because, broken := w.broken[id]; !broken || mark.Reason != string(because) || mark.Details == "" {
		w.fault("%s is set aside for %q (%s), it is %q", id, mark.Reason, mark.Details, because)
	}
	if had != nil {
		had.aside[kind] = reason(mark.Reason)
	}
	w.saw[string(kind)]++
}

// leased looks at a lease that changed.
func (w *simWorld) leased(name string, data []byte) {
	var now leaseState
	if !strings.HasPrefix(name, leaseDir) || json.Unmarshal(data, &now) != nil {
		return
	}
	last := w.epochs[name]
	w.epochs[name] = now
	if now.Epoch > last.Epoch && last.Holder != "" && last.Holder != now.Holder && !last.Released {
		w.saw["lease taken over"]++
	}
}

func (w *simWorld) slotsOf(c content, r block.Resolution) []bits {
	out := make([]bits, len(w.series))
	for _, s := range c {
		i := slices.Index(w.series, s.Labels.Get("__name__"))
		found, err := points(s, r)
		if err != nil || i < 0 {
			w.fault("%s: %v", s.Labels, err)
			continue
		}
		for at := range found {
			out[i].set(at - w.begin)
			for j := int64(1); r == block.OneHour && j < perHour; j++ {
				out[i].set(at + j - w.begin)
			}
		}
	}
	return out
}

// look is a reader: it fails if something is missing that nobody let expire.
func (w *simWorld) look() {
	now := time.Now()
	visible := w.visible(now)
	for _, in := range w.inputs {
		need, ok := w.needed(in.meta, now)
		if !ok {
			continue
		}
		have := visible[in.stream]
		for i := range w.series {
			var there bits
			for r, slots := range have {
				if r <= need {
					there.add(slots[i])
				}
			}
			if missing := in.slots[i].without(there.spread(w.slack(in.stream))); missing != (bits{}) {
				w.fault("%s of block %s [%s, %s) cannot be read at %s: %x", w.series[i], in.meta.ULID,
					time.UnixMilli(in.meta.MinTime).UTC().Format("02T15:04"), time.UnixMilli(in.meta.MaxTime).UTC().Format("02T15:04"), need, missing)
				return
			}
		}
	}
}

// visible gives all that a reader sees by stream and resolution: what is
// superseded is hidden, and what was marked half the delete delay ago.
func (w *simWorld) visible(now time.Time) map[string]map[block.Resolution][]bits {
	var entries []*block.Entry
	for _, b := range w.blocks {
		if b.marked == nil || now.Sub(b.marked.At()) < w.opts.Policy.DeleteDelay/2 {
			entries = append(entries, &block.Entry{Meta: b.meta})
		}
	}
	hidden, left := block.Superseded(entries), block.Remaining(entries)
	out := map[string]map[block.Resolution][]bits{}
	for _, e := range entries {
		if _, ok := hidden[e.Meta.ULID]; ok {
			continue
		}
		stream, r := w.blocks[e.Meta.ULID].stream, e.Meta.Resolution()
		if out[stream] == nil {
			out[stream] = map[block.Resolution][]bits{}
		}
		if out[stream][r] == nil {
			out[stream][r] = make([]bits, len(w.series))
		}
		for i, b := range w.blocks[e.Meta.ULID].slots {
			holds := func(s block.Shard) bool { return s.Holds(labels.FromStrings(labels.MetricName, w.series[i])) }
			if shards := left[e.Meta.ULID]; shards == nil || slices.ContainsFunc(shards, holds) {
				out[stream][r][i].add(b)
			}
		}
	}
	return out
}

// needed is the coarsest resolution at which a block's samples must be readable; ok
// is false if all may be gone.
func (w *simWorld) needed(m *block.Meta, now time.Time) (r block.Resolution, ok bool) {
	p := w.opts.Policy
	for _, r := range []block.Resolution{block.Raw, block.FiveMin, block.OneHour} {
		keep := p.Retention[r]
		if keep == 0 || m.MaxTime > now.Add(maxSkew-keep).UnixMilli() {
			return r, true
		}
		if p.NoDownsampling {
			return 0, false
		}
	}
	return 0, false
}

// arrive puts an input block into the bucket, as a sidecar does.
func (w *simWorld) arrive(ctx context.Context, in *simBlock) {
	in.meta.Thanos.UploadTime = time.Now().UTC()
	data, err := in.meta.Encode()
	hash := in.content.hash()
	w.mu.Lock()
	w.contents[hash] = in.content
	w.mu.Unlock()
	put := func(name, text string) {
		err := w.write(ctx, name, []byte(text), func() error {
			return w.bkt.Upload(ctx, name, strings.NewReader(text))
		})
		if err != nil {
			panic(err)
		}
	}
	if err != nil {
		panic(err)
	}
	put(block.IndexName(in.meta.ULID), hash)
	put(block.SegmentName(in.meta.ULID, 1), hash)
	put(block.MetaName(in.meta.ULID), string(data))
	w.mu.Lock()
	w.inputs = append(w.inputs, in)
	w.mu.Unlock()
}

// live gives the blocks that are not marked, by group.
func (w *simWorld) live() map[block.GroupKey][]*simBlock {
	out := map[block.GroupKey][]*simBlock{}
	for _, id := range block.SortedIDs(slices.Collect(maps.Keys(w.blocks))) {
		if b := w.blocks[id]; b.marked == nil {
			key := block.GroupKey{Stream: b.stream, Resolution: b.meta.Resolution(), Shard: b.meta.Shard()}
			out[key] = append(out[key], b)
		}
	}
	return out
}
