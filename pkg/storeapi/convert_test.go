package storeapi

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi/storepb"
)

// coarse is an aggregate chunk of the kinds given with windows that end at ends.
func coarse(t testing.TB, r block.Resolution, kinds aggrchunk.Kinds, ends ...int64) series.Chunk {
	t.Helper()
	var subs aggrchunk.Subs
	for k := range aggrchunk.Kind(aggrchunk.NumKinds) {
		if !kinds.Has(k) {
			continue
		}
		ts := ends
		if k == aggrchunk.Counter {
			ts = append(append([]int64{ends[0] - 77}, ends...), ends[len(ends)-1])
		}
		c := xorChunk(t, chunkenc.EncXOR, ts...)
		subs[k] = aggrchunk.Sub{Encoding: c.Encoding, Data: c.Data}
	}
	return series.Chunk{
		MinTime: ends[0], MaxTime: ends[len(ends)-1], Resolution: int64(r),
		Encoding: aggrchunk.Encoding, Data: aggrchunk.Encode(subs),
	}
}

// roundTrip encodes one series and decodes it again.
func roundTrip(t testing.TB, native bool, kinds aggrchunk.Kinds, chunks ...series.Chunk) (*storepb.Series, []series.Chunk) {
	t.Helper()
	e := encoder{native: native, kinds: kinds}
	out, _ := e.begin(&series.Series{Labels: labels.FromStrings("a", "1")})
	for _, c := range chunks {
		if _, err := e.chunk(out, c); err != nil {
			t.Fatalf("encode: %v", err)
		}
	}
	d := decoder{coarsest: block.OneHour}
	var back series.Series
	if err := d.series(out, &back); err != nil {
		t.Fatalf("decode: %v", err)
	}
	return out, back.Chunks
}

const (
	minute = int64(60_000)
	five   = 5 * minute
	hour   = 60 * minute
)

func TestAggregateChunks(t *testing.T) {
	full := coarse(t, block.FiveMin, aggrchunk.AllKinds, five-1, 2*five-1, 3*five-5000)
	subs, err := aggrchunk.Decode(full.Data)
	if err != nil {
		t.Fatal(err)
	}
	for name, native := range map[string]bool{"for our own kind": true, "for Thanos": false} {
		t.Run(name, func(t *testing.T) {
			pb, back := roundTrip(t, native, aggrchunk.KindsOf(aggrchunk.Sum, aggrchunk.Counter), full)
			a := pb.Chunks[0]
			if a.Raw != nil || a.Count != nil || a.Min != nil || a.Max != nil || a.Sum == nil || a.Counter == nil {
				t.Fatalf("fields set: %v, want sum and counter alone", a)
			}
			if !slices.Equal(a.Sum.Data, subs[aggrchunk.Sum].Data) || a.Sum.Type != storepb.Chunk_XOR {
				t.Errorf("sum is %v", a.Sum)
			}
			if (a.VarveResolution != 0) != native || (a.Sum.Hash == 0) != native {
				t.Errorf("resolution field %d, hash %d", a.VarveResolution, a.Sum.Hash)
			}
			got, err := aggrchunk.Decode(back[0].Data)
			if err != nil || got.Kinds() != aggrchunk.KindsOf(aggrchunk.Sum, aggrchunk.Counter) || !slices.Equal(got[aggrchunk.Counter].Data, subs[aggrchunk.Counter].Data) {
				t.Errorf("came back with %b (%v)", got.Kinds(), err)
			}
			if back[0].Resolution != int64(block.FiveMin) || back[0].MinTime != full.MinTime || back[0].MaxTime != full.MaxTime {
				t.Errorf("came back as [%d, %d] at %d", back[0].MinTime, back[0].MaxTime, back[0].Resolution)
			}
		})
	}
	t.Run("an aggregate that is absent is left out", func(t *testing.T) {
		pb, back := roundTrip(t, false, aggrchunk.KindsOf(aggrchunk.Min), coarse(t, block.FiveMin, aggrchunk.KindsOf(aggrchunk.Count, aggrchunk.Counter), five-1))
		if pb.Chunks[0].Min != nil || len(back) != 0 {
			t.Errorf("got %v, and %d chunks back, want neither", pb.Chunks[0], len(back))
		}
	})
	t.Run("a payload that is none is an error", func(t *testing.T) {
		e := encoder{kinds: aggrchunk.AllKinds}
		out, _ := e.begin(&series.Series{})
		if _, err := e.chunk(out, series.Chunk{Encoding: aggrchunk.Encoding, Data: []byte{9}}); err == nil {
			t.Error("no error")
		}
	})
}

