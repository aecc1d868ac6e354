// Package storeapitest is the acceptance suite of the Store API: Run states
// what every implementation of storeapi.Store does, and Memory is the plainest
// one that does it.
//
// It is imported by tests only. A test opens its store over a Fixture, as it is
// or through Fixture.WriteBlock, which makes a real block of it, and hands it to
// Run. OverGRPC and OverThanos put a real client and server in between.
package storeapitest

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
)

// Fixture is what one Prometheus has scraped.
type Fixture struct {
	// External are the external labels; the series do not carry them.
	External labels.Labels
	// Series are sorted by labels, and no labels come twice.
	Series []blocktest.Series
}

// Block says how to make a block of the fixture, with pkg/block/blocktest: its
// external labels in meta.json, its samples in every encoding there is.
func (f Fixture) Block() blocktest.Spec {
	return blocktest.Spec{
		Series: f.Series, Labels: f.External.Map(), Chunks: blocktest.WithStart,
		MinTime: Begin, MaxTime: Begin + 2*3_600_000,
	}
}

// text is how samples are compared: all that a query can see, and equal for
// equal samples however their chunks were cut.
func text(s blocktest.Sample) string {
	at := strconv.FormatInt(s.T, 10)
	if s.ST != 0 {
		at += " since " + strconv.FormatInt(s.ST, 10)
	}
	switch {
	case s.H != nil:
		return at + " int " + histogramText(s.H.ToFloat(nil))
	case s.FH != nil:
		return at + " float " + histogramText(s.FH)
	case value.IsStaleNaN(s.V):
		return at + " stale"
	}
	return at + " " + strconv.FormatFloat(s.V, 'g', -1, 64)
}

func histogramText(h *histogram.FloatHistogram) string {
	if value.IsStaleNaN(h.Sum) {
		return "stale"
	}
	h = h.Copy().Compact(0)
	kind := ""
	if h.CounterResetHint == histogram.GaugeType {
		kind = "gauge "
	}
	return fmt.Sprintf("%sschema %d bounds %v %s", kind, h.Schema, h.CustomValues, h)
}

// Begin is the time of the first sample of Standard: a full hour, long ago.
const Begin int64 = 1_767_225_600_000

// times of Standard.
const (
	scrape = 15_000
	// End is the time of its last sample.
	End = Begin + 359*scrape
)

// Standard returns the fixture that Run uses: an hour and a half of floats,
// histograms of every kind with and without start timestamps, stale markers,
// labels that need care, all inside one block of two hours.
func Standard() Fixture {
	counter := func(i int) float64 { return float64(7 * (i % 250)) } // one reset
	f := Fixture{External: labels.FromStrings("cluster", "eu", "prometheus", "p", "replica", "a")}
	add := func(samples []blocktest.Sample, lset ...string) {
		f.Series = append(f.Series, blocktest.Series{Labels: labels.FromStrings(lset...), Samples: samples})
	}
	// A label under the name of an external one, and values that only order tells apart.
	add(floats(Begin, 3, scrape, counter), "__name__", "clash", "cluster", "inner", "job", "x")
	add(floats(Begin, 3, scrape, counter), "__name__", "clash", "job", "y", "zone", "1")
	// Histograms.
	add(gauges(6), "__name__", "gauge_histogram", "job", "x")
	add(floatHistograms(130, 0), "__name__", "hist_float", "job", "x")
	add(floatHistograms(5, Begin-1000), "__name__", "hist_float_st", "job", "x")
	add(histograms(130, 0), "__name__", "hist_int", "job", "x")
	add(histograms(5, Begin-1000), "__name__", "hist_int_st", "job", "x")
	// Floats that become histograms an hour later.
	add(append(floats(Begin, 4, scrape, counter), late(histograms(4, 0))...), "__name__", "mixed", "job", "x")
	add(customBuckets(7), "__name__", "nhcb", "job", "x")
	// Removing "pod" or "replica_of" changes the order of these.
	add(floats(Begin, 360, scrape, counter), "__name__", "requests_total", "code", "200", "pod", "a", "zone", "2")
	add(floats(Begin, 360, scrape, func(i int) float64 { return counter(i) + 1 }), "__name__", "requests_total", "code", "200", "pod", "b", "zone", "1")
	add(floats(Begin+5000, 180, 2*scrape, counter), "__name__", "requests_total", "code", "200", "zone", "1")
	add(started(floats(Begin, 130, scrape, counter), Begin-60_000), "__name__", "requests_total", "code", "500", "pod", "a")
	add(stale(floats(Begin, 10, scrape, counter)), "__name__", "up", "job", "x")
	add(floats(Begin+3_600_000, 1, scrape, counter), "__name__", "up", "job", "y", "note", "überholt \"\n")
	return f
}

