package chunkcodec

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// row is a sample as Prometheus' encoder of series takes it.
type row struct {
	s *Samples
	i int
}

func (r row) T() int64                 { return r.s.T[r.i] }
func (r row) ST() int64                { return r.s.Start(r.i) }
func (r row) F() float64               { return r.s.V[r.i] }
func (r row) Type() chunkenc.ValueType { return r.s.Type(r.i) }
func (r row) Copy() chunks.Sample      { return r }

// H and FH return copies, because the appender widens what it is given.

func (r row) H() *histogram.Histogram {
	h := *r.s.H[r.i]
	return &h
}

func (r row) FH() *histogram.FloatHistogram {
	h := *r.s.FH[r.i]
	return &h
}

// appendOracle is Append by Prometheus' own encoder of series.
func appendOracle(t testing.TB, s *Samples) (out []Chunk) {
	t.Helper()
	var rows []chunks.Sample
	for i := range s.T {
		rows = append(rows, row{s, i})
	}
	it := storage.NewSeriesToChunkEncoder(storage.NewListSeries(labels.EmptyLabels(), rows)).Iterator(nil)
	for it.Next() {
		c := it.At()
		out = append(out, Chunk{c.MinTime, c.MaxTime, c.Chunk.Encoding(), c.Chunk.Bytes()})
	}
	if it.Err() != nil {
		t.Fatal(it.Err())
	}
	return out
}

func mustAppendLikePrometheus(t testing.TB, e *Encoder, lent []Chunk, s *Samples) []Chunk {
	t.Helper()
	got, err := e.Append(lent[:0], s)
	if err != nil {
		t.Fatal(err)
	}
	want := appendOracle(t, s)
	for i := range min(len(got), len(want)) {
		g, w := got[i], want[i]
		if g.Encoding != w.Encoding || g.MinTime != w.MinTime || g.MaxTime != w.MaxTime || !bytes.Equal(g.Data, w.Data) {
			t.Fatalf("chunk %d\n got %s %d to %d %x\nwant %s %d to %d %x", i, g.Encoding, g.MinTime, g.MaxTime, g.Data, w.Encoding, w.MinTime, w.MaxTime, w.Data)
		}
	}
	if len(got) != len(want) {
		t.Fatalf("got %d chunks, want %d", len(got), len(want))
	}
	return got
}

// evolving makes histograms that each differ a little from the one before.
type evolving struct {
	hint          histogram.CounterResetHint
	schema        int32
	zeroThreshold float64
	zero          uint64
	sum           float64
	customValues  []float64
	counts        [2]map[int32]int64
	style         byte // of spans; see spans
	stale         bool
	zeroBuckets   bool // buckets that are empty are there nevertheless
}

func newEvolving() *evolving {
	return &evolving{counts: [2]map[int32]int64{{}, {}}, zeroThreshold: 1. / 128}
}

// change makes the next histogram, as two bytes say.
func (e *evolving) change(how, which byte) {
	side, index := which>>7, int32(which&15)-8
	if which&16 > 0 {
		index *= 40
	}
	e.stale = false
	switch how % 16 {
	default: // counts rise
		for i := range e.counts[side] {
			if uint8(i)&which&3 == 0 {
				e.counts[side][i] += int64(how>>4) * int64(i&7)
			}
		}
		e.sum += float64(which) / 8
	case 6, 7: // a bucket more
		e.counts[side][index] += int64(how >> 4)
	case 8: // a bucket fewer, or its count gone
		delete(e.counts[side], index)
	case 9:
		if e.counts[side][index] = 0; which&32 > 0 {
			e.counts = [2]map[int32]int64{{}, {}}
		}
	case 10:
		e.style = which
	case 11:
		e.hint = []histogram.CounterResetHint{histogram.UnknownCounterReset, histogram.GaugeType, histogram.CounterReset, histogram.NotCounterReset, histogram.GaugeType, 0, 0, 0}[which&7]
	case 12:
		e.stale = true
	case 13:
		e.schema = []int32{0, 0, 3, -4, 8, histogram.CustomBucketsSchema, histogram.CustomBucketsSchema, 3}[which&7]
		e.customValues = nil
		if histogram.IsCustomBucketsSchema(e.schema) {
			e.customValues = [][]float64{{1, 2}, {0.001, 0.5, 33554.430}, {-1, 0.0001, math.Inf(1)}, nil}[which>>3&3]
		}
	case 14:
		e.zeroThreshold = []float64{0, 1. / 128, 0.1, 1024, 2048, math.Ldexp(0.5, -242), math.Ldexp(0.5, -243), math.NaN()}[which&7]
	case 15:
		e.zero += uint64(which)
		e.zeroBuckets = !e.zeroBuckets
	}
}

