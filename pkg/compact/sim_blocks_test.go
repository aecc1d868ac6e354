package compact

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockio"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/dedup"
	"github.com/varve-io/varve/pkg/downsample"
	"github.com/varve-io/varve/pkg/merge"
	"github.com/varve-io/varve/pkg/series"
)

// Simulated blocks are made of real chunks by the real merge, deduplication and
// downsampling. Only their files are not: an object holds the hash of its content,
// under which the world keeps it, for what is simulated is everything around.

// slot is the distance of samples; one lies about the middle of each slot's first 5m window.
const (
	slot    = int64(10 * 60_000)
	inSlot  = int64(150_000)
	perHour = 6
)

// fileBytes is the size of an index, and of a chunk segment.
const fileBytes = 2 * sha256.Size

// slotOf gives the slot of a raw sample, or of a window by its last timestamp.
func slotOf(t int64) int64 { return t / slot }

// phase is how much later than the first a replica scrapes.
func (w *simWorld) phase(replica int) int64 {
	if w.opts.Dedup.Func == dedup.Chain {
		return 0
	}
	return int64(replica) * 20_000
}

// valueAt is what every replica of a series scrapes.
func valueAt(name string, at int64) float64 { return float64(at*int64(len(name)) + at%7) }

// content is what a simulated block holds.
type content []series.Series

// rawContent has one chunk for each series with the given slots.
func rawContent(names []string, slots map[string][]int64, phase int64) (content, error) {
	var c content
	for _, name := range names {
		if len(slots[name]) == 0 {
			continue
		}
		var s chunkcodec.Samples
		for _, at := range slots[name] {
			s.AppendFloat(0, at*slot+inSlot+phase, valueAt(name, at))
		}
		data, err := chunkcodec.Encode(chunkenc.EncXOR, &s, 0)
		if err != nil {
			return nil, err
		}
		c = append(c, series.Series{
			Labels: labels.FromStrings(labels.MetricName, name),
			Chunks: []series.Chunk{{MinTime: s.T[0], MaxTime: s.T[s.Len()-1], Encoding: chunkenc.EncXOR, Data: data}},
		})
	}
	return c, nil
}

// AddSeries makes content a downsample.Writer.
func (c *content) AddSeries(s *series.Series) error {
	kept := *s
	kept.Chunks = nil
	for _, chk := range s.Chunks {
		chk.Data = bytes.Clone(chk.Data)
		kept.Chunks = append(kept.Chunks, chk)
	}
	*c = append(*c, kept)
	return nil
}

