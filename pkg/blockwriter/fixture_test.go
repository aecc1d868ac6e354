package blockwriter_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/blockwriter"
	"github.com/varve-io/varve/pkg/series"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// memory is a place for blocks that sees every file only from front to end.
type memory struct {
	mu      sync.Mutex
	done    map[string][]byte
	open    map[string]*memoryFile
	aborted []string
	// broken is what a write ends in once more than left bytes were written to all files.
	broken error
	left   int
}

func newMemory() *memory {
	return &memory{done: map[string][]byte{}, open: map[string]*memoryFile{}}
}

type memoryFile struct {
	bytes.Buffer
	in   *memory
	name string
}

func (m *memory) Create(name string) (blockwriter.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.open[name] != nil || m.done[name] != nil {
		return nil, fmt.Errorf("%s was created before", name)
	}
	f := &memoryFile{in: m, name: name}
	m.open[name] = f
	return f, nil
}

func (f *memoryFile) Write(b []byte) (int, error) {
	f.in.mu.Lock()
	defer f.in.mu.Unlock()
	if f.in.broken != nil {
		if f.in.left -= len(b); f.in.left < 0 {
			return 0, f.in.broken
		}
	}
	return f.Buffer.Write(b)
}

func (f *memoryFile) Close() error {
	f.in.mu.Lock()
	defer f.in.mu.Unlock()
	if f.in.open[f.name] != f {
		return fmt.Errorf("%s is not open", f.name)
	}
	delete(f.in.open, f.name)
	f.in.done[f.name] = f.Bytes()
	return nil
}

func (f *memoryFile) Abort() {
	f.in.mu.Lock()
	defer f.in.mu.Unlock()
	delete(f.in.open, f.name)
	f.in.aborted = append(f.in.aborted, f.name)
}

// randomSeries makes about n series with few and many values, values that belong
// to several names, missing and long labels, and none to many chunks.
func randomSeries(t testing.TB, n int, seed uint64) []series.Series {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	pool := randomChunks(t, r)
	var all []series.Series
	for range n {
		b := labels.NewScratchBuilder(4)
		b.Add("__name__", fmt.Sprintf("metric_%d", r.IntN(5)))
		for name, odds := range map[string]int{"few": 4, "others": 7, "Zone": 3, "ünï": 2} {
			if r.IntN(odds) > 0 {
				b.Add(name, strconv.Itoa(r.IntN(odds))) // the same values everywhere
			}
		}
		if r.IntN(4) > 0 {
			b.Add("many", fmt.Sprintf("value-%d", r.IntN(n)))
		}
		if r.IntN(50) == 0 {
			b.Add("long", strings.Repeat("long", 100+r.IntN(6000)))
		}
		b.Sort()
		all = append(all, series.Series{Labels: b.Labels(), Chunks: someChunks(r, pool)})
	}
	byLabels := func(a, b series.Series) int { return labels.Compare(a.Labels, b.Labels) }
	slices.SortFunc(all, byLabels)
	return slices.CompactFunc(all, func(a, b series.Series) bool { return byLabels(a, b) == 0 })
}

// someChunks draws chunks and lays them out in time.
func someChunks(r *rand.Rand, pool []series.Chunk) []series.Chunk {
	n := r.IntN(4)
	if r.IntN(100) == 0 {
		n = 300
	}
	out := make([]series.Chunk, n)
	at := r.Int64N(2000) - 1000
	for i := range out {
		out[i] = pool[r.IntN(len(pool))]
		out[i].MinTime = at
		out[i].MaxTime = at + r.Int64N(100_000)
		at = out[i].MaxTime + 1 + r.Int64N(1_000_000)
	}
	return out
}

