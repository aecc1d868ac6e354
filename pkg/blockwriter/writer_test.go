package blockwriter_test

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockwriter"
	"github.com/varve-io/varve/pkg/series"
)

// budgets are settings under which postings stay in memory, go to disk in part,
// and go there entirely, with lists filled all at once, some at a time and one by one.
func budgets(t *testing.T) map[string]blockwriter.Options {
	t.Helper()
	out := map[string]blockwriter.Options{}
	for name, memory := range map[string]int64{"all in memory": 64 << 20, "lists in turns": 20 << 10, "nothing in memory": 0} {
		o := blockwriter.Defaults()
		o.Memory, o.TempDir = memory, t.TempDir()
		out[name] = o
	}
	return out
}

func TestFilesAreThoseOfPrometheusWriter(t *testing.T) {
	for name, o := range budgets(t) {
		t.Run(name, func(t *testing.T) {
			for seed, n := range []int{0, 1, 2, 50, 3000} {
				all := randomSeries(t, n, uint64(seed))
				symbols := symbolsOf(all, "nobody uses me", "")
				dir := t.TempDir()
				writePrometheus(t, dir, all, symbols)

				// Sources know some symbols each, and many in common.
				var sources [][]string
				for part := range 3 {
					mine := slices.DeleteFunc(slices.Clone(symbols), func(s string) bool { return (len(s)+part)%3 == 0 })
					sources = append(sources, mine)
				}
				got := newMemory()
				write(t, got, o, all, table(t, sources...))

				if want := readFile(t, dir, "index"); !bytes.Equal(got.done["index"], want) {
					t.Fatalf("%d series: the index of %d bytes is not that of Prometheus with %d, first at %d",
						len(all), len(got.done["index"]), len(want), firstDifference(got.done["index"], want))
				}
				for file, data := range got.done {
					if file != "index" && !bytes.Equal(data, readFile(t, dir, file)) {
						t.Errorf("%d series: %s is not that of Prometheus", len(all), file)
					}
				}
			}
			if left, err := os.ReadDir(o.TempDir); err != nil || len(left) > 0 {
				t.Errorf("temporary files are left: %v %v", left, err)
			}
		})
	}
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// TestPrometheusReadsWhatWasWritten reads blocks of several segments with
// Prometheus' readers, checksums included.
func TestPrometheusReadsWhatWasWritten(t *testing.T) {
	all := randomSeries(t, 2000, 7)
	o := blockwriter.Defaults()
	o.SegmentSize = 100 << 10
	o.Memory = 30 << 10
	dir := t.TempDir()
	result := write(t, blockwriter.Dir(dir), o, all, table(t, symbolsOf(all)))

	ir, err := index.NewFileReader(filepath.Join(dir, "index"), index.DecodePostingsRaw)
	check(t, err)
	defer ir.Close()
	cr, err := chunks.NewDirReader(filepath.Join(dir, "chunks"), aggrchunk.NewPool())
	check(t, err)
	defer cr.Close()

	var want blockwriter.Result
	lists := map[labels.Label][]string{}
	p, err := ir.Postings(t.Context(), "", "")
	check(t, err)
	for i := range all {
		if !p.Next() {
			t.Fatalf("there are only %d series of %d: %v", i, len(all), p.Err())
		}
		var b labels.ScratchBuilder
		var metas []chunks.Meta
		check(t, ir.Series(p.At(), &b, &metas))
		if got := b.Labels(); !labels.Equal(got, all[i].Labels) {
			t.Fatalf("series %d is %s, want %s", i, got, all[i].Labels)
		}
		compareChunks(t, cr, metas, all[i].Chunks)
		all[i].Labels.Range(func(l labels.Label) { lists[l] = append(lists[l], all[i].Labels.String()) })
		want.Stats.NumSeries++
		want.Stats.NumChunks += uint64(len(metas))
	}
	if p.Next() {
		t.Error("there are more series than were written")
	}
	for l, series := range lists {
		if got := seriesOf(t, ir, l); !slices.Equal(got, series) {
			t.Fatalf("postings of %s: got %d series %v, want %d", l, len(got), got, len(series))
		}
	}
	if result.Stats.NumSeries != want.Stats.NumSeries || result.Stats.NumChunks != want.Stats.NumChunks {
		t.Errorf("got stats %+v, want %d series and %d chunks", result.Stats, want.Stats.NumSeries, want.Stats.NumChunks)
	}
	files, err := os.ReadDir(filepath.Join(dir, "chunks"))
	check(t, err)
	for i, f := range files {
		info, err := f.Info()
		check(t, err)
		if block.SegmentFile(i+1) != "chunks/"+f.Name() || info.Size() > o.SegmentSize {
			t.Errorf("segment %d is %s with %d bytes; at most %d are allowed", i+1, f.Name(), info.Size(), o.SegmentSize)
		}
	}
	if len(files) < 3 {
		t.Errorf("got %d segments, want several", len(files))
	}
}

func compareChunks(t *testing.T, cr *chunks.Reader, metas []chunks.Meta, want []series.Chunk) {
	t.Helper()
	if len(metas) != len(want) {
		t.Fatalf("got %d chunks, want %d", len(metas), len(want))
	}
	for i, m := range metas {
		chk, _, err := cr.ChunkOrIterable(m)
		check(t, err)
		w := want[i]
		if m.MinTime != w.MinTime || m.MaxTime != w.MaxTime || chk.Encoding() != w.Encoding || !bytes.Equal(chk.Bytes(), w.Data) {
			t.Fatalf("chunk %d: got %s of %d bytes from %d to %d, want %s of %d bytes from %d to %d", i,
				chk.Encoding(), len(chk.Bytes()), m.MinTime, m.MaxTime, w.Encoding, len(w.Data), w.MinTime, w.MaxTime)
		}
	}
}

// seriesOf are the labels of all series in the postings of a label.
func seriesOf(t *testing.T, ir *index.Reader, l labels.Label) []string {
	t.Helper()
	p, err := ir.Postings(t.Context(), l.Name, l.Value)
	check(t, err)
	var all []string
	for p.Next() {
		var b labels.ScratchBuilder
		check(t, ir.Series(p.At(), &b, nil))
		all = append(all, b.Labels().String())
	}
	check(t, p.Err())
	return all
}

func TestAChunkLargerThanASegmentHasItsOwn(t *testing.T) {
	r := randomSeries(t, 1, 1)
	pool := map[string]series.Chunk{}
	for name, n := range map[string]int{"small": 2, "large": 120} {
		pool[name] = floats(t, n)
	}
	s := series.Series{Labels: r[0].Labels}
	for i, name := range []string{"small", "large", "small", "small"} {
		c := pool[name]
		c.MinTime, c.MaxTime = int64(i*10), int64(i*10)
		s.Chunks = append(s.Chunks, c)
	}
	o := blockwriter.Defaults()
	o.SegmentSize = 100
	got := newMemory()
	write(t, got, o, []series.Series{s}, table(t, symbolsOf(r)))
	if names := slices.Sorted(maps.Keys(got.done)); !slices.Equal(names, []string{"chunks/000001", "chunks/000002", "chunks/000003", "index"}) {
		t.Errorf("got files %v, want three segments and an index", names)
	}
}

func floats(t *testing.T, samples int) series.Chunk {
	t.Helper()
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	check(t, err)
	for i := range samples {
		app.Append(0, int64(i), float64(i)/3)
	}
	return series.Chunk{Encoding: chunkenc.EncXOR, Data: c.Bytes()}
}

func TestResultCountsWhatWasWritten(t *testing.T) {
	ls := func(n int) labels.Labels { return labels.FromStrings("__name__", "up", "n", strconv.Itoa(n)) }
	at := func(c series.Chunk, minTime, maxTime int64) series.Chunk {
		c.MinTime, c.MaxTime = minTime, maxTime
		return c
	}
	hist := randomChunk(t, nil, chunkenc.EncHistogram, 40)
	large := floats(t, 100)
	all := []series.Series{
		{Labels: ls(1), Chunks: []series.Chunk{at(floats(t, 3), 5, 9), at(large, 10, 900)}},
		{Labels: ls(2)},
		{Labels: ls(3), Chunks: []series.Chunk{at(hist, -7, 4)}},
	}
	got := write(t, newMemory(), blockwriter.Defaults(), all, table(t, symbolsOf(all)))
	want := blockwriter.Result{
		Stats:   block.Stats{NumSamples: 143, NumFloatSamples: 103, NumHistogramSamples: 40, NumSeries: 3, NumChunks: 3},
		MinTime: -7, MaxTime: 900,
		IndexStats: block.IndexStats{
			ChunkMaxSize: int64(2 + 1 + max(len(large.Data), len(hist.Data)) + 4),
			// Of the first: length, number of labels, two labels, number of chunks, two chunks, checksum.
			SeriesMaxSize: 1 + 1 + 2*2 + 1 + (1 + 1 + 1) + (1 + 2 + 1) + 4,
		},
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestRefusals(t *testing.T) {
	up := labels.FromStrings("__name__", "up", "a", "1")
	chunk := func(minTime, maxTime int64) series.Chunk {
		c := floats(t, 2)
		c.MinTime, c.MaxTime = minTime, maxTime
		return c
	}
	unsorted := labels.NewScratchBuilder(2)
	unsorted.Add("a", "1")
	unsorted.Add("__name__", "up")
	for name, tc := range map[string]struct {
		series []series.Series
		want   string
	}{
		"a series twice":             {[]series.Series{{Labels: up}, {Labels: up}}, "after the series before"},
		"a lower series":             {[]series.Series{{Labels: up}, {Labels: labels.FromStrings("__name__", "down")}}, "after the series before"},
		"a prefix of the one before": {[]series.Series{{Labels: up}, {Labels: labels.FromStrings("__name__", "up")}}, "after the series before"},
		"no labels":                  {[]series.Series{{}}, "after the series before"},
		"labels out of order":        {[]series.Series{{Labels: unsorted.Labels()}}, "not sorted"},
		"a value without a symbol":   {[]series.Series{{Labels: labels.FromStrings("a", "unknown")}}, "symbol table"},
		"a name without a symbol":    {[]series.Series{{Labels: labels.FromStrings("unknown", "1")}}, "symbol table"},
		"overlapping chunks":         {[]series.Series{{Labels: up, Chunks: []series.Chunk{chunk(1, 5), chunk(5, 6)}}}, "before the one before ends"},
		"a chunk that ends early":    {[]series.Series{{Labels: up, Chunks: []series.Chunk{chunk(2, 1)}}}, "before it begins"},
		"a damaged chunk":            {[]series.Series{{Labels: up, Chunks: []series.Chunk{{Encoding: chunkenc.EncXOR, Data: []byte{9}}}}}, "invalid"},
		"an unknown encoding":        {[]series.Series{{Labels: up, Chunks: []series.Chunk{{Encoding: 77, Data: []byte{0, 1, 2}}}}}, "invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			files := newMemory()
			symbols := []string{"1", "__name__", "a", "down", "up"}
			w, err := blockwriter.New(files, blockwriter.Defaults(), table(t, symbols))
			check(t, err)
			for i := range tc.series[:len(tc.series)-1] {
				check(t, w.AddSeries(&tc.series[i]))
			}
			err = w.AddSeries(&tc.series[len(tc.series)-1])
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got error %v, want one about %q", err, tc.want)
			}
			if again := w.AddSeries(&series.Series{Labels: up}); !errors.Is(again, err) {
				t.Errorf("after an error: got %v, want the same", again)
			}
			if _, closed := w.Close(); !errors.Is(closed, err) {
				t.Errorf("close after an error: got %v, want the same", closed)
			}
			if len(files.done) > 0 || len(files.open) > 0 {
				t.Errorf("files are complete (%d) or open (%d)", len(files.done), len(files.open))
			}
		})
	}
}

// TestABrokenPlaceLeavesNothingOpen breaks writing after every so many bytes.
func TestABrokenPlaceLeavesNothingOpen(t *testing.T) {
	all := randomSeries(t, 400, 3)
	symbols := symbolsOf(all)
	o := blockwriter.Defaults()
	o.SegmentSize, o.Memory, o.TempDir = 50<<10, 0, t.TempDir()
	whole := newMemory()
	write(t, whole, o, all, table(t, symbols))
	total := 0
	for _, data := range whole.done {
		total += len(data)
	}
	errFull := errors.New("no space left")
	for left := 0; left < total; left += total/50 + 1 {
		files := newMemory()
		files.broken, files.left = errFull, left
		w, err := blockwriter.New(files, o, table(t, symbols))
		check(t, err)
		for i := range all {
			if err = w.AddSeries(&all[i]); err != nil {
				break
			}
		}
		if err == nil {
			_, err = w.Close()
		} else {
			w.Abort()
		}
		if !errors.Is(err, errFull) {
			t.Fatalf("broken after %d of %d bytes: got error %v", left, total, err)
		}
		if len(files.open) > 0 || files.done["index"] != nil {
			t.Fatalf("broken after %d of %d bytes: %d files are open, complete are %v", left, total, len(files.open), slices.Collect(maps.Keys(files.done)))
		}
	}
	if left, err := os.ReadDir(o.TempDir); err != nil || len(left) > 0 {
		t.Errorf("temporary files are left: %v %v", left, err)
	}
}

func TestDirIsEmptyAfterAbort(t *testing.T) {
	dir := t.TempDir()
	all := randomSeries(t, 100, 4)
	w, err := blockwriter.New(blockwriter.Dir(dir), blockwriter.Defaults(), table(t, symbolsOf(all)))
	check(t, err)
	for i := range all {
		check(t, w.AddSeries(&all[i]))
	}
	w.Abort()
	check(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			t.Errorf("%s is left", path)
		}
		return err
	}))
}

