package store

import (
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/series"
)

// rawChunk is a chunk of any encoding with any bytes.
type rawChunk struct {
	chunkenc.Chunk
	encoding chunkenc.Encoding
	data     []byte
}

func (c rawChunk) Bytes() []byte               { return c.data }
func (c rawChunk) Encoding() chunkenc.Encoding { return c.encoding }
func (c rawChunk) NumSamples() int             { return 1 }
func (c rawChunk) writable(at int64) chunks.Meta {
	return chunks.Meta{Chunk: c, MinTime: at, MaxTime: at + 99}
}

// writeBlock writes a block of n series whose chunks are random bytes of every
// encoding and of very different lengths, over several segments.
func writeBlock(t testing.TB, n int, resolution block.Resolution) (dir string, meta *block.Meta, want []series.Series) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	rnd := rand.New(rand.NewSource(1))
	dir = t.TempDir()
	w, err := chunks.NewWriter(filepath.Join(dir, block.ChunksDir), chunks.WithSegmentSize(200_000))
	check(err)
	iw, err := index.NewWriter(t.Context(), filepath.Join(dir, block.IndexFile))
	check(err)
	symbols := []string{"job"}
	for i := range n {
		symbols = append(symbols, fmt.Sprintf("v%03d", i))
	}
	for _, s := range symbols {
		check(iw.AddSymbol(s))
	}
	encodings := []chunkenc.Encoding{
		chunkenc.EncXOR, chunkenc.EncHistogram, chunkenc.EncFloatHistogram,
		chunkenc.EncXOR2, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST, aggrchunk.Encoding,
	}
	for i, value := range symbols[1:] {
		s := series.Series{Labels: labels.FromStrings("job", value)}
		var metas []chunks.Meta
		for j := range int64(rnd.Intn(8) + 1) {
			size := 2 + rnd.Intn(200)
			switch rnd.Intn(60) {
			case 0:
				size = 150_000 // longer than any guess
			case 1:
				size = 20_000
			}
			c := rawChunk{encoding: encodings[rnd.Intn(len(encodings))], data: make([]byte, size)}
			rnd.Read(c.data)
			metas = append(metas, c.writable(j*100))
			s.Chunks = append(s.Chunks, series.Chunk{MinTime: j * 100, MaxTime: j*100 + 99, Encoding: c.encoding, Data: c.data, Resolution: int64(resolution)})
		}
		check(w.WriteChunks(metas...))
		check(iw.AddSeries(storage.SeriesRef(i), s.Labels, metas...))
		want = append(want, s)
	}
	check(w.Close())
	check(iw.Close())
	meta = entry(t, "a@0-1/raw").Meta
	meta.MaxTime = 1000
	meta.Thanos.Labels = nil
	meta.Thanos.Downsample.Resolution = resolution
	return dir, meta, want
}

func TestChunksAreTheBytesThatWereWritten(t *testing.T) {
	bkt := bucket.NewMemory()
	dir, meta, want := writeBlock(t, 300, block.FiveMin)
	e := upload(t, bkt, dir, meta)
	if e.Objects["chunks/000003"] == 0 {
		t.Fatalf("objects are %v, want several segments", e.Objects)
	}
	for name, change := range map[string]func(*Options){
		"without a cache":       func(o *Options) { o.Cache.MemoryBytes = 0 },
		"with a cache":          nil,
		"with the least memory": func(o *Options) { o.RequestBytes = minRequestBytes },
	} {
		t.Run(name, func(t *testing.T) {
			g := open(t, bkt, change, e)
			for _, r := range [][2]int64{{0, 999}, {150, 150}, {300, 399}, {0, 999}} {
				req := selectUp(r[0], r[1])
				req.MaxResolution = block.OneHour
				req.Matchers[0] = labels.MustNewMatcher(labels.MatchRegexp, "job", ".+")
				got, warnings, err := series.Collect(g.Series(t.Context(), req))
				if err != nil || len(warnings) > 0 {
					t.Fatalf("series: %v, %v", err, warnings)
				}
				compareChunks(t, got, want, r)
			}
		})
	}
}

// compareChunks checks that got is what of want lies in the range r, inclusive.
func compareChunks(t *testing.T, got, want []series.Series, r [2]int64) {
	t.Helper()
	for _, w := range want {
		var chunks []series.Chunk
		for _, c := range w.Chunks {
			if c.MinTime <= r[1] && r[0] <= c.MaxTime {
				chunks = append(chunks, c)
			}
		}
		if len(chunks) == 0 {
			continue
		}
		if len(got) == 0 || !labels.Equal(got[0].Labels, w.Labels) || len(got[0].Chunks) != len(chunks) {
			t.Fatalf("range %v: series %s with %d chunks is not next of %d", r, w.Labels, len(chunks), len(got))
		}
		for i, c := range got[0].Chunks {
			if c.MinTime != chunks[i].MinTime || c.MaxTime != chunks[i].MaxTime || c.Encoding != chunks[i].Encoding ||
				c.Resolution != chunks[i].Resolution || !bytes.Equal(c.Data, chunks[i].Data) {
				t.Fatalf("range %v: chunk %d of %s differs", r, i, w.Labels)
			}
		}
		got = got[1:]
	}
	if len(got) > 0 {
		t.Fatalf("range %v: %d series too many", r, len(got))
	}
}

func TestAWrongByteInMemoryIsReadAgain(t *testing.T) {
	bkt := bucket.NewMemory()
	dir, meta, want := writeBlock(t, 20, block.Raw)
	e := upload(t, bkt, dir, meta)
	e.ETags = nil // what rots has the version that it had
	name := block.SegmentName(meta.ULID, 1)
	whole, err := os.ReadFile(filepath.Join(dir, block.SegmentFile(1)))
	if err != nil {
		t.Fatal(err)
	}
	g := open(t, bkt, nil, e)
	req := selectUp(0, 999)
	req.Matchers[0] = labels.MustNewMatcher(labels.MatchRegexp, "job", ".+")

	damage(t, bkt, name, func(b []byte) []byte {
		b = bytes.Clone(b)
		b[len(b)/2] ^= 1
		return b
	})
	_, warnings, err := series.Collect(g.Series(t.Context(), req))
	if err != nil || len(warnings) != 1 {
		t.Fatalf("a wrong byte in the bucket: %v, %v, want one warning", err, warnings)
	}
	// What was wrong did not stay in memory.
	damage(t, bkt, name, func([]byte) []byte { return whole })
	got, warnings, err := series.Collect(g.Series(t.Context(), req))
	if err != nil || len(warnings) > 0 {
		t.Fatalf("the right byte: %v, %v", err, warnings)
	}
	compareChunks(t, got, want, [2]int64{0, 999})
}
