package blockscan_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/blockscan"
	"github.com/varve-io/varve/pkg/series"
)

// load has four series of more than one chunk, floats and histograms.
const load = `load 15s
  requests{pod="a"} 1+1x300
  requests{pod="b"} 2+1x300
  requests{pod="c"} 3+1x300
  latency{pod="a"} {{schema:0 count:5 sum:7 buckets:[1 2 2]}}x150
`

// written makes a block whose chunks lie in several segments, as meta.json says.
func written(t *testing.T, o blocktest.Spec) (dir string, meta *block.Meta) {
	t.Helper()
	if o.Load == "" {
		o.Load = load
	}
	o.Labels = map[string]string{"cluster": "eu"}
	dir, meta = blocktest.Dir(t, o)
	blocktest.Segmented(t, dir, 400)
	list(t, dir, meta)
	return dir, meta
}

// list writes the files of the block into its meta.
func list(t *testing.T, dir string, meta *block.Meta) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, block.ChunksDir, "*"))
	if err != nil || len(names) < 3 {
		t.Fatalf("%d segments, want at least 3: %v", len(names), err)
	}
	for _, name := range append(names, filepath.Join(dir, block.IndexFile)) {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		rel, _ := filepath.Rel(dir, name)
		meta.Thanos.Files = append(meta.Thanos.Files, block.File{RelPath: filepath.ToSlash(rel), SizeBytes: info.Size()})
	}
}

// verify returns what is found, sorted by place.
func verify(t *testing.T, dir string, meta *block.Meta) []blockscan.Finding {
	t.Helper()
	b, err := blockscan.Open(dir, meta)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var all []blockscan.Finding
	if _, err := b.Verify(t.Context(), func(f blockscan.Finding) { all = append(all, f) }); err != nil {
		t.Fatal(err)
	}
	return all
}

// read returns the samples that a scan hands out, and what it says is lost.
func read(t *testing.T, dir string, meta *block.Meta) (string, []blockscan.Loss) {
	t.Helper()
	b, err := blockscan.Open(dir, meta)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	s := b.Scan(t.Context(), func(blockscan.Finding) {})
	var out []blocktest.Series
	var lost []blockscan.Loss
	for s.Next() {
		out = append(out, samples(t, s.At()))
		lost = append(lost, s.Lost()...)
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	return blocktest.Text(out), lost
}

func samples(t *testing.T, s *series.Series) blocktest.Series {
	t.Helper()
	out := blocktest.Series{Labels: s.Labels}
	it := series.Samples(s.Chunks, 0, 1<<60, nil)
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		p := blocktest.Sample{T: it.AtT()}
		switch kind {
		case chunkenc.ValFloat:
			_, p.V = it.At()
		case chunkenc.ValHistogram:
			_, p.H = it.AtHistogram(nil)
		case chunkenc.ValFloatHistogram:
			_, p.FH = it.AtFloatHistogram(nil)
		}
		out.Samples = append(out.Samples, p)
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestABlockInOrderHasNoFinding(t *testing.T) {
	for _, encoding := range []blocktest.Chunks{blocktest.Classic, blocktest.XOR2, blocktest.WithStart} {
		dir, meta := written(t, blocktest.Spec{Chunks: encoding})
		if got := verify(t, dir, meta); len(got) != 0 {
			t.Errorf("encoding %d: found %v", encoding, got)
		}
		got, lost := read(t, dir, meta)
		if want := blocktest.Text(blocktest.Read(t, dir)); got != want || len(lost) != 0 {
			t.Errorf("encoding %d: read\n%s\nwant\n%s\nlost %v", encoding, got, want, lost)
		}
	}
}

// tables gives the table of contents of a block's index.
func toc(t *testing.T, dir string) *index.TOC {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, block.IndexFile))
	if err != nil {
		t.Fatal(err)
	}
	toc, err := index.NewTOCFromByteSlice(bytesOf(data))
	if err != nil {
		t.Fatal(err)
	}
	return toc
}

type bytesOf []byte

func (b bytesOf) Len() int                    { return len(b) }
func (b bytesOf) Range(start, end int) []byte { return b[start:end] }

// truncate leaves a file its first n bytes.
func truncate(t *testing.T, dir, rel string, n int64) {
	t.Helper()
	if err := os.Truncate(filepath.Join(dir, rel), n); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, dir, rel string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(dir, rel)); err != nil {
		t.Fatal(err)
	}
}

func flip(t *testing.T, dir, rel string, offset int64) {
	t.Helper()
	blocktest.Flip(t, filepath.Join(dir, rel), offset)
}

// target is a block to be broken.
type target struct {
	t    *testing.T
	dir  string
	meta *block.Meta
}

