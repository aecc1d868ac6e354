package blockscan_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/blockscan"
	"github.com/varve-io/varve/pkg/series"
)

// written makes a block whose chunks lie in several segments, as meta.json says.
func written(t *testing.T, o blocktest.Spec) (dir string, meta *block.Meta) {
	t.Helper()
	o.Labels = map[string]string{"cluster": "eu"}
	dir, meta = blocktest.Breakable(t, o)
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

// TestEveryDamageIsNamed breaks one thing of a block at a time. Each is found where
// it is, and all else can be read: kept counts the series that come out complete.
func TestEveryDamageIsNamed(t *testing.T) {
	source, intact := written(t, blocktest.Spec{})
	expected := map[string]struct {
		want []string // kind, file and offset of findings, or their beginnings
		kept int
	}{
		"a chunk's byte":            {[]string{"checksum chunks/000002 8 "}, 3},
		"a chunk that is none":      {[]string{"malformed chunks/000001 8 "}, 3},
		"a chunk's length":          {[]string{"checksum chunks/000001 8 "}, 3},
		"a truncated segment":       {[]string{"truncated chunks/000002 8 ", "size chunks/000002 -1 "}, 3},
		"an empty segment":          {[]string{"magic chunks/000002 0 "}, 3},
		"a missing segment":         {[]string{"missing chunks/000002 -1 "}, 3},
		"the magic of a segment":    {[]string{"magic chunks/000002 0 "}, 4},
		"the version of a segment":  {[]string{"magic chunks/000002 0 "}, 4},
		"all segments":              {[]string{"missing chunks/000001 -1 "}, 0},
		"no index":                  {[]string{"missing index -1 "}, 0},
		"an empty index":            {[]string{"truncated index 0 "}, 0},
		"the magic of the index":    {[]string{"magic index 0 "}, 4},
		"the version of the index":  {[]string{"magic index 4 "}, 0},
		"a symbol":                  {[]string{"checksum index 5 symbol table: checksum "}, 4},
		"the length of the symbols": {[]string{"truncated index 5 "}, 4},
		"the number of symbols":     {[]string{"malformed index 5 "}, 4},
		"a series entry":            {[]string{"checksum index "}, 3},
		"the length of a series":    {[]string{"checksum index "}, 3},
		"the table of contents":     {[]string{"truncated index "}, 4},
		"an index cut in postings":  {[]string{"truncated index "}, 4},
		"an index cut in series":    {[]string{"truncated index "}, 2},
		"an index cut in symbols":   {[]string{"truncated index 5 "}, 0},
		"postings":                  {[]string{"checksum index "}, 4},
		"the table of postings":     {[]string{"checksum index "}, 4},
		"a label that is another":   {[]string{"duplicate index ", "postings index "}, 4},
		"series out of order":       {[]string{"order index "}, 4},
		"a symbol that is not":      {[]string{"malformed index "}, 3},
		"another time range":        {[]string{"outside chunks/"}, 4},
		"other counts":              {[]string{"count meta.json -1 "}, 4},
		"times of another chunk":    {[]string{"outside chunks/"}, 4},
		"chunks that lie elsewhere": {[]string{"missing chunks/"}, 3},
		"chunks out of order":       {[]string{"order index "}, 4},
		"a chunk twice":             {[]string{"overlap index "}, 4},
		"a chunk of absurd times":   {[]string{"outside chunks/"}, 4},
		"samples out of order":      {[]string{"malformed chunks/"}, 3},
		"a chunk of no encoding":    {[]string{"malformed chunks/000001 8 "}, 3},
		"labels out of order":       {[]string{"order index "}, 4},
	}
	for _, damage := range blocktest.Corpus() {
		t.Run(damage.Name, func(t *testing.T) {
			tc, ok := expected[damage.Name]
			if !ok {
				t.Fatal("nobody says what is to be found")
			}
			dir, meta := t.TempDir(), *intact
			if err := os.CopyFS(dir, os.DirFS(source)); err != nil {
				t.Fatal(err)
			}
			before := strings.Split(blocktest.Text(blocktest.Read(t, dir)), "\n")
			damage.Break(blocktest.Damaged{T: t, Dir: dir, Meta: &meta})

			var found []string
			for _, f := range verify(t, dir, &meta) {
				found = append(found, fmt.Sprintf("%s %s %d %s", f.Kind, f.File, f.Offset, f.Detail))
			}
			for _, want := range tc.want {
				if !slices.ContainsFunc(found, func(f string) bool { return strings.HasPrefix(f, want) }) {
					t.Errorf("no finding %q in\n%s", want, strings.Join(found, "\n"))
				}
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