func TestOptionsAreChecked(t *testing.T) {
	for name, o := range map[string]blockwriter.Options{
		"no segment size":         {Memory: 1},
		"segments beyond 32 bits": {SegmentSize: 1 << 33},
		"negative memory":         {SegmentSize: 1, Memory: -1},
	} {
		if _, err := blockwriter.New(newMemory(), o, table(t)); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

// FuzzIndex makes series of a text, a series a line and a label a word, and
// compares the index with Prometheus'.
func FuzzIndex(f *testing.F) {
	f.Add("a=1 b=2\na=1\nb=1 a=3\n", uint16(0))
	f.Add("a=1 b=1 c=1\na=1 b=1 d=1\na=1 c=1\nb=a a=b", uint16(300))
	f.Add("=x y=\n\xff=\x00", uint16(1))
	f.Fuzz(func(t *testing.T, text string, memory uint16) {
		var all []series.Series
		for line := range strings.SplitSeq(text, "\n") {
			byName := map[string]string{}
			for word := range strings.FieldsSeq(line) {
				name, value, _ := strings.Cut(word, "=")
				byName[name] = value
			}
			if len(byName) == 0 {
				continue
			}
			b := labels.NewScratchBuilder(len(byName))
			for name, value := range byName {
				b.Add(name, value)
			}
			b.Sort()
			all = append(all, series.Series{Labels: b.Labels()})
		}
		byLabels := func(a, b series.Series) int { return labels.Compare(a.Labels, b.Labels) }
		slices.SortFunc(all, byLabels)
		all = slices.CompactFunc(all, func(a, b series.Series) bool { return byLabels(a, b) == 0 })

		dir := t.TempDir()
		writePrometheusIndex(t, dir, all, make([][]chunks.Meta, len(all)), symbolsOf(all))
		o := blockwriter.Defaults()
		o.Memory, o.TempDir = int64(memory), t.TempDir()
		got := newMemory()
		write(t, got, o, all, table(t, symbolsOf(all)))
		if want := readFile(t, dir, "index"); !bytes.Equal(got.done["index"], want) {
			t.Fatalf("of %d series: first difference at %d", len(all), firstDifference(got.done["index"], want))
		}
	})
}
