package chunkcodec

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// encoded is a chunk as it stands in a block.
type encoded struct {
	enc  chunkenc.Encoding
	data []byte
}

// readSegment reads the chunks of a segment file: eight bytes of header, then
// length, encoding, data and checksum of each.
func readSegment(t testing.TB, path string) (chunks []encoded) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for b = b[8:]; len(b) > 0; {
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n-5) {
			t.Fatalf("%s: the last chunk of %d is cut off", path, len(chunks))
		}
		data := b[n+1:][:size]
		chunks = append(chunks, encoded{chunkenc.Encoding(b[n]), data})
		b = b[n+1+int(size)+4:]
	}
	return chunks
}

// scraped are chunks that two Prometheis 3.15 wrote while they scraped each
// other every second, one of them with every new encoding enabled; or those of the
// segment file that VARVE_CHUNKS names.
func scraped(t testing.TB) []encoded {
	t.Helper()
	if path := os.Getenv("VARVE_CHUNKS"); path != "" {
		return readSegment(t, path)
	}
	return readSegment(t, "testdata/scraped.segment")
}

// shape tells what the values of a chunk are like.
func shape(v []float64) string {
	changes, falls := 0, 0
	for i := 1; i < len(v); i++ {
		if math.Float64bits(v[i]) != math.Float64bits(v[i-1]) {
			changes++
		}
		if v[i] < v[i-1] {
			falls++
		}
	}
	switch {
	case changes == 0:
		return "const"
	case changes*4 < len(v):
		return "sparse"
	case falls == 0:
		return "counter"
	}
	return "gauge"
}

// corpus is chunks of one shape to measure with.
type corpus struct {
	name   string
	enc    chunkenc.Encoding
	chunks [][]byte
	inputs []*Samples
	reset  []chunkenc.CounterResetHeader
	count  int // of samples
}

func (c *corpus) add(data []byte, s *Samples) {
	c.chunks = append(c.chunks, data)
	c.inputs = append(c.inputs, s)
	c.reset = append(c.reset, ResetHeader(c.enc, data))
	c.count += s.Len()
}

// corpora are the scraped chunks by encoding and shape, and generated ones.
func corpora(t testing.TB) (all []*corpus) {
	t.Helper()
	find := func(name string, enc chunkenc.Encoding) *corpus {
		for _, c := range all {
			if c.name == name {
				return c
			}
		}
		all = append(all, &corpus{name: name, enc: enc})
		return all[len(all)-1]
	}
	for _, prefix := range []struct {
		name string
		enc  chunkenc.Encoding
	}{{"", chunkenc.EncXOR}, {"xor2-", chunkenc.EncXOR2}} {
		for _, name := range []string{"const", "sparse", "counter", "gauge", "jitter", "random"} {
			c := find(prefix.name+name, prefix.enc)
			for seed := range uint64(50) {
				s := generate(name, seed)
				c.add(prometheus(t, c.enc, s), s)
			}
		}
	}
	for _, chunk := range scraped(t) {
		s := decodeOracle(t, chunk.enc, chunk.data)
		name := "scraped-" + chunk.enc.String()
		if family(chunk.enc) == chunkenc.ValFloat {
			name += "-" + shape(s.V)
		}
		if s.Len() >= 60 {
			find(name, chunk.enc).add(chunk.data, s)
		}
	}
	return all
}

// generate makes 120 samples of a shape, scraped every 15 seconds.
func generate(shape string, seed uint64) *Samples {
	r := rand.New(rand.NewPCG(1, seed))
	s, v := &Samples{}, float64(r.IntN(1e7))
	for i := range 120 {
		t := int64(1_700_000_000_000 + i*15_000)
		switch shape {
		case "sparse":
			if r.IntN(10) == 0 {
				v++
			}
		case "counter":
			v += float64(r.IntN(200))
		case "gauge":
			v = 1e8 + float64(r.IntN(1<<16))*4096
		case "jitter":
			v += float64(r.IntN(200))
			t += int64(r.IntN(11)) - 5
		case "random":
			v = r.Float64()
		}
		s.AppendFloat(0, t, v)
	}
	return s
}

// decodeOracle decodes with Prometheus' own iterator.
func decodeOracle(t testing.TB, enc chunkenc.Encoding, data []byte) *Samples {
	t.Helper()
	s, err := tryOracle(enc, data)
	if err != nil {
		t.Fatalf("Prometheus reads a chunk of %s: %v", enc, err)
	}
	return s
}

// tryOracle returns the samples up to the first error.
func tryOracle(enc chunkenc.Encoding, data []byte) (*Samples, error) {
	s := &Samples{}
	c, err := chunkenc.FromData(enc, data)
	if err != nil {
		return s, err
	}
	it := c.Iterator(nil)
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		switch typ {
		case chunkenc.ValFloat:
			t, v := it.At()
			s.AppendFloat(it.AtST(), t, v)
		case chunkenc.ValHistogram:
			t, h := it.AtHistogram(nil)
			s.AppendHistogram(it.AtST(), t, h)
		case chunkenc.ValFloatHistogram:
			t, h := it.AtFloatHistogram(nil)
			s.AppendFloatHistogram(it.AtST(), t, h)
		case chunkenc.ValNone:
		}
	}
	return s, it.Err()
}

