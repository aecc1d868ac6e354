package downsample

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/varve-io/varve/internal/cputest"
	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockwriter"
	"github.com/varve-io/varve/pkg/series"
)

// peerVar names a program that downsamples a block: it is called with the
// block's directory, a resolution in milliseconds and an output directory, where
// it leaves the new block, and prints {"cpu_ns":…,"samples":…}.
const peerVar = "VARVE_PEER_DOWNSAMPLE"

// BenchmarkBlock downsamples blocks on disk, files read and written included,
// beside a peer where there is one, and compares what readers get from both.
func BenchmarkBlock(b *testing.B) {
	for _, shape := range shapes() {
		for _, bm := range []struct {
			to     block.Resolution
			series int
		}{{block.FiveMin, 120}, {block.OneHour, 600}} {
			dir := b.TempDir()
			writeShape(b, dir, shape, bm.series, bm.to)
			b.Run(fmt.Sprintf("%s/%s", shape.name, bm.to), func(b *testing.B) { besidePeer(b, dir, bm.to) })
		}
	}
}

// writeShape writes a block of two weeks as it is before it is downsampled to the resolution to.
func writeShape(t testing.TB, dir string, shape shape, count int, to block.Resolution) {
	t.Helper()
	names := []string{"__name__", "instance", shape.name}
	for i := range count {
		names = append(names, fmt.Sprintf("host-%03d", i))
	}
	slices.Sort(names)
	from := block.Raw
	if to == block.OneHour {
		from = block.FiveMin
	}
	w := createBlock(t, dir, index.NewStringListIter(names), from)
	for i := range count {
		s := series.Series{
			Labels: labels.FromStrings("__name__", shape.name, "instance", fmt.Sprintf("host-%03d", i)),
			Chunks: shape.series(t, uint64(i), 2*week),
		}
		if from != block.Raw {
			s.Chunks = chunksOf(t, s.Chunks, from)
		}
		if err := w.AddSeries(&s); err != nil {
			t.Fatal(err)
		}
	}
	w.close()
}

// besidePeer reports the least CPU time of all rounds, and of the peer's, which take turns.
func besidePeer(b *testing.B, from string, to block.Resolution) {
	b.Helper()
	ours, theirs := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
	samples, compared := 0, false
	peer := os.Getenv(peerVar)
	for b.Loop() {
		out := b.TempDir()
		var used time.Duration
		used, samples = downsampleBlock(b, from, out, to)
		ours = min(ours, used)
		if peer == "" {
			continue
		}
		peerOut := b.TempDir()
		result := runPeer(b, peer, from, peerOut, to)
		theirs = min(theirs, time.Duration(result.CPU))
		if result.Samples != samples {
			b.Fatalf("samples: got %d, peer says %d", samples, result.Samples)
		}
		if !compared {
			sameBlocks(b, out, peerOut, to)
			compared = true
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(ours)/float64(samples), "cpu-ns/sample")
	if peer != "" {
		b.ReportMetric(float64(theirs)/float64(samples), "peer-cpu-ns/sample")
		b.ReportMetric(float64(theirs)/float64(ours), "times-less")
	}
}

type peerResult struct {
	CPU     int64 `json:"cpu_ns"`
	Samples int   `json:"samples"`
}

func runPeer(b *testing.B, peer, from, out string, to block.Resolution) (r peerResult) {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), peer, from, strconv.FormatInt(int64(to), 10), out)
	cmd.Stderr = os.Stderr
	line, err := cmd.Output()
	if err != nil {
		b.Fatalf("%s %s: %v", peerVar, peer, err)
	}
	if err := json.Unmarshal(line, &r); err != nil {
		b.Fatalf("%s printed %q: %v", peerVar, line, err)
	}
	return r
}

// downsampleBlock returns the CPU time and the number of samples that came in.
// As in the peer, the block is open, and was read once.
func downsampleBlock(t testing.TB, from, to string, res block.Resolution) (used time.Duration, samples int) {
	t.Helper()
	set := openBlock(t, from)
	for set.Next() {
		for _, c := range set.At().Chunks {
			samples += sampleCount(c)
		}
	}
	runtime.GC()
	before := cputest.Used(t)
	set.rewind()
	w := createBlock(t, to, set.index.Symbols(), res)
	if err := Run(t.Context(), set, w, res); err != nil {
		t.Fatal(err)
	}
	w.close()
	return cputest.Used(t) - before, samples
}

// blockSet reads the series of a block one by one; they alias its files until the test ends.
type blockSet struct {
	testing.TB

	meta     block.Meta
	index    *index.Reader
	chunks   *chunks.Reader
	pool     chunkenc.Pool
	postings index.Postings
	builder  labels.ScratchBuilder
	metas    []chunks.Meta
	series   series.Series
}