// TestEveryDamageIsNamed breaks one thing of a block at a time. Each is found where
// it is, and all else can be read: kept counts the series that come out complete.
func TestEveryDamageIsNamed(t *testing.T) {
	const second = "chunks/000002"
	source, intact := written(t, blocktest.Spec{})
	for name, tc := range map[string]struct {
		damage func(d target)
		want   string // kind, file and offset of a finding, or its beginning
		kept   int
	}{
		"a chunk's byte":            {func(d target) { flip(d.t, d.dir, second, 20) }, "checksum chunks/000002 8 ", 3},
		"a chunk's length":          {func(d target) { flip(d.t, d.dir, "chunks/000001", 8) }, "checksum chunks/000001 8 ", 3},
		"a truncated segment":       {func(d target) { truncate(d.t, d.dir, second, 50) }, "truncated chunks/000002 8 ", 3},
		"the size of a segment":     {func(d target) { truncate(d.t, d.dir, second, 50) }, "size chunks/000002 -1 ", 3},
		"an empty segment":          {func(d target) { truncate(d.t, d.dir, second, 0) }, "magic chunks/000002 0 ", 3},
		"a missing segment":         {func(d target) { remove(d.t, d.dir, second) }, "missing chunks/000002 -1 ", 3},
		"the magic of a segment":    {func(d target) { flip(d.t, d.dir, second, 0) }, "magic chunks/000002 0 ", 4},
		"the version of a segment":  {func(d target) { flip(d.t, d.dir, second, 4) }, "magic chunks/000002 0 ", 4},
		"all segments":              {func(d target) { remove(d.t, d.dir, "chunks") }, "missing chunks/000001 -1 ", 0},
		"no index":                  {func(d target) { remove(d.t, d.dir, "index") }, "missing index -1 ", 0},
		"an empty index":            {func(d target) { truncate(d.t, d.dir, "index", 0) }, "truncated index 0 ", 0},
		"the magic of the index":    {func(d target) { flip(d.t, d.dir, "index", 0) }, "magic index 0 ", 4},
		"the version of the index":  {func(d target) { flip(d.t, d.dir, "index", 4) }, "magic index 4 ", 0},
		"a symbol":                  {func(d target) { flip(d.t, d.dir, "index", 16) }, "checksum index 5 ", 0},
		"a series entry":            {func(d target) { flip(d.t, d.dir, "index", blocktest.SeriesEntries(d.t, d.dir)[1]+3) }, "checksum index ", 3},
		"the length of a series":    {func(d target) { flip(d.t, d.dir, "index", blocktest.SeriesEntries(d.t, d.dir)[2]) }, "checksum index ", 3},
		"the table of contents":     {func(d target) { flip(d.t, d.dir, "index", tocAt(d.t, d.dir)+10) }, "truncated index ", 4},
		"an index cut in postings":  {func(d target) { truncate(d.t, d.dir, "index", int64(toc(d.t, d.dir).Postings)+9) }, "truncated index ", 4},
		"an index cut in series":    {func(d target) { truncate(d.t, d.dir, "index", blocktest.SeriesEntries(d.t, d.dir)[2]+5) }, "truncated index ", 2},
		"an index cut in symbols":   {func(d target) { truncate(d.t, d.dir, "index", 20) }, "truncated index 5 ", 0},
		"postings":                  {func(d target) { flip(d.t, d.dir, "index", int64(toc(d.t, d.dir).Postings)+9) }, "checksum index ", 4},
		"the table of postings":     {func(d target) { flip(d.t, d.dir, "index", int64(toc(d.t, d.dir).PostingsTable)+9) }, "checksum index ", 4},
		"a label that is another":   {func(d target) { renamed(d.t, d.dir, 2, 1) }, "duplicate index ", 4},
		"series out of order":       {func(d target) { renamed(d.t, d.dir, 1, 3) }, "order index ", 4},
		"postings that are not so":  {func(d target) { renamed(d.t, d.dir, 2, 1) }, "postings index ", 4},
		"a symbol that is not":      {func(d target) { symbol(d.t, d.dir, 1, 100) }, "malformed index ", 3},
		"another time range":        {func(d target) { d.meta.MaxTime = 600_000 }, "outside chunks/", 4},
		"other counts":              {func(d target) { d.meta.Stats.NumSamples++ }, "count meta.json -1 ", 4},
		"times of another chunk":    {func(d target) { shifted(d.t, d.dir) }, "outside chunks/", 4},
		"chunks that lie elsewhere": {func(d target) { elsewhere(d.t, d.dir) }, "missing chunks/", 3},
	} {
		t.Run(name, func(t *testing.T) {
			dir, meta := t.TempDir(), *intact
			if err := os.CopyFS(dir, os.DirFS(source)); err != nil {
				t.Fatal(err)
			}
			before := strings.Split(blocktest.Text(blocktest.Read(t, dir)), "\n")
			tc.damage(target{t, dir, &meta})

			var found []string
			for _, f := range verify(t, dir, &meta) {
				found = append(found, fmt.Sprintf("%s %s %d %s", f.Kind, f.File, f.Offset, f.Detail))
			}
			if !slices.ContainsFunc(found, func(f string) bool { return strings.HasPrefix(f, tc.want) }) {
				t.Errorf("no finding %q in\n%s", tc.want, strings.Join(found, "\n"))
			}
			got, lost := read(t, dir, &meta)
			kept := 0
			for line := range strings.SplitSeq(got, "\n") {
				if _, samples, ok := strings.Cut(line, "} "); ok && slices.ContainsFunc(before, func(l string) bool { return strings.HasSuffix(l, "} "+samples) }) {
					kept++
				}
			}
			if kept != tc.kept {
				t.Errorf("%d series came out complete, want %d; lost %v\nfound %s", kept, tc.kept, lost, strings.Join(found, "\n"))
			}
		})
	}
}