// BenchmarkDecode reads whole chunks into columns; Prometheus' iterator looks
// at every sample and keeps none.
func BenchmarkDecode(b *testing.B) {
	for _, c := range corpora(b) {
		b.Run(c.name, func(b *testing.B) {
			var out Samples
			var d Decoder
			decode := func(data []byte) {
				out.Reset()
				d.Reset()
				if err := d.Decode(c.enc, data, &out); err != nil {
					b.Fatal(err)
				}
			}
			var it chunkenc.Iterator
			c.compare(b, func() {
				for _, data := range c.chunks {
					decode(data)
				}
			}, func() {
				for _, data := range c.chunks {
					chunk, err := chunkenc.FromData(c.enc, data)
					if err != nil {
						b.Fatal(err)
					}
					it = readAll(chunk.Iterator(it))
				}
			})
			for i, data := range c.chunks {
				decode(data)
				mustEqual(b, &out, c.inputs[i])
			}
		})
	}
}

// readAll looks at every sample and keeps none.
func readAll(it chunkenc.Iterator) chunkenc.Iterator {
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		switch typ {
		case chunkenc.ValFloat:
			it.At()
		case chunkenc.ValHistogram:
			it.AtHistogram(nil)
		case chunkenc.ValFloatHistogram:
			it.AtFloatHistogram(nil)
		case chunkenc.ValNone:
		}
	}
	return it
}

// BenchmarkEncode writes whole chunks into one buffer, which serves again, as does that of Prometheus' appender.
func BenchmarkEncode(b *testing.B) {
	for _, c := range corpora(b) {
		b.Run(c.name, func(b *testing.B) {
			var e Encoder
			var buf []byte
			encode := func(i int) {
				var err error
				if buf, err = e.EncodeTo(buf[:0], c.enc, c.inputs[i], c.reset[i]); err != nil {
					b.Fatal(err)
				}
			}
			chunk, err := chunkenc.NewEmptyChunk(c.enc)
			if err != nil {
				b.Fatal(err)
			}
			header := slices.Clone(chunk.Bytes())
			c.compare(b, func() {
				for i := range c.inputs {
					encode(i)
				}
			}, func() {
				for _, s := range c.inputs {
					chunk.Reset(append(chunk.Bytes()[:0], header...))
					appendAll(b, chunk, s)
				}
			})
			for i, want := range c.chunks {
				if encode(i); !slices.Equal(buf, want) {
					b.Fatalf("chunk %d: got %x, want %x", i, buf, want)
				}
			}
		})
	}
}

// compare reports the fastest pass of ours and of Prometheus' over the chunks,
// in turn: passes are short, so that one falls between the interruptions of a
// busy machine. What is allocated is that of ours.
func (c *corpus) compare(b *testing.B, ours, prometheus func()) {
	b.Helper()
	b.ReportAllocs()
	best, other := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
	pass := func(f func()) time.Duration {
		at := time.Now()
		f()
		return time.Since(at)
	}
	for b.Loop() {
		best = min(best, pass(ours))
		b.StopTimer()
		other = min(other, pass(prometheus))
		b.StartTimer()
	}
	b.ReportMetric(float64(best.Nanoseconds())/float64(c.count), "ns/sample")
	b.ReportMetric(float64(other.Nanoseconds())/float64(c.count), "prometheus-ns/sample")
	b.ReportMetric(float64(other)/float64(best), "x")
}

func mustEqual(t testing.TB, got, want *Samples) {
	t.Helper()
	if diff := difference(got, want); diff != "" {
		t.Fatal(diff)
	}
}

// difference says where the samples differ, "" when they are the same to the bit.
func difference(got, want *Samples) string {
	if !slices.Equal(got.T, want.T) || !slices.Equal(bitsOf(got.V), bitsOf(want.V)) || !slices.Equal(got.ST, want.ST) {
		return fmt.Sprintf("decoded\n got %v %v %v\nwant %v %v %v", got.T, got.V, got.ST, want.T, want.V, want.ST)
	}
	if len(got.H) != len(want.H) || len(got.FH) != len(want.FH) {
		return fmt.Sprintf("decoded %d and %d histograms, want %d and %d", len(got.H), len(got.FH), len(want.H), len(want.FH))
	}
	for i := range got.H {
		if g, w := plain(got.H[i]), plain(want.H[i]); g != w {
			return fmt.Sprintf("histogram %d\n got %s\nwant %s", i, g, w)
		}
	}
	for i := range got.FH {
		if g, w := plain(got.FH[i]), plain(want.FH[i]); g != w {
			return fmt.Sprintf("histogram %d\n got %s\nwant %s", i, g, w)
		}
	}
	return ""
}

// plain writes every field of a histogram, floats by their bits.
func plain(h any) string {
	text := ""
	switch h := h.(type) {
	case *histogram.Histogram:
		if h == nil {
			break
		}
		type fields histogram.Histogram // without the method String
		text = fmt.Sprintf("%+v %x", fields(*h), bitsOf(append([]float64{h.Sum, h.ZeroThreshold}, h.CustomValues...)))
	case *histogram.FloatHistogram:
		if h == nil {
			break
		}
		type fields histogram.FloatHistogram
		text = fmt.Sprintf("%+v %x", fields(*h), bitsOf(slices.Concat([]float64{h.Sum, h.ZeroThreshold, h.Count, h.ZeroCount}, h.PositiveBuckets, h.NegativeBuckets, h.CustomValues)))
	}
	return text
}