func (c content) hash() string {
	h := sha256.New()
	for _, s := range c {
		fmt.Fprintln(h, s.Labels.Get(labels.MetricName))
		for _, chk := range s.Chunks {
			fmt.Fprintf(h, "%d %d %d %x\n", chk.MinTime, chk.MaxTime, chk.Encoding, chk.Data)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// set hands the content out as the series of one replica.
func (c content) set(m *block.Meta, replicaLabels []string) series.Set {
	_, replica := series.Final(labels.EmptyLabels(), m.Labels(), replicaLabels)
	out := make([]series.Series, len(c))
	for i, s := range c {
		s.Replica = replica
		out[i] = s
	}
	return series.NewSet(out, nil)
}

// point is a raw sample, or a window.
type point struct {
	at                    int64 // of raw samples
	count, sum, low, high float64
}

// points gives what a series holds by slot or, at 1h, by the first slot of the hour.
func points(s series.Series, r block.Resolution) (map[int64]point, error) {
	out := map[int64]point{}
	last := int64(-1)
	for _, c := range s.Chunks {
		found, err := pointsOf(c, r)
		if err != nil {
			return nil, err
		}
		for _, p := range found {
			if p.at <= last {
				return nil, fmt.Errorf("%s: sample at %d after one at %d", s.Labels, p.at, last)
			}
			last = p.at
			i := slotOf(p.at)
			if r != block.Raw {
				p.at = 0
			}
			if r == block.OneHour {
				i -= i % perHour
			}
			out[i] = p
		}
	}
	return out, nil
}

func pointsOf(c series.Chunk, r block.Resolution) (out []point, err error) {
	if r == block.Raw {
		var s chunkcodec.Samples
		err := chunkcodec.Decode(c.Encoding, c.Data, &s)
		for i, v := range s.V {
			out = append(out, point{s.T[i], 1, v, v, v})
		}
		return out, err
	}
	subs, err := aggrchunk.Decode(c.Data)
	if err != nil {
		return nil, err
	}
	var all [aggrchunk.Counter]chunkcodec.Samples // the counter's samples are not those of windows
	for kind := range all {
		if err := chunkcodec.Decode(subs[kind].Encoding, subs[kind].Data, &all[kind]); err != nil {
			return nil, err
		}
	}
	for i, at := range all[aggrchunk.Count].T {
		out = append(out, point{at, all[aggrchunk.Count].V[i], all[aggrchunk.Sum].V[i], all[aggrchunk.Min].V[i], all[aggrchunk.Max].V[i]})
	}
	return out, nil
}

// build makes a simulated block, in the order in which blockio writes one.
func (m *machine) build(ctx context.Context, o output, e *Executor) error {
	sources := make([]content, len(o.sources))
	for i, s := range o.sources {
		c, err := m.world.read(ctx, o.into, block.IndexName(s.ULID))
		if err != nil {
			return fmt.Errorf("read block %s: %w", s.ULID, err)
		}
		if because, ok := m.world.isBroken(s.ULID); ok {
			return inBlock(s.ULID, damagedf(because, "it is broken"))
		}
		sources[i] = c
	}
	var made content
	if o.meta.Resolution() != o.sources[0].Resolution() {
		if err := downsample.Run(ctx, sources[0].set(o.sources[0], nil), &made, o.meta.Resolution()); err != nil {
			return err
		}
	} else {
		sets := make([]series.Set, len(sources))
		for i, c := range sources {
			sets[i] = c.set(o.sources[i], e.opts.Policy.ReplicaLabels)
		}
		set := dedup.NewSet(merge.Sets(sets...), e.opts.Dedup)
		for set.Next() {
			if !o.meta.Shard().Holds(set.At().Labels) {
				continue
			}
			if err := made.AddSeries(set.At()); err != nil {
				return err
			}
		}
		if err := set.Err(); err != nil {
			return err
		}
	}
	if len(made) == 0 && o.meta.Shard().Whole() {
		return errEmpty
	}
	for finer, source := made, o.meta; len(o.beside) > 0; o.beside = o.beside[1:] {
		var coarse content
		meta := o.beside[0]
		if err := downsample.Run(ctx, finer.set(source, nil), &coarse, meta.Resolution()); err != nil || len(coarse) == 0 && meta.Shard().Whole() {
			break
		}
		if err := m.complete(ctx, o.into, meta, coarse); err != nil {
			break // it is left to a job of its own
		}
		finer, source = coarse, meta
	}
	return m.complete(ctx, o.into, o.meta, made)
}

// complete describes a block and writes it.
func (m *machine) complete(ctx context.Context, into objstore.Bucket, meta *block.Meta, made content) error {
	for _, s := range made {
		meta.Stats.NumSeries++
		for _, c := range s.Chunks {
			meta.Stats.NumChunks++
			meta.Stats.NumSamples += uint64(slotOf(c.MaxTime) - slotOf(c.MinTime) + 1)
		}
	}
	meta.Thanos.UploadTime = m.now().UTC()
	return m.world.upload(ctx, into, meta, made)
}

// upload writes index, then chunks, then meta.json, each once.
func (w *simWorld) upload(ctx context.Context, bkt objstore.Bucket, m *block.Meta, c content) error {
	hash := c.hash()
	w.mu.Lock()
	w.contents[hash] = c
	w.mu.Unlock()
	data, err := m.Encode()
	if err != nil {
		return err
	}
	for _, name := range []string{block.IndexName(m.ULID), block.SegmentName(m.ULID, 1)} {
		if err := putOnce(ctx, bkt, name, hash); err != nil {
			return err
		}
	}
	present := 0
	err = bucket.List(ctx, bkt, block.ObjectName(m.ULID, ""), "", func(o bucket.Object) error {
		if strings.HasSuffix(o.Name, "/index") || strings.Contains(o.Name, "/chunks/") {
			present++
		}
		return nil
	})
	if err != nil {
		return err
	}
	if present != 2 {
		return fmt.Errorf("%d of 2 objects are there: %w", present, blockio.ErrConflict)
	}
	if err := bucket.UploadIfAbsent(ctx, bkt, block.MetaName(m.ULID), bytes.NewReader(data)); !errors.Is(err, bucket.ErrExists) {
		return err
	}
	return nil
}

func putOnce(ctx context.Context, bkt objstore.Bucket, name, text string) error {
	err := bucket.UploadIfAbsent(ctx, bkt, name, strings.NewReader(text))
	if !errors.Is(err, bucket.ErrExists) {
		return err
	}
	r, err := bkt.Get(ctx, name)
	if err != nil {
		return err
	}
	there, err := io.ReadAll(r)
	if err == nil && string(there) != text {
		err = fmt.Errorf("%s: %w", name, blockio.ErrConflict)
	}
	return errors.Join(err, r.Close())
}

// read gives what an object stands for.
func (w *simWorld) read(ctx context.Context, bkt bucket.Reader, name string) (content, error) {
	r, err := bkt.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	hash, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.contents[string(hash)], nil
}