func tocAt(t *testing.T, dir string) int64 {
	t.Helper()
	info, err := os.Stat(filepath.Join(dir, block.IndexFile))
	if err != nil {
		t.Fatal(err)
	}
	return info.Size() - 52
}

// renamed gives one series the labels of another; both have two.
func renamed(t *testing.T, dir string, series, as int) {
	t.Helper()
	entries := blocktest.SeriesEntries(t, dir)
	var other []byte
	blocktest.Patch(t, dir, entries[as], func(c []byte) { other = slices.Clone(c[:5]) })
	blocktest.Patch(t, dir, entries[series], func(c []byte) { copy(c, other) })
}

// symbol makes the first label of a series refer to another string.
func symbol(t *testing.T, dir string, series int, ref byte) {
	t.Helper()
	blocktest.Patch(t, dir, blocktest.SeriesEntries(t, dir)[series], func(c []byte) { c[1] = ref })
}

// shifted lets the first series' first chunk begin a millisecond later.
func shifted(t *testing.T, dir string) {
	t.Helper()
	blocktest.Patch(t, dir, blocktest.SeriesEntries(t, dir)[0], func(c []byte) { c[6] += 2 }) // behind labels and count
}

// elsewhere lets the first series' first chunk lie in a segment that there is not.
func elsewhere(t *testing.T, dir string) {
	t.Helper()
	blocktest.Patch(t, dir, blocktest.SeriesEntries(t, dir)[3], func(c []byte) {
		_, n := binary.Uvarint(c[7:])
		_, m := binary.Uvarint(c[7+n:])
		c[7+n+m-1] = 0x7f // the highest bits of the reference
	})
}

func TestWhatIsLostIsNamedBySeriesAndTime(t *testing.T) {
	dir, meta := written(t, blocktest.Spec{})
	blocktest.Flip(t, filepath.Join(dir, "chunks/000002"), 20)
	_, lost := read(t, dir, meta)
	if len(lost) != 1 || lost[0].File != "chunks/000002" || lost[0].Offset != 8 || lost[0].Duration() <= 0 || !meta.TimeRange().Covers(lost[0].TimeRange) {
		t.Errorf("lost %+v, want one chunk at 8 of chunks/000002", lost)
	}
}

func TestAScanEndsWithItsContext(t *testing.T) {
	dir, meta := written(t, blocktest.Spec{})
	b, err := blockscan.Open(dir, meta)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Verify(ctx, func(blockscan.Finding) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

// FuzzDamage changes bytes anywhere in a block: nothing may panic, and what the scan
// calls readable was written so.
func FuzzDamage(f *testing.F) {
	dir, meta := blocktest.Dir(f, blocktest.Spec{Load: "load 15s\n  a{b=\"c\"} 1+1x20\n  a{b=\"d\"} 1+1x20", Labels: map[string]string{"cluster": "eu"}})
	original := map[string][]byte{}
	for _, rel := range []string{"index", "chunks/000001"} {
		data, err := os.ReadFile(filepath.Join(dir, rel))
		if err != nil {
			f.Fatal(err)
		}
		original[rel] = data
	}
	known := map[string]bool{}
	for _, s := range blocktest.Read(f, dir) {
		known[s.Labels.String()] = true
	}
	f.Add(true, uint16(40), byte(1), uint16(0))
	f.Add(false, uint16(20), byte(1), uint16(7))
	f.Fuzz(func(t *testing.T, inIndex bool, offset uint16, change byte, cut uint16) {
		rel := "chunks/000001"
		if inIndex {
			rel = "index"
		}
		out := t.TempDir()
		if err := os.CopyFS(out, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		data := slices.Clone(original[rel])
		data[int(offset)%len(data)] ^= change
		data = data[:len(data)-int(cut)%len(data)]
		if err := os.WriteFile(filepath.Join(out, rel), data, 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := blockscan.Open(out, meta)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		found := 0
		stats, err := b.Verify(t.Context(), func(blockscan.Finding) { found++ })
		if err != nil {
			t.Fatal(err)
		}
		damaged := !slices.Equal(data, original[rel])
		if intact := stats.NumSeries == 2 && stats.NumSamples == 42; !intact && found == 0 {
			t.Errorf("damaged: %t, read %+v, and nothing was found", damaged, stats)
		}
		s := b.Scan(t.Context(), func(blockscan.Finding) {})
		for s.Next() {
			if !known[s.At().Labels.String()] {
				t.Errorf("series %s was never written", s.At().Labels)
			}
		}
	})
}
