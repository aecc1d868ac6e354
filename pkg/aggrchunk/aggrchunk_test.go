package aggrchunk

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/varve-io/varve/internal/golden"
)

type point struct {
	t int64
	v float64
}

func xor(t testing.TB, points ...point) Sub {
	t.Helper()
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range points {
		app.Append(0, p.t, p.v)
	}
	return Sub{Encoding: chunkenc.EncXOR, Data: c.Bytes()}
}

// twoWindows is what two windows of a counter that was scraped every 2m30s look like at 5m.
func twoWindows(t testing.TB) Subs {
	t.Helper()
	return Subs{
		Count:   xor(t, point{299999, 2}, point{450000, 2}),
		Sum:     xor(t, point{299999, 30}, point{450000, 12}),
		Min:     xor(t, point{299999, 10}, point{450000, 5}),
		Max:     xor(t, point{299999, 20}, point{450000, 7}),
		Counter: xor(t, point{0, 10}, point{299999, 20}, point{450000, 27}, point{450000, 7}),
	}
}

// describe writes a payload with the names of wire.md §21.
func describe(subs Subs) string {
	var b strings.Builder
	for k, s := range subs {
		fmt.Fprintf(&b, "%s\n  length   %d\n", Kind(k), len(s.Data))
		if s.Present() {
			fmt.Fprintf(&b, "  encoding %02x\n  data     %s\n", byte(s.Encoding), hex.EncodeToString(s.Data))
		}
	}
	fmt.Fprintf(&b, "payload %s\n", hex.EncodeToString(Encode(subs)))
	return b.String()
}

func TestPayloadBytes(t *testing.T) {
	golden.Check(t, "testdata/float.golden", describe(twoWindows(t)))

	h := chunkenc.NewFloatHistogramChunk()
	app, err := h.Appender()
	if err != nil {
		t.Fatal(err)
	}
	fh := tsdbutil.GenerateTestGaugeFloatHistogram(1)
	if _, _, _, err := app.AppendFloatHistogram(nil, 0, 299999, fh, true); err != nil {
		t.Fatal(err)
	}
	sub := Sub{Encoding: chunkenc.EncFloatHistogram, Data: h.Bytes()}
	golden.Check(t, "testdata/histogram.golden", describe(Subs{Count: xor(t, point{299999, 1}), Sum: sub, Counter: sub}))
}

func TestDecodeGivesBackWhatWasEncoded(t *testing.T) {
	full := twoWindows(t)
	for kinds := Kinds(0); kinds <= AllKinds; kinds++ {
		var in Subs
		for k := range in {
			if kinds.Has(Kind(k)) {
				in[k] = full[k]
			}
		}
		out, err := Decode(Encode(in))
		if err != nil {
			t.Fatalf("decode with aggregates %05b: %v", kinds, err)
		}
		if out.Kinds() != kinds {
			t.Errorf("aggregates present: got %05b, want %05b", out.Kinds(), kinds)
		}
		for k := range in {
			if in[k].Encoding != out[k].Encoding || !bytes.Equal(in[k].Data, out[k].Data) {
				t.Errorf("%s: got %v, want %v", Kind(k), out[k], in[k])
			}
		}
	}
}

func TestDecodeRefusesDamage(t *testing.T) {
	good := Encode(twoWindows(t))
	for name, payload := range map[string][]byte{
		"an empty payload":             {},
		"a length beyond the end":      {0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2},
		"a length that does not end":   bytes.Repeat([]byte{0xff}, 12),
		"a payload cut in the counter": good[:len(good)-1],
		"bytes after the counter":      append(bytes.Clone(good), 0),
		"only four aggregates":         {0, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Decode(payload); !errors.Is(err, ErrInvalid) {
				t.Errorf("got error %v, want ErrInvalid", err)
			}
			if n := NumSamples(payload); n != 0 {
				t.Errorf("samples: got %d, want 0", n)
			}
		})
	}
}

func TestNumSamplesCountsWindows(t *testing.T) {
	subs := twoWindows(t)
	if got := NumSamples(Encode(subs)); got != 2 {
		t.Errorf("all aggregates: got %d, want 2", got)
	}
	if got := NumSamples(Encode(Subs{Counter: subs[Counter]})); got != 2 {
		t.Errorf("counter alone: got %d, want 2", got)
	}
}

func TestPoolKnowsAggregateChunks(t *testing.T) {
	p := NewPool()
	payload := Encode(twoWindows(t))
	c, err := p.Get(Encoding, payload)
	if err != nil {
		t.Fatal(err)
	}
	if c.Encoding() != Encoding || !bytes.Equal(c.Bytes(), payload) || c.NumSamples() != 2 {
		t.Errorf("got encoding %d, %d bytes, %d samples", c.Encoding(), len(c.Bytes()), c.NumSamples())
	}
	if it := c.Iterator(nil); it.Next() != chunkenc.ValNone || it.Err() == nil {
		t.Error("an aggregate chunk was iterated without an error")
	}
	if err := p.Put(c); err != nil {
		t.Error(err)
	}
	raw, err := p.Get(chunkenc.EncXOR, xor(t, point{1, 1}).Data)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Put(raw); err != nil {
		t.Error(err)
	}
	if _, err := p.Get(99, nil); err == nil {
		t.Error("encoding 99 was accepted")
	}
}