func openBlock(t testing.TB, dir string) *blockSet {
	t.Helper()
	s := &blockSet{TB: t}
	data, err := os.ReadFile(filepath.Join(dir, "meta.json"))
	s.must(err)
	s.must(json.Unmarshal(data, &s.meta))
	s.index, err = index.NewFileReader(filepath.Join(dir, "index"), index.DecodePostingsRaw)
	s.must(err)
	t.Cleanup(func() { s.must(s.index.Close()) })
	s.pool = aggrchunk.NewPool()
	s.chunks, err = chunks.NewDirReader(filepath.Join(dir, "chunks"), s.pool)
	s.must(err)
	t.Cleanup(func() { s.must(s.chunks.Close()) })
	s.rewind()
	return s
}

// rewind lets the set begin anew.
func (s *blockSet) rewind() {
	name, value := index.AllPostingsKey()
	var err error
	s.postings, err = s.index.Postings(context.Background(), name, value)
	s.must(err)
}

// must runs once a chunk, where Helper would take more time than reading it.
func (s *blockSet) must(err error) {
	if err != nil {
		s.Fatal(err)
	}
}

func (s *blockSet) Next() bool {
	if !s.postings.Next() {
		return false
	}
	s.must(s.index.Series(s.postings.At(), &s.builder, &s.metas))
	s.series.Labels, s.series.Chunks = s.builder.Labels(), s.series.Chunks[:0]
	for _, m := range s.metas {
		c, _, err := s.chunks.ChunkOrIterable(m)
		s.must(err)
		s.series.Chunks = append(s.series.Chunks, series.Chunk{
			MinTime: m.MinTime, MaxTime: m.MaxTime, Resolution: int64(s.meta.Resolution()), Encoding: c.Encoding(), Data: c.Bytes(),
		})
		s.must(s.pool.Put(c))
	}
	return true
}

func (s *blockSet) At() *series.Series                { return &s.series }
func (s *blockSet) Err() error                        { return s.postings.Err() }
func (s *blockSet) Warnings() annotations.Annotations { return nil }

// blockOutput is a block that is being written, as the compactor does it.
type blockOutput struct {
	testing.TB
	*blockwriter.Writer

	dir string
	res block.Resolution
}

func createBlock(t testing.TB, dir string, names index.StringIter, res block.Resolution) blockOutput {
	t.Helper()
	symbols := blockwriter.NewSymbols()
	if err := symbols.AddAll(names); err != nil {
		t.Fatal(err)
	}
	w, err := blockwriter.New(blockwriter.Dir(dir), blockwriter.Defaults(), symbols)
	if err != nil {
		t.Fatal(err)
	}
	return blockOutput{t, w, dir, res}
}

func (o blockOutput) close() {
	o.Helper()
	written, err := o.Close()
	if err != nil {
		o.Fatal(err)
	}
	m := block.Meta{ULID: ulid.MustNew(uint64(start), ulid.DefaultEntropy()), Version: 1, MinTime: written.MinTime, MaxTime: written.MaxTime + 1}
	m.Thanos = block.Thanos{Version: 1, Labels: map[string]string{"cluster": "a"}, Downsample: block.Downsample{Resolution: o.res}, Source: block.SourceCompactor}
	data, err := json.Marshal(m)
	if err := errors.Join(err, os.WriteFile(filepath.Join(o.dir, "meta.json"), data, 0o600)); err != nil {
		o.Fatal(err)
	}
}

// sameBlocks compares what readers get from both, window by window.
func sameBlocks(t testing.TB, gotDir, wantDir string, res block.Resolution) {
	t.Helper()
	got, want := openBlock(t, gotDir), openBlock(t, wantDir)
	count, windows := 0, 0
	for ; got.Next(); count++ {
		if !want.Next() || !labels.Equal(got.At().Labels, want.At().Labels) {
			t.Fatalf("series %d: got %s, peer has %s", count, got.At().Labels, want.At().Labels)
		}
		windows += sameSeries(t, got.At(), want.At().Chunks, res)
	}
	if want.Next() {
		t.Fatalf("the peer goes on with %s", want.At().Labels)
	}
	t.Logf("%d windows of %d series are those of the peer", windows, count)
}

// sameSeries returns how many windows it has compared.
func sameSeries(t testing.TB, s *series.Series, peer []series.Chunk, res block.Resolution) int {
	t.Helper()
	k, _, err := look(s.Chunks[0])
	if err != nil {
		t.Fatal(err)
	}
	if k == coarseHistograms {
		got := readHistograms(t, s.Chunks, res)
		sameHistograms(t, s.Labels.String(), got, readHistograms(t, peer, res))
		return len(got)
	}
	got, want := byEnd(read(t, s.Chunks), res), byEnd(read(t, peer), res)
	if len(got) != len(want) {
		t.Fatalf("windows of %s: got %d, peer has %d", s.Labels, len(got), len(want))
	}
	for end, g := range got {
		if w := want[end]; g.count != w.count || g.min != w.min || g.max != w.max || !near(g.sum, w.sum, g.sum) || !near(g.counter, w.counter, g.counter) {
			t.Fatalf("%s, window to %d:\n got %+v\npeer %+v", s.Labels, end, g, w)
		}
	}
	return len(got)
}