func TestResolutionOfChunksThatDoNotTell(t *testing.T) {
	all := aggrchunk.AllKinds
	for name, tc := range map[string]struct {
		coarsest block.Resolution
		kinds    aggrchunk.Kinds
		chunks   [][]int64
		want     []block.Resolution
	}{
		"windows of five minutes":                {block.OneHour, all, [][]int64{{five - 1, 2*five - 1, 2*five + 40}}, []block.Resolution{block.FiveMin}},
		"windows of an hour":                     {block.OneHour, all, [][]int64{{hour - 1, 2*hour - 1, 2*hour + 40}}, []block.Resolution{block.OneHour}},
		"hours, in the counter alone":            {block.OneHour, aggrchunk.KindsOf(aggrchunk.Counter), [][]int64{{hour - 1, 2*hour - 1, 2*hour + 40}}, []block.Resolution{block.OneHour}},
		"hours with all of the last":             {block.OneHour, all, [][]int64{{hour - 1, 2*hour - 1}}, []block.Resolution{block.OneHour}},
		"five minutes that begin at a full hour": {block.OneHour, all, [][]int64{{hour - 1, hour + five - 1, hour + 2*five - 1}}, []block.Resolution{block.FiveMin}},
		"nothing coarser was asked for":          {block.FiveMin, all, [][]int64{{hour - 1, 2*hour - 1}}, []block.Resolution{block.FiveMin}},
		"one window, and its neighbour tells":    {block.OneHour, all, [][]int64{{42}, {hour - 1, 2*hour - 1}}, []block.Resolution{block.OneHour, block.OneHour}},
		"one window and nothing tells":           {block.OneHour, all, [][]int64{{42}}, []block.Resolution{block.FiveMin}},
		"both in one series":                     {block.OneHour, all, [][]int64{{hour - 1, 2*hour - 1}, {2*hour + five - 1, 2*hour + 2*five - 1}}, []block.Resolution{block.OneHour, block.FiveMin}},
	} {
		t.Run(name, func(t *testing.T) {
			var chunks []series.Chunk
			for _, ends := range tc.chunks {
				c := coarse(t, 0, tc.kinds, ends...)
				chunks = append(chunks, c)
			}
			inferResolutions(chunks, tc.coarsest)
			for i, want := range tc.want {
				if got := block.Resolution(chunks[i].Resolution); got != want {
					t.Errorf("chunk %d is of %s, want %s", i, got, want)
				}
			}
		})
	}
}

// histogramChunk encodes histograms as they are, one chunk.
func histogramChunk(t testing.TB, enc chunkenc.Encoding, hs ...*histogram.Histogram) series.Chunk {
	t.Helper()
	c, err := chunkenc.NewEmptyChunk(enc)
	if err != nil {
		t.Fatal(err)
	}
	app, err := c.Appender()
	if err != nil {
		t.Fatal(err)
	}
	for i, h := range hs {
		var next chunkenc.Chunk
		if enc == chunkenc.EncHistogramST {
			next, _, app, err = app.AppendHistogram(nil, 500, int64(1000+i), h.Copy(), false)
		} else {
			next, _, app, err = app.AppendFloatHistogram(nil, 500, int64(1000+i), h.ToFloat(nil), false)
		}
		if err != nil || next != nil {
			t.Fatalf("append: %v, %v", next, err)
		}
	}
	return series.Chunk{MinTime: 1000, MaxTime: int64(1000 + len(hs) - 1), Encoding: enc, Data: c.Bytes()}
}

func TestEncodingsOfTheWire(t *testing.T) {
	h := tsdbutil.GenerateTestHistograms(5)
	for name, tc := range map[string]struct {
		in     series.Chunk
		thanos chunkenc.Encoding
	}{
		"floats":                      {xorChunk(t, chunkenc.EncXOR, 5, 6, 9), chunkenc.EncXOR},
		"floats of XOR2":              {xorChunk(t, chunkenc.EncXOR2, 5, 6, 9), chunkenc.EncXOR},
		"histograms":                  {histogramChunk(t, chunkenc.EncHistogramST, h...), chunkenc.EncHistogram},
		"float histograms":            {histogramChunk(t, chunkenc.EncFloatHistogramST, h...), chunkenc.EncFloatHistogram},
		"gauge histograms":            {histogramChunk(t, chunkenc.EncHistogramST, tsdbutil.GenerateTestGaugeHistograms(3)...), chunkenc.EncHistogram},
		"histograms of custom bounds": {histogramChunk(t, chunkenc.EncHistogramST, tsdbutil.GenerateTestCustomBucketsHistograms(3)...), chunkenc.EncHistogram},
	} {
		for native, want := range map[bool]chunkenc.Encoding{true: tc.in.Encoding, false: tc.thanos} {
			t.Run(fmt.Sprintf("%s, native %t", name, native), func(t *testing.T) {
				_, got := roundTrip(t, native, 0, tc.in)
				if len(got) != 1 || got[0].Encoding != want || got[0].MinTime != tc.in.MinTime || got[0].MaxTime != tc.in.MaxTime {
					t.Fatalf("got %v, want %s [%d, %d]", got, want, tc.in.MinTime, tc.in.MaxTime)
				}
				if native && !slices.Equal(got[0].Data, tc.in.Data) {
					t.Errorf("bytes: got %x, want %x", got[0].Data, tc.in.Data)
				}
				if g, w := samples(t, got[0]), samples(t, tc.in); g != w {
					t.Errorf("samples:\n got %s\nwant %s", g, w)
				}
			})
		}
	}
	for name, in := range map[string]series.Chunk{
		"no encoding":         {Data: []byte{0, 1, 2, 3}},
		"an unknown encoding": {Encoding: 99, Data: []byte{0, 1, 2, 3}},
		"no data":             {Encoding: chunkenc.EncHistogramST},
	} {
		e := encoder{}
		out, _ := e.begin(&series.Series{})
		if _, err := e.chunk(out, in); err == nil {
			t.Errorf("%s: got %v, want an error", name, out)
		}
	}
}