// nested returns a fixture of series that have another's labels and more, with names
// on both sides of the external ones, and none of its own under an external name:
// adding the external labels puts the longer before the shorter.
func nested() Fixture {
	f := Fixture{External: labels.FromStrings("cluster", "eu", "replica", "a")}
	for i, lset := range [][]string{
		{"__name__", "n"},
		{"__name__", "n", "az", "1"},
		{"__name__", "n", "az", "1", "be", "1"},
		{"__name__", "n", "az", "1", "be", "1", "zone", "1"},
		{"__name__", "n", "az", "1", "be", "2"},
		{"__name__", "n", "az", "1", "job", "1"},
		{"__name__", "n", "az", "2"},
		{"__name__", "n", "job", "1"},
		{"__name__", "n", "job", "1", "zone", "1"},
		{"__name__", "o"},
	} {
		f.Series = append(f.Series, blocktest.Series{
			Labels:  labels.FromStrings(lset...),
			Samples: floats(Begin, 3, 1_800_000, func(j int) float64 { return float64(10*i + j) }),
		})
	}
	return f
}

func floats(from int64, n int, step int64, v func(int) float64) []blocktest.Sample {
	out := make([]blocktest.Sample, n)
	for i := range out {
		out[i] = blocktest.Sample{T: from + int64(i)*step, V: v(i)}
	}
	return out
}

func histograms(n int, st int64) []blocktest.Sample {
	out := make([]blocktest.Sample, n)
	for i := range out {
		out[i] = blocktest.Sample{ST: st, T: Begin + int64(i)*scrape, H: tsdbutil.GenerateTestHistogram(int64(i % 100))}
	}
	return out
}

func floatHistograms(n int, st int64) []blocktest.Sample {
	out := make([]blocktest.Sample, n)
	for i := range out {
		out[i] = blocktest.Sample{ST: st, T: Begin + int64(i)*scrape, FH: tsdbutil.GenerateTestFloatHistogram(int64(i % 100))}
	}
	return out
}

func gauges(n int) []blocktest.Sample {
	out := make([]blocktest.Sample, n)
	for i := range out {
		out[i] = blocktest.Sample{T: Begin + int64(i)*scrape, H: tsdbutil.GenerateTestGaugeHistogram(int64(n - i))}
	}
	return out
}

func customBuckets(n int) []blocktest.Sample {
	out := make([]blocktest.Sample, n)
	for i := range out {
		out[i] = blocktest.Sample{T: Begin + int64(i)*scrape, H: tsdbutil.GenerateTestCustomBucketsHistogram(int64(i))}
	}
	return out
}

// late moves samples one hour on.
func late(in []blocktest.Sample) []blocktest.Sample {
	for i := range in {
		in[i].T += 3_600_000
	}
	return in
}

// started gives samples a start timestamp that moves on where the counter does.
func started(in []blocktest.Sample, st int64) []blocktest.Sample {
	for i := range in {
		in[i].ST = st
		if i >= len(in)/2 {
			in[i].ST = in[len(in)/2-1].T
		}
	}
	return in
}

// stale ends samples with a stale marker.
func stale(in []blocktest.Sample) []blocktest.Sample {
	in[len(in)-1].V = math.Float64frombits(value.StaleNaN)
	return in
}