// randomChunks makes chunks of all encodings, of many sizes.
func randomChunks(t testing.TB, r *rand.Rand) []series.Chunk {
	t.Helper()
	var all []series.Chunk
	for _, n := range []int{1, 2, 40, 120} {
		for _, enc := range []chunkenc.Encoding{
			chunkenc.EncXOR, chunkenc.EncXOR2, chunkenc.EncHistogram, chunkenc.EncFloatHistogram,
			chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST,
		} {
			all = append(all, randomChunk(t, r, enc, n))
		}
		var subs aggrchunk.Subs
		sub := randomChunk(t, r, chunkenc.EncXOR, n)
		subs[aggrchunk.Count] = aggrchunk.Sub{Encoding: sub.Encoding, Data: sub.Data}
		all = append(all, series.Chunk{Encoding: aggrchunk.Encoding, Data: aggrchunk.Encode(subs)})
	}
	return all
}

func randomChunk(t testing.TB, r *rand.Rand, enc chunkenc.Encoding, samples int) series.Chunk {
	t.Helper()
	c, err := chunkenc.NewEmptyChunk(enc)
	check(t, err)
	app, err := c.Appender()
	check(t, err)
	for i := range samples {
		at := int64(i) * 15_000
		switch enc {
		case chunkenc.EncHistogram, chunkenc.EncHistogramST:
			_, _, _, err = app.AppendHistogram(nil, at, at, tsdbutil.GenerateTestHistogram(int64(i)), true)
		case chunkenc.EncFloatHistogram, chunkenc.EncFloatHistogramST:
			_, _, _, err = app.AppendFloatHistogram(nil, at, at, tsdbutil.GenerateTestFloatHistogram(int64(i)), true)
		default:
			app.Append(0, at, r.Float64())
		}
		check(t, err)
	}
	return series.Chunk{Encoding: enc, Data: c.Bytes()}
}

// symbolsOf are all strings of the labels, sorted, and more that nothing uses.
func symbolsOf(all []series.Series, more ...string) []string {
	seen := map[string]bool{}
	for _, s := range all {
		s.Labels.Range(func(l labels.Label) { seen[l.Name], seen[l.Value] = true, true })
	}
	for _, s := range more {
		seen[s] = true
	}
	out := make([]string, 0, len(seen))
	for s := range seen {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

// table is a symbol table of the strings of several lists.
func table(t testing.TB, lists ...[]string) *blockwriter.Symbols {
	t.Helper()
	s := blockwriter.NewSymbols()
	for _, l := range lists {
		check(t, s.AddAll(index.NewStringListIter(l)))
	}
	return s
}

// write writes a block.
func write(t testing.TB, files blockwriter.Files, o blockwriter.Options, all []series.Series, symbols *blockwriter.Symbols) blockwriter.Result {
	t.Helper()
	w, err := blockwriter.New(files, o, symbols)
	check(t, err)
	for i := range all {
		check(t, w.AddSeries(&all[i]))
	}
	result, err := w.Close()
	check(t, err)
	return result
}

// writePrometheus writes the same block with Prometheus' writers.
func writePrometheus(t testing.TB, dir string, all []series.Series, symbols []string) {
	t.Helper()
	cw, err := chunks.NewWriter(filepath.Join(dir, "chunks"))
	check(t, err)
	var metas [][]chunks.Meta
	for _, s := range all {
		var own []chunks.Meta
		for _, c := range s.Chunks {
			chk, err := c.Open()
			check(t, err)
			own = append(own, chunks.Meta{Chunk: chk, MinTime: c.MinTime, MaxTime: c.MaxTime})
		}
		check(t, cw.WriteChunks(own...))
		metas = append(metas, own)
	}
	check(t, cw.Close())
	writePrometheusIndex(t, dir, all, metas, symbols)
}

// writePrometheusIndex writes an index of series with chunks that are elsewhere.
func writePrometheusIndex(t testing.TB, dir string, all []series.Series, metas [][]chunks.Meta, symbols []string) {
	t.Helper()
	iw, err := index.NewWriter(context.Background(), filepath.Join(dir, "index"))
	check(t, err)
	for _, s := range symbols {
		check(t, iw.AddSymbol(s))
	}
	for i, s := range all {
		check(t, iw.AddSeries(storage.SeriesRef(i), s.Labels, metas[i]...))
	}
	check(t, iw.Close())
}

func readFile(t testing.TB, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	check(t, err)
	return b
}
