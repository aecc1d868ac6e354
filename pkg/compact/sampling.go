package compact

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockwriter"
	"github.com/varve-io/varve/pkg/dedup"
	"github.com/varve-io/varve/pkg/series"
)

// sampled is of about how many series a block is compared with its sources.
const sampled = 16

// stride says that every so many-th series is compared.
func stride(sources []*block.Meta) int {
	most := uint64(0)
	for _, m := range sources {
		most = max(most, m.Stats.NumSeries)
	}
	if most == 0 { // nobody counted
		return 1000
	}
	return int(max(1, most/sampled))
}

// recorder is a writer that remembers what some of its series were, so that they can
// be looked for in the bucket.
type recorder struct {
	*blockwriter.Writer

	stride, series int
	seed           maphash.Seed
	sums           map[int]uint64 // by the number of the series
}

func newRecorder(w *blockwriter.Writer, stride int) *recorder {
	return &recorder{Writer: w, stride: stride, seed: maphash.MakeSeed(), sums: map[int]uint64{}}
}

// AddSeries writes the series.
func (r *recorder) AddSeries(s *series.Series) error {
	if r.wanted(r.series) {
		r.sums[r.series] = r.sum(s)
	}
	r.series++
	return r.Writer.AddSeries(s)
}

func (r *recorder) wanted(series int) bool { return series%r.stride == 0 }

// sum is over labels and chunks.
func (r *recorder) sum(s *series.Series) uint64 {
	var h maphash.Hash
	h.SetSeed(r.seed)
	_, _ = h.WriteString(s.Labels.String())
	for _, c := range s.Chunks {
		head := binary.BigEndian.AppendUint64(nil, uint64(c.MinTime))
		head = binary.BigEndian.AppendUint64(head, uint64(c.MaxTime))
		head = binary.BigEndian.AppendUint64(head, uint64(len(c.Data)))
		_, _ = h.Write(append(head, byte(c.Encoding)))
		_, _ = h.Write(c.Data)
	}
	return h.Sum64()
}

// check reports what became of a series on its way.
func (r *recorder) check(n int, s *series.Series) error {
	if r.sum(s) != r.sums[n] {
		return errors.New("it is not what was written")
	}
	return nil
}

// inputs is what a merge reads. It keeps each series with its replicas until what became of them was checked.
type inputs struct {
	series.Set

	stride int
	labels int     // label sets so far
	kept   []input // not checked yet
	spare  [][]series.Chunk
}

// input is a series with all its replicas.
type input struct {
	labels   labels.Labels
	compared bool // sample by sample
	replicas [][]series.Chunk
	samples  int
	// fewer says that deduplication may leave samples out: there are two replicas, or chunks that
	// overlap. unknown says that there are chunks of aggregates.
	fewer, unknown bool

	replica string // of what came last, and where that ends
	end     int64
}

// came adds chunks of a replica.
func (in *input) came(s *series.Series) {
	in.fewer = in.fewer || len(in.replicas) > 0 && s.Replica != in.replica
	for _, c := range s.Chunks {
		in.fewer = in.fewer || c.MinTime <= in.end
		in.end = max(in.end, c.MaxTime)
	}
	in.samples += in.count(s.Chunks)
	in.replicas, in.replica = append(in.replicas, s.Chunks), s.Replica
}

func (in *input) count(chunks []series.Chunk) (all int) {
	for _, c := range chunks {
		n, err := c.NumSamples()
		in.unknown = in.unknown || err != nil || c.Encoding == aggrchunk.Encoding // who decodes the chunk says what is wrong with it
		all += n
	}
	return all
}

func (in *inputs) Next() bool {
	if !in.Set.Next() {
		return false
	}
	s := in.At()
	if n := len(in.kept); n == 0 || !labels.Equal(s.Labels, in.kept[n-1].labels) {
		in.kept = append(in.kept, input{labels: s.Labels, compared: in.labels%in.stride == 0, replicas: in.spare, end: math.MinInt64})
		in.labels, in.spare = in.labels+1, nil
	}
	in.kept[len(in.kept)-1].came(s)
	return true
}

// check compares the next series that is written with what it was made from.
func (in *inputs) check(s *series.Series, f dedup.Func) error {
	if len(in.kept) == 0 || !labels.Equal(in.kept[0].labels, s.Labels) {
		return fmt.Errorf("series %s is not the next one of its sources", s.Labels)
	}
	next := in.kept[0]
	in.kept = slices.Delete(in.kept, 0, 1)
	err := next.tally(s.Chunks, f)
	if err == nil && next.compared {
		err = compare(next.replicas, s.Chunks, f)
	}
	if err != nil {
		return fmt.Errorf("series %s beside its sources: %w", s.Labels, err)
	}
	clear(next.replicas)
	in.spare = next.replicas[:0]
	return nil
}

// done reports series that did not come out.
func (in *inputs) done() error {
	if len(in.kept) > 0 {
		return fmt.Errorf("nothing came of series %s", in.kept[0].labels)
	}
	return nil
}