func samples(t testing.TB, c series.Chunk) string {
	t.Helper()
	var b strings.Builder
	src, err := chunkcodec.Open(c.Encoding, c.Data)
	if err != nil {
		t.Fatal(err)
	}
	it := src.Iterator(nil)
	for vt := it.Next(); vt != chunkenc.ValNone; vt = it.Next() {
		if vt == chunkenc.ValFloat {
			ts, v := it.At()
			fmt.Fprintf(&b, "%d=%g ", ts, v)
			continue
		}
		ts, h := it.AtFloatHistogram(nil)
		fmt.Fprintf(&b, "%d=%v(%v)%v ", ts, h, h.CounterResetHint, h.CustomValues)
	}
	return b.String()
}

// FuzzSeriesFrame turns bytes into series, and those into frames for both kinds of callers.
func FuzzSeriesFrame(f *testing.F) {
	for _, m := range messages() {
		f.Add([]byte(m.bytes))
	}
	e := encoder{native: true, kinds: aggrchunk.AllKinds}
	out, _ := e.begin(&series.Series{Labels: labels.FromStrings("a", "1"), Replica: "r"})
	for _, c := range []series.Chunk{
		coarse(f, block.FiveMin, aggrchunk.AllKinds, five-1, 2*five-1),
		xorChunk(f, chunkenc.EncXOR2, 1, 2),
		histogramChunk(f, chunkenc.EncFloatHistogramST, tsdbutil.GenerateTestHistograms(3)...),
	} {
		if _, err := e.chunk(out, c); err != nil {
			f.Fatal(err)
		}
	}
	seed, err := (&storepb.SeriesResponse{Result: &storepb.SeriesResponse_Series{Series: out}}).MarshalVT()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		var frame storepb.SeriesResponse
		if err := frame.UnmarshalVTUnsafe(data); err != nil {
			return
		}
		d := decoder{coarsest: block.OneHour}
		list, err := d.frame(&frame)
		if err != nil {
			return
		}
		for _, native := range []bool{true, false} {
			w := newFrameWriter(&storepb.SeriesRequest{VarveNative: native}, aggrchunk.AllKinds, func(*storepb.SeriesResponse) error { return nil })
			for i := range list {
				if !slices.IsSortedFunc(list[i].Chunks, series.CompareChunks) {
					t.Errorf("chunks are not sorted: %v", list[i].Chunks)
				}
				if err := w.add(&list[i]); err != nil && native {
					t.Errorf("what came from the wire does not go back: %v", err)
				}
			}
		}
	})
}

// FuzzSplit splits a payload into fields and joins them again.
func FuzzSplit(f *testing.F) {
	f.Add(coarse(f, block.FiveMin, aggrchunk.AllKinds, five-1, 2*five-1).Data)
	f.Add(coarse(f, block.FiveMin, aggrchunk.KindsOf(aggrchunk.Count, aggrchunk.Counter), five-1).Data)
	f.Add([]byte{1, 3, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, payload []byte) {
		e := encoder{native: true, kinds: aggrchunk.AllKinds}
		out, _ := e.begin(&series.Series{})
		if _, err := e.chunk(out, series.Chunk{Encoding: aggrchunk.Encoding, Resolution: five, Data: payload}); err != nil {
			return
		}
		subs, err := aggrchunk.Decode(payload)
		if err != nil {
			t.Fatalf("split what does not decode: %v", err)
		}
		c, ok, err := chunkFromWire(out.Chunks[0])
		if err != nil || !ok {
			return // an encoding that nobody knows, or nothing at all
		}
		if want := aggrchunk.Encode(subs); string(c.Data) != string(want) || c.Resolution != five {
			t.Errorf("joined %x at %d, want %x", c.Data, c.Resolution, want)
		}
	})
}