// spans lays the buckets of a side out: in as few spans as possible, each for
// itself, with empty ones between, or with empty buckets in gaps.
func (e *evolving) spans(side int) (spans []histogram.Span, counts []int64) {
	var indices []int32
	for i, count := range e.counts[side] {
		if count != 0 || e.zeroBuckets {
			indices = append(indices, i)
		}
	}
	slices.Sort(indices)
	end := int32(0)
	if e.style&1 > 0 {
		spans = append(spans, histogram.Span{Offset: -3})
		end = -3
	}
	for _, i := range indices {
		n := len(spans)
		switch {
		case e.style&8 > 0 && n > 0 && i > end && i-end < 4:
			spans[n-1].Length += uint32(i - end)
			counts = append(counts, make([]int64, i-end)...)
			fallthrough
		case n > 0 && i == end && e.style&2 == 0:
			spans[n-1].Length++
		default:
			if e.style&4 > 0 && n > 0 {
				spans = append(spans, histogram.Span{})
			}
			if n == 1 && i < end { // the empty span in front
				spans, end = spans[:0], 0
			}
			spans = append(spans, histogram.Span{Offset: i - end, Length: 1})
		}
		counts = append(counts, e.counts[side][i])
		end = i + 1
	}
	return spans, counts
}

// histogram returns it in both kinds.
func (e *evolving) histogram() (*histogram.Histogram, *histogram.FloatHistogram) {
	h := &histogram.Histogram{
		CounterResetHint: e.hint, Schema: e.schema, ZeroThreshold: e.zeroThreshold, ZeroCount: e.zero, Sum: e.sum, CustomValues: e.customValues,
	}
	if e.stale {
		h.Sum = math.Float64frombits(value.StaleNaN)
	}
	f := &histogram.FloatHistogram{
		CounterResetHint: h.CounterResetHint, Schema: h.Schema, ZeroThreshold: h.ZeroThreshold, ZeroCount: float64(h.ZeroCount) / 3, Sum: h.Sum, CustomValues: h.CustomValues,
	}
	for side := range e.counts {
		spans, counts := e.spans(side)
		var differences []int64
		var floats []float64
		before := int64(0)
		for _, count := range counts {
			differences = append(differences, count-before)
			floats = append(floats, float64(count)/3)
			h.Count += uint64(count)
			before = count
		}
		if side == 0 {
			h.PositiveSpans, h.PositiveBuckets, f.PositiveSpans, f.PositiveBuckets = spans, differences, spans, floats
		} else {
			h.NegativeSpans, h.NegativeBuckets, f.NegativeSpans, f.NegativeBuckets = spans, differences, spans, floats
		}
	}
	f.Count = float64(h.Count) / 3
	return h, f
}

// mixedSamples makes samples of both kinds of histograms, with floats between,
// out of three bytes each.
func mixedSamples(data []byte) *Samples {
	s := &Samples{}
	e := newEvolving()
	at, st, kind := int64(0), int64(0), byte(0)
	for ; len(data) >= 3 && s.Len() < 1000; data = data[3:] {
		e.change(data[0], data[1])
		switch how := data[2]; how >> 5 {
		case 0:
			kind = how & 3
		case 1:
			st = at - int64(how&7)
		case 2:
			st = 0
		case 3:
			at += 1 << (how & 31)
		}
		at += 15_000
		switch h, f := e.histogram(); kind {
		case 1:
			s.AppendFloatHistogram(st, at, f)
		case 3:
			s.AppendFloat(st, at, e.sum)
		default:
			s.AppendHistogram(st, at, h)
		}
	}
	return s
}

// randomChanges are bytes for mixedSamples, most of which let counts rise.
func randomChanges(r *rand.Rand, n int) (data []byte) {
	for range n {
		how, which, when := byte(r.Uint32())&0xf0, byte(r.Uint32()), byte(0xff)
		if r.IntN(4) == 0 {
			how |= byte(6 + r.IntN(2))
		}
		if r.IntN(12) == 0 {
			how |= byte(r.IntN(16))
		}
		if r.IntN(40) == 0 {
			when = byte(r.Uint32())
		}
		data = append(data, how, which, when)
	}
	return data
}