// tally reports that samples were lost, or came out of nothing.
func (in *input) tally(chunks []series.Chunk, f dedup.Func) error {
	out := in.count(chunks)
	lost := out < in.samples
	switch {
	case in.unknown || out == in.samples || lost && in.fewer:
		return nil
	case lost && f == dedup.Default:
		return in.lostAtEdges(chunks)
	}
	return fmt.Errorf("%d samples came of %d", out, in.samples)
}

// lostAtEdges reports samples that were lost elsewhere than behind the edge of a cell of
// deduplication, next to a sample before it. There, deduplication leaves out what breaks the rhythm of
// a lone replica, too: in blocks that were deduplicated apart, replicas may change at the edge.
func (in *input) lostAtEdges(chunks []series.Chunk) error {
	kept := map[int64]bool{}
	if err := eachSample(chunks, func(s sample) { kept[s.t] = true }); err != nil {
		return err
	}
	var wrong error
	last := int64(math.MinInt64) // that was kept and says that the series is alive
	err := eachSample(slices.Concat(in.replicas...), func(s sample) {
		before, _ := dedup.Widen(s.t, s.t)
		edge := before + dedup.Cell
		switch {
		case kept[s.t]:
			if s.value != value.StaleNaN && s.sum != value.StaleNaN {
				last = s.t
			}
		case wrong == nil && (s.t < edge || last < before || last >= edge):
			wrong = fmt.Errorf("the sample at %d is gone", s.t)
		}
	})
	return errors.Join(err, wrong)
}

// compare decodes with Prometheus' own readers and knows nothing of how deduplication
// works: every sample has to be one of a replica's and later than the one before, and
// there have to be a third of those that the fullest replica has. Deduplication keeps
// more than half where replicas have another rhythm, and nearly all where not.
func compare(replicas [][]series.Chunk, chunks []series.Chunk, f dedup.Func) error {
	known := make([]inOrder, len(replicas))
	most := 0
	for i, r := range replicas {
		if err := eachSample(r, func(s sample) { known[i] = append(known[i], s) }); err != nil {
			return nil //nolint:nilerr // aggregates; damage is found by who needs the samples
		}
		most = max(most, known[i].sort())
	}
	count, last := 0, int64(math.MinInt64)
	var wrong error
	err := eachSample(chunks, func(s sample) {
		switch {
		case wrong != nil:
		case s.t <= last:
			wrong = fmt.Errorf("a sample at %d after one at %d", s.t, last)
		case !has(known, s):
			wrong = fmt.Errorf("the sample at %d is in none of them", s.t)
		}
		count, last = count+1, s.t
	})
	const few = 32
	if err == nil && wrong == nil && f != dedup.Penalty && most > few && count < most/3 {
		wrong = fmt.Errorf("it has %d samples, one of them has %d", count, most)
	}
	return errors.Join(err, wrong)
}

// inOrder are the samples of a replica in order of time, of which there may be several at one.
type inOrder []sample

// sort brings the samples in order and counts their times.
func (o inOrder) sort() (times int) {
	byTime := func(a, b sample) int { return cmp.Compare(a.t, b.t) }
	if !slices.IsSortedFunc(o, byTime) {
		slices.SortFunc(o, byTime)
	}
	for i := range o {
		if i == 0 || o[i].t != o[i-1].t {
			times++
		}
	}
	return times
}

// has reports whether one of the replicas has the sample. What is before it is let go of, for it is not asked for any more.
func has(replicas []inOrder, s sample) (found bool) {
	for i, o := range replicas {
		for len(o) > 0 && o[0].t < s.t {
			o = o[1:]
		}
		for n := 0; n < len(o) && o[n].t == s.t; n++ {
			found = found || o[n] == s
		}
		replicas[i] = o
	}
	return found
}

// sample is one of floats, or what tells histograms apart.
type sample struct {
	t          int64
	value, sum uint64 // bits; of histograms the count and the sum
}

var errNotRaw = errors.New("chunks are not raw")

// eachSample calls fn for all samples of raw chunks.
func eachSample(chunks []series.Chunk, fn func(sample)) error {
	var it chunkenc.Iterator
	for _, c := range chunks {
		if c.Encoding == aggrchunk.Encoding {
			return errNotRaw
		}
		opened, err := c.Open()
		if err != nil {
			return err
		}
		it = opened.Iterator(it)
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			fn(sampleAt(it, kind))
		}
		if it.Err() != nil {
			return it.Err()
		}
	}
	return nil
}

func sampleAt(it chunkenc.Iterator, kind chunkenc.ValueType) sample {
	if kind == chunkenc.ValFloat {
		t, v := it.At()
		return sample{t: t, value: math.Float64bits(v)}
	}
	t, h := it.AtFloatHistogram(nil) // of integers, too
	return sample{t: t, value: math.Float64bits(h.Count), sum: math.Float64bits(h.Sum)}
}
