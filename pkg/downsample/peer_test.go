package downsample

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
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
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/series"
)

// peerVar names a program that downsamples a block: it is called with the
// block's directory, a resolution in milliseconds and an output directory, where
// it leaves the new block, and prints {"cpu_ns":…,"samples":…}.
const peerVar = "VARVE_PEER_DOWNSAMPLE"

// BenchmarkBlock downsamples blocks on disk, files read and written included,
// beside a peer where there is one, and compares what readers get from both.
func BenchmarkBlock(b *testing.B) {
	const weeks, count = 2, 40
	for _, shape := range shapes() {
		var in []series.Series
		for i := range count {
			in = append(in, series.Series{
				Labels: labels.FromStrings("__name__", shape.name, "instance", fmt.Sprintf("host-%03d", i)),
				Chunks: shape.series(b, uint64(i), weeks*week),
			})
		}
		raw, fine := b.TempDir(), b.TempDir()
		writeBlock(b, raw, in, block.Raw)
		downsampleBlock(b, raw, fine, block.FiveMin)
		for _, bm := range []struct {
			name, from string
			to         block.Resolution
		}{{"5m", raw, block.FiveMin}, {"1h", fine, block.OneHour}} {
			b.Run(shape.name+"/"+bm.name, func(b *testing.B) { besidePeer(b, bm.from, bm.to) })
		}
	}
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
func downsampleBlock(t testing.TB, from, to string, res block.Resolution) (used time.Duration, samples int) {
	t.Helper()
	for _, s := range readBlock(t, from) {
		for _, c := range s.Chunks {
			samples += sampleCount(c)
		}
	}
	runtime.GC()
	before := cpuTime(t)
	var w seriesWriter
	if err := Run(t.Context(), series.NewSet(readBlock(t, from), nil), &w, res); err != nil {
		t.Fatal(err)
	}
	writeBlock(t, to, w.all, res)
	return cpuTime(t) - before, samples
}

type seriesWriter struct{ all []series.Series }

func (w *seriesWriter) AddSeries(s *series.Series) error {
	w.all = append(w.all, series.Series{Labels: s.Labels, Chunks: append([]series.Chunk(nil), s.Chunks...)})
	return nil
}

// readBlock returns all series of a block, whose bytes alias its files until the test ends.
func readBlock(t testing.TB, dir string) (out []series.Series) {
	t.Helper()
	ir, err := index.NewFileReader(filepath.Join(dir, "index"), index.DecodePostingsRaw)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closing(t, ir.Close) })
	cr, err := chunks.NewDirReader(filepath.Join(dir, "chunks"), aggrchunk.NewPool())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closing(t, cr.Close) })
	meta := block.Meta{}
	data, err := os.ReadFile(filepath.Join(dir, "meta.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &meta); err != nil {
		t.Fatal(err)
	}
	name, value := index.AllPostingsKey()
	p, err := ir.Postings(context.Background(), name, value)
	if err != nil {
		t.Fatal(err)
	}
	var sb labels.ScratchBuilder
	var metas []chunks.Meta
	for p.Next() {
		if err := ir.Series(p.At(), &sb, &metas); err != nil {
			t.Fatal(err)
		}
		s := series.Series{Labels: sb.Labels(), Chunks: make([]series.Chunk, 0, len(metas))}
		for _, m := range metas {
			c, _, err := cr.ChunkOrIterable(m)
			if err != nil {
				t.Fatal(err)
			}
			s.Chunks = append(s.Chunks, series.Chunk{
				MinTime: m.MinTime, MaxTime: m.MaxTime, Resolution: int64(meta.Resolution()),
				Encoding: c.Encoding(), Data: c.Bytes(),
			})
		}
		out = append(out, s)
	}
	if p.Err() != nil {
		t.Fatal(p.Err())
	}
	return out
}

// writeBlock writes a block as Prometheus and Thanos read it.
func writeBlock(t testing.TB, dir string, all []series.Series, res block.Resolution) {
	t.Helper()
	meta := block.Meta{ULID: ulid.MustNew(uint64(start), ulid.DefaultEntropy()), Version: 1, MinTime: math.MaxInt64}
	meta.Thanos = block.Thanos{Version: 1, Labels: map[string]string{"cluster": "a"}, Downsample: block.Downsample{Resolution: res}, Source: block.SourceCompactor}
	cw, err := chunks.NewWriter(filepath.Join(dir, "chunks"))
	if err != nil {
		t.Fatal(err)
	}
	iw, err := index.NewWriter(context.Background(), filepath.Join(dir, "index"))
	if err != nil {
		t.Fatal(err)
	}
	for _, symbol := range symbols(all) {
		if err := iw.AddSymbol(symbol); err != nil {
			t.Fatal(err)
		}
	}
	for i, s := range all {
		var metas []chunks.Meta
		for _, c := range s.Chunks {
			chk, err := c.Open()
			if err != nil {
				t.Fatal(err)
			}
			metas = append(metas, chunks.Meta{Chunk: chk, MinTime: c.MinTime, MaxTime: c.MaxTime})
			meta.MinTime, meta.MaxTime = min(meta.MinTime, c.MinTime), max(meta.MaxTime, c.MaxTime+1)
		}
		if err := cw.WriteChunks(metas...); err != nil {
			t.Fatal(err)
		}
		if err := iw.AddSeries(storage.SeriesRef(i), s.Labels, metas...); err != nil {
			t.Fatal(err)
		}
	}
	closing(t, cw.Close)
	closing(t, iw.Close)
	data, err := json.Marshal(meta)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "meta.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func closing(t testing.TB, do func() error) {
	t.Helper()
	if err := do(); err != nil {
		t.Fatal(err)
	}
}

// symbols are the strings of all labels, sorted.
func symbols(all []series.Series) []string {
	set := map[string]struct{}{}
	for _, s := range all {
		s.Labels.Range(func(l labels.Label) {
			set[l.Name], set[l.Value] = struct{}{}, struct{}{}
		})
	}
	return slices.Sorted(maps.Keys(set))
}

// sameBlocks compares what readers get from both, window by window.
func sameBlocks(t testing.TB, gotDir, wantDir string, res block.Resolution) {
	t.Helper()
	got, want := readBlock(t, gotDir), readBlock(t, wantDir)
	if len(got) != len(want) {
		t.Fatalf("series: got %d, peer has %d", len(got), len(want))
	}
	windows := 0
	for i, s := range got {
		if !labels.Equal(s.Labels, want[i].Labels) {
			t.Fatalf("series %d: got %s, peer has %s", i, s.Labels, want[i].Labels)
		}
		k, err := kindOf(s.Chunks[0])
		if err != nil {
			t.Fatal(err)
		}
		if k == coarseHistograms {
			g, w := readHistograms(t, s.Chunks, res), readHistograms(t, want[i].Chunks, res)
			sameHistograms(t, s.Labels.String(), g, w)
			windows += len(g)
			continue
		}
		g, w := byEnd(read(t, s.Chunks), res), byEnd(read(t, want[i].Chunks), res)
		if len(g) != len(w) {
			t.Fatalf("windows of %s: got %d, peer has %d", s.Labels, len(g), len(w))
		}
		for end, a := range g {
			if b := w[end]; a.count != b.count || a.min != b.min || a.max != b.max || !near(a.sum, b.sum, a.sum) || !near(a.counter, b.counter, a.counter) {
				t.Fatalf("%s, window to %d:\n got %+v\npeer %+v", s.Labels, end, a, b)
			}
		}
		windows += len(g)
	}
	t.Logf("%d windows of %d series are those of the peer", windows, len(got))
}