func TestChunksAreThoseOfPrometheusEncoder(t *testing.T) {
	var e Encoder
	var lent []Chunk
	cuts, wider := 0, 0
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(21, seed))
		s := mixedSamples(randomChanges(r, 400))
		lent = mustAppendLikePrometheus(t, &e, lent, s)
		cuts += len(lent)
		wider += widened(t, lent, s)
	}
	if cuts < 30*5 || wider < 30 {
		t.Errorf("%d chunks, %d of them wider than their first histogram: too few for this test to mean something", cuts, wider)
	}
}

// widened counts the chunks with more buckets than their first histogram had.
func widened(t testing.TB, cs []Chunk, s *Samples) (n int) {
	t.Helper()
	at := 0
	for _, c := range cs {
		var back Samples
		if err := Decode(c.Encoding, c.Data, &back); err != nil {
			t.Fatal(err)
		}
		switch s.Type(at) {
		case chunkenc.ValHistogram:
			if len(back.H[0].PositiveBuckets) > len(s.H[at].PositiveBuckets) {
				n++
			}
		case chunkenc.ValFloatHistogram:
			if len(back.FH[0].PositiveBuckets) > len(s.FH[at].PositiveBuckets) {
				n++
			}
		case chunkenc.ValFloat, chunkenc.ValNone:
		}
		at += back.Len()
	}
	return n
}

func TestNothingIsAllocatedWhereTheEncoderServesAgain(t *testing.T) {
	r := rand.New(rand.NewPCG(23, 24))
	s := mixedSamples(randomChanges(r, 900))
	var e Encoder
	var chunks []Chunk
	n := testing.AllocsPerRun(20, func() {
		var err error
		if chunks, err = e.Append(chunks[:0], s); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("got %v allocations for %d chunks, want none", n, len(chunks))
	}
}

func TestAppendKeepsChunksThatAreInUse(t *testing.T) {
	r := rand.New(rand.NewPCG(25, 26))
	list, err := Append(nil, mixedSamples(randomChanges(r, 300)))
	if err != nil {
		t.Fatal(err)
	}
	kept := slices.Clone(list)
	before := fmt.Sprintf("%x", kept)
	if _, err := Append(list[:0], mixedSamples(randomChanges(r, 300))); err != nil {
		t.Fatal(err)
	}
	if after := fmt.Sprintf("%x", kept); after != before {
		t.Error("chunks that had been handed out were written to")
	}
}

func TestBucketsThatContradictTheirSpansAreRefused(t *testing.T) {
	for name, h := range map[string]*histogram.Histogram{
		"a bucket too few":       {PositiveSpans: []histogram.Span{{Length: 2}}, PositiveBuckets: []int64{1}},
		"a bucket too many":      {NegativeSpans: []histogram.Span{{Length: 1}}, NegativeBuckets: []int64{1, 2}},
		"spans that go back":     {PositiveSpans: []histogram.Span{{Length: 1}, {Offset: -1, Length: 1}}, PositiveBuckets: []int64{1, 2}},
		"spans beyond 32 bits":   {PositiveSpans: []histogram.Span{{Offset: math.MaxInt32, Length: 1}}, PositiveBuckets: []int64{1}},
		"buckets without a span": {PositiveBuckets: []int64{1}},
		"spans without a bucket": {NegativeSpans: []histogram.Span{{Length: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			var s Samples
			s.AppendHistogram(0, 1, &histogram.Histogram{})
			s.AppendHistogram(0, 2, h)
			if _, err := Append(nil, &s); !errors.Is(err, ErrInvalid) {
				t.Errorf("got %v, want ErrInvalid", err)
			}
		})
	}
}

// FuzzAppend compares with Prometheus' own encoder of series: where chunks
// end, their reset headers and every byte.
func FuzzAppend(f *testing.F) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(27, seed))
		f.Add(randomChanges(r, 10<<seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := mixedSamples(data)
		var e Encoder
		list := mustAppendLikePrometheus(t, &e, nil, s)
		var back, again Samples
		for _, c := range list {
			back.Reset()
			if err := Decode(c.Encoding, c.Data, &back); err != nil {
				t.Fatal(err)
			}
			mustEqual(t, &back, decodeOracle(t, c.Encoding, c.Data))
			data, err := e.EncodeTo(nil, c.Encoding, &back, ResetHeader(c.Encoding, c.Data))
			if err != nil {
				t.Fatal(err)
			}
			again.Reset()
			if err := Decode(c.Encoding, data, &again); err != nil {
				t.Fatal(err)
			}
			mustEqual(t, &again, &back)
			if !bytes.Equal(data, c.Data) {
				t.Fatalf("encoded what was decoded\n got %x\nwant %x", data, c.Data)
			}
		}
	})
}