// Encode cuts the samples into chunks as a Prometheus of today does: XOR2 and the
// start-timestamp encodings where start timestamps are known, the old ones
// otherwise, at most 120 samples in a chunk.
func Encode(s blocktest.Series) ([]series.Chunk, error) {
	var e chunkEncoder
	for _, sample := range s.Samples {
		if err := e.append(sample); err != nil {
			return nil, fmt.Errorf("encode series %s: %w", s.Labels, err)
		}
	}
	e.finish()
	return e.out, nil
}

const samplesPerChunk = 120

type chunkEncoder struct {
	out []series.Chunk
	cur chunkenc.Chunk
	app chunkenc.Appender
}

func (e *chunkEncoder) append(s blocktest.Sample) (err error) {
	vt := chunkenc.ValFloat
	switch {
	case s.H != nil:
		vt = chunkenc.ValHistogram
	case s.FH != nil:
		vt = chunkenc.ValFloatHistogram
	}
	enc := vt.ChunkEncoding(s.ST != 0, s.ST != 0)
	if e.cur == nil || e.cur.Encoding() != enc || e.cur.NumSamples() >= samplesPerChunk {
		c, err := chunkenc.NewEmptyChunk(enc)
		if err != nil {
			return err
		}
		if e.app, err = c.Appender(); err != nil {
			return err
		}
		e.begin(c, s.T)
	}
	var next chunkenc.Chunk
	var recoded bool
	switch vt {
	case chunkenc.ValFloat:
		e.app.Append(s.ST, s.T, s.V)
	case chunkenc.ValHistogram:
		next, recoded, e.app, err = e.app.AppendHistogram(nil, s.ST, s.T, s.H.Copy(), false)
	default:
		next, recoded, e.app, err = e.app.AppendFloatHistogram(nil, s.ST, s.T, s.FH.Copy(), false)
	}
	switch {
	case err != nil:
		return err
	case next != nil && recoded:
		e.cur = next
	case next != nil:
		e.begin(next, s.T)
	}
	e.out[len(e.out)-1].MaxTime = s.T
	return nil
}

func (e *chunkEncoder) begin(c chunkenc.Chunk, at int64) {
	e.finish()
	e.cur = c
	e.out = append(e.out, series.Chunk{MinTime: at, MaxTime: at, Encoding: c.Encoding()})
}

func (e *chunkEncoder) finish() {
	if e.cur != nil {
		e.out[len(e.out)-1].Data = e.cur.Bytes()
	}
}

// Decode returns the samples of a raw chunk.
func Decode(t testing.TB, c series.Chunk) []blocktest.Sample {
	t.Helper()
	src, err := chunkcodec.Open(c.Encoding, c.Data)
	if err != nil {
		t.Fatalf("open chunk: %v", err)
	}
	var out []blocktest.Sample
	it := src.Iterator(nil)
	for vt := it.Next(); vt != chunkenc.ValNone; vt = it.Next() {
		s := blocktest.Sample{ST: it.AtST(), T: it.AtT()}
		switch vt {
		case chunkenc.ValFloat:
			_, s.V = it.At()
		case chunkenc.ValHistogram:
			_, s.H = it.AtHistogram(nil)
		case chunkenc.ValFloatHistogram:
			_, s.FH = it.AtFloatHistogram(nil)
		case chunkenc.ValNone:
		}
		out = append(out, s)
	}
	if err := it.Err(); err != nil {
		t.Fatalf("read %s chunk: %v", c.Encoding, err)
	}
	return out
}

// script is a fixture or an answer as text, one line a series; times are
// relative to Begin.
func script(list []answered) string {
	var b strings.Builder
	for _, s := range list {
		fmt.Fprintf(&b, "%s", s.labels)
		if s.replica != "" {
			fmt.Fprintf(&b, " of %q", s.replica)
		}
		if n := len(s.samples); n > 0 {
			last := s.samples[n-1]
			fmt.Fprintf(&b, " %d samples, last %s after %s", n, text(last), time.Duration(last.T-Begin)*time.Millisecond)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