func TestCounterReader(t *testing.T) {
	nan, stale := math.NaN(), math.Float64frombits(value.StaleNaN)
	for name, tc := range map[string]struct {
		subs []Sub
		want string
	}{
		"a raw chunk is corrected at its resets": {
			[]Sub{xor(t, point{1, 5}, point{2, 8}, point{3, 2}, point{4, 4})},
			"1=5 2=8 3=10 4=12 raw 4",
		},
		"NaN and stale markers are skipped": {
			[]Sub{xor(t, point{1, 5}, point{2, nan}, point{3, stale}, point{4, 6})},
			"1=5 4=6 raw 6",
		},
		"the repeated last time holds the last raw value": {
			[]Sub{xor(t, point{0, 10}, point{5, 20}, point{9, 27}, point{9, 7}), xor(t, point{10, 9}, point{14, 12}, point{14, 12})},
			"0=10 5=20 9=27 10=29 14=32 raw 12",
		},
		"a reset between two chunks is seen against the raw value": {
			[]Sub{xor(t, point{0, 10}, point{9, 27}, point{9, 7}), xor(t, point{10, 3}, point{14, 4}, point{14, 4})},
			"0=10 9=27 10=30 14=31 raw 4",
		},
		"a first sample at a window's end does no harm": {
			[]Sub{xor(t, point{9, 10}, point{9, 10}, point{19, 12}, point{19, 12})},
			"9=10 19=12 raw 12",
		},
		"what an overlapping chunk repeats is left out": {
			[]Sub{xor(t, point{1, 1}, point{5, 5}), xor(t, point{3, 3}, point{5, 5}, point{7, 7})},
			"1=1 5=5 7=7 raw 7",
		},
		"nothing gives nothing": {nil, "raw 0"},
	} {
		t.Run(name, func(t *testing.T) {
			r := NewCounterReader(tc.subs)
			var got strings.Builder
			for r.Next() != chunkenc.ValNone {
				at, v := r.At()
				fmt.Fprintf(&got, "%d=%g ", at, v)
			}
			fmt.Fprintf(&got, "raw %g", r.LastRaw())
			if r.Err() != nil || got.String() != tc.want {
				t.Errorf("got %s (error %v), want %s", got.String(), r.Err(), tc.want)
			}
		})
	}
}

func TestCounterReaderSeekAppliesTheResetsItPasses(t *testing.T) {
	r := NewCounterReader([]Sub{xor(t, point{1, 5}, point{2, 1}, point{3, 2}), xor(t, point{4, 1}, point{5, 3})})
	for _, step := range []struct {
		seek, t int64
		v       float64
	}{{3, 3, 7}, {2, 3, 7}, {4, 4, 8}, {5, 5, 10}} {
		if typ := r.Seek(step.seek); typ != chunkenc.ValFloat {
			t.Fatalf("seek to %d: got %s", step.seek, typ)
		}
		if at, v := r.At(); at != step.t || v != step.v {
			t.Errorf("seek to %d: got %d=%g, want %d=%g", step.seek, at, v, step.t, step.v)
		}
	}
	if typ := r.Seek(6); typ != chunkenc.ValNone || r.Err() != nil {
		t.Errorf("seek beyond the end: got %s, error %v", typ, r.Err())
	}
}

func TestCounterReaderPassesHistogramsUntouched(t *testing.T) {
	c := chunkenc.NewHistogramChunk()
	app, err := c.Appender()
	if err != nil {
		t.Fatal(err)
	}
	want := tsdbutil.GenerateTestHistograms(3)
	for i, h := range want {
		if _, _, _, err := app.AppendHistogram(nil, 0, int64(10+i), h.Copy(), true); err != nil {
			t.Fatal(err)
		}
	}
	r := NewCounterReader([]Sub{xor(t, point{1, 5}), {Encoding: chunkenc.EncHistogram, Data: c.Bytes()}, xor(t, point{20, 1})})
	var got []*histogram.Histogram
	for typ := r.Next(); typ != chunkenc.ValNone; typ = r.Next() {
		if typ == chunkenc.ValHistogram {
			_, h := r.AtHistogram(nil)
			got = append(got, h)
		}
	}
	if r.Err() != nil || len(got) != 3 || !got[2].Equals(want[2]) {
		t.Errorf("got %v (error %v), want %v", got, r.Err(), want)
	}
	if at, v := r.At(); at != 20 || v != 6 {
		t.Errorf("float after the histograms: got %d=%g, want 20=6", at, v)
	}
}

func TestCounterReaderReportsDamage(t *testing.T) {
	r := NewCounterReader([]Sub{{Encoding: chunkenc.EncXOR, Data: []byte{0}}})
	if r.Next() != chunkenc.ValNone || r.Err() == nil {
		t.Errorf("a chunk of one byte was read without an error")
	}
}

func FuzzAggrChunk(f *testing.F) {
	f.Add(Encode(twoWindows(f)))
	f.Add([]byte{0, 0, 0, 0, 0})
	f.Add([]byte{1, 1, 0, 0, 0, 0, 2, 1, 0, 9})
	f.Fuzz(func(t *testing.T, payload []byte) {
		NumSamples(payload)
		subs, err := Decode(payload)
		if err != nil {
			return
		}
		again, err := Decode(Encode(subs))
		if err != nil {
			t.Fatalf("decode what was encoded: %v", err)
		}
		for k := range subs {
			if again[k].Encoding != subs[k].Encoding || !bytes.Equal(again[k].Data, subs[k].Data) {
				t.Errorf("%s: got %v, want %v", Kind(k), again[k], subs[k])
			}
		}
		r := NewCounterReader(subs[:])
		last := int64(math.MinInt64)
		for typ := r.Next(); typ != chunkenc.ValNone; typ = r.Next() {
			if typ != chunkenc.ValFloat {
				r.AtFloatHistogram(nil)
			}
			if r.AtT() <= last && last != math.MinInt64 {
				t.Fatalf("time %d after %d", r.AtT(), last)
			}
			last = r.AtT()
		}
	})
}
