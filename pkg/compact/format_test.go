package compact

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/varve-io/varve/internal/golden"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/bucket"
)

// What a compactor writes is read by other programs, and has to be the same whoever writes it. So these tests
// know nothing of the packages that write: they take files apart as docs/format, Prometheus and Thanos have it.

// written gives the directories of what is made of two replicas of four hours: counter, gauge and a native
// histogram that is reset once, with holes.
func written(t *testing.T) map[block.Resolution]string {
	t.Helper()
	bkt := bucket.NewMemory()
	for _, from := range []int{hour, hour + 2} {
		for _, spec := range []blocktest.Spec{twoHours("a", from, 10, 11, 12, 13, 70, 71, 72), twoHours("b", from, 40, 41, 42, 43)} {
			histograms := blocktest.Series{Labels: labels.FromStrings(labels.MetricName, "h", "x", "3")}
			for _, s := range spec.Series[0].Samples {
				n := uint64(s.T/1000-int64(hour)*3600) % 10_000 // starts again once
				histograms.Samples = append(histograms.Samples, blocktest.Sample{T: s.T, H: &histogram.Histogram{
					Schema: 1, ZeroThreshold: 0.001, Count: 3 * n, Sum: float64(n) * 1.5,
					PositiveSpans: []histogram.Span{{Offset: 1, Length: 2}}, PositiveBuckets: []int64{int64(n), int64(n)},
				}})
			}
			spec.Series = append(spec.Series, histograms)
			blocktest.InBucket(t, bkt, spec)
		}
	}
	if err := executor(t, bkt).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	dirs := map[block.Resolution]string{}
	for _, b := range fetch(t, bkt).Blocks {
		if b.Deletion == nil {
			dirs[b.Meta.Resolution()] = blocktest.Download(t, bkt, b.Meta.ULID)
		}
	}
	if len(dirs) != 3 {
		t.Fatalf("got blocks of resolutions %v, want three", slices.Collect(maps.Keys(dirs)))
	}
	return dirs
}

// TestTheBytesOfBlocks pins names and bytes of what is written. A change that is meant raises writerVersion in pkg/block,
// too: otherwise two versions of the program write different bytes under one name.
func TestTheBytesOfBlocks(t *testing.T) {
	for r, dir := range written(t) {
		var text strings.Builder
		text.Write(readFile(t, dir, block.MetaFile))
		for _, name := range []string{block.IndexFile, "chunks/000001"} {
			content := readFile(t, dir, name)
			fmt.Fprintf(&text, "\n%s: %d bytes, SHA-256 %x\n", name, len(content), sha256.Sum256(content))
		}
		records := segment(t, dir)
		for _, s := range entries(t, dir) {
			fmt.Fprintf(&text, "\n%s\n", s.labels)
			for _, c := range s.chunks {
				data := records[c.Ref].data
				fmt.Fprintf(&text, "  at %d [%d, %d] encoding %02x, %d bytes", c.Ref, c.MinTime, c.MaxTime, records[c.Ref].encoding, len(data))
				if r == block.OneHour {
					fmt.Fprintf(&text, ": %x", data)
				}
				text.WriteByte('\n')
			}
		}
		golden.Check(t, "testdata/"+r.String()+".golden", text.String())
	}
}

// TestBlocksHaveTheFormat looks at what every reader relies on.
func TestBlocksHaveTheFormat(t *testing.T) {
	for r, dir := range written(t) {
		t.Run(r.String(), func(t *testing.T) {
			records := segment(t, dir)
			all := entries(t, dir)
			checkMeta(t, dir, all, records)
			refs := slices.Sorted(maps.Keys(records))
			for i, s := range all {
				if i > 0 && labels.Compare(all[i-1].labels, s.labels) >= 0 {
					t.Errorf("%s comes after %s", s.labels, all[i-1].labels)
				}
				for j, c := range s.chunks {
					if c.Ref != refs[0] {
						t.Fatalf("%s: chunk %d is at %d, the next one of the segment at %d", s.labels, j, c.Ref, refs[0])
					}
					refs = refs[1:]
					if j > 0 && c.MinTime <= s.chunks[j-1].MaxTime || c.MaxTime < c.MinTime {
						t.Errorf("%s: chunk [%d, %d] is out of order", s.labels, c.MinTime, c.MaxTime)
					}
					if r == block.Raw {
						checkRaw(t, c, records[c.Ref])
					} else {
						checkAggregates(t, r, c, records[c.Ref])
					}
				}
			}
			if len(refs) > 0 {
				t.Errorf("%d chunks are of no series", len(refs))
			}
		})
	}
}

// TestPrometheusReadsMergedBlocks opens the merged block as Prometheus does and finds the
// samples of a replica, and in its holes the other's.
func TestPrometheusReadsMergedBlocks(t *testing.T) {
	var got []string
	for _, s := range blocktest.Read(t, written(t)[block.Raw]) {
		times := map[int64]int{}
		for _, p := range s.Samples {
			times[p.T%60_000]++
		}
		got = append(got, fmt.Sprintf("%s: %d samples, %d of a, %d of b", s.Labels, len(s.Samples), times[1000], times[14_000]))
	}
	want := []string{
		`{__name__="c", x="1"}: 240 samples, 226 of a, 14 of b`,
		`{__name__="g", x="2"}: 240 samples, 226 of a, 14 of b`,
		`{__name__="h", x="3"}: 240 samples, 226 of a, 14 of b`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func readFile(t *testing.T, dir, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// record is a chunk of a segment.
type record struct {
	encoding byte
	data     []byte
}

// segment takes the only segment of a block apart: a header of magic number, version and three zeros,
// then records without anything between them.
func segment(t *testing.T, dir string) map[chunks.ChunkRef]record {
	t.Helper()
	content := readFile(t, dir, "chunks/000001")
	if head := []byte{0x85, 0xBD, 0x40, 0xDD, 1, 0, 0, 0}; !bytes.HasPrefix(content, head) {
		t.Fatalf("the segment begins with %x, want %x", content[:8], head)
	}
	out := map[chunks.ChunkRef]record{}
	for at := 8; at < len(content); {
		length, n := binary.Uvarint(content[at:])
		from := at + n // of the encoding
		end := from + 1 + int(length)
		if n <= 0 || end+4 > len(content) {
			t.Fatalf("the record at %d does not end within the segment", at)
		}
		sum := crc32.Checksum(content[from:end], crc32.MakeTable(crc32.Castagnoli))
		if got := binary.BigEndian.Uint32(content[end:]); got != sum {
			t.Errorf("the record at %d has checksum %x, want %x", at, got, sum)
		}
		out[chunks.ChunkRef(at)] = record{content[from], content[from+1 : end]} // of segment 0: the offset alone
		at = end + 4
	}
	return out
}

// entry is a series of an index.
type entry struct {
	labels labels.Labels
	chunks []chunks.Meta
}

// entries reads an index with Prometheus' reader, in the order of its postings.
func entries(t *testing.T, dir string) (out []entry) {
	t.Helper()
	r, err := index.NewFileReader(filepath.Join(dir, block.IndexFile), index.DecodePostingsRaw)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	name, value := index.AllPostingsKey()
	p, err := r.Postings(context.Background(), name, value)
	if err != nil {
		t.Fatal(err)
	}
	for p.Next() {
		var e entry
		var b labels.ScratchBuilder
		if err := r.Series(p.At(), &b, &e.chunks); err != nil {
			t.Fatal(err)
		}
		e.labels = b.Labels()
		out = append(out, e)
	}
	if p.Err() != nil || len(out) == 0 {
		t.Fatalf("got %d series, error %v", len(out), p.Err())
	}
	return out
}

// keys are those of an object and all within it.
func keys(v any, prefix string, out map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for k, sub := range v {
			out[prefix+k] = true
			if prefix+k != "thanos.labels" {
				keys(sub, prefix+k+".", out)
			}
		}
	case []any:
		for _, sub := range v {
			keys(sub, prefix, out)
		}
	}
}

// checkMeta compares meta.json with the files, and its keys with what others read and write.
func checkMeta(t *testing.T, dir string, all []entry, records map[chunks.ChunkRef]record) {
	t.Helper()
	data := readFile(t, dir, block.MetaFile)
	var parsed any
	m, err := block.ParseMeta(data)
	if err == nil {
		err = json.Unmarshal(data, &parsed)
	}
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	keys(parsed, "", got)
	want := strings.Fields(`compaction compaction.level compaction.parents compaction.parents.maxTime compaction.parents.minTime
		compaction.parents.ulid compaction.sources maxTime minTime stats stats.numChunks stats.numFloatSamples stats.numHistogramSamples
		stats.numSamples stats.numSeries thanos thanos.downsample thanos.downsample.resolution thanos.files thanos.files.rel_path
		thanos.files.size_bytes thanos.index_stats thanos.index_stats.chunk_max_size thanos.index_stats.series_max_size thanos.labels
		thanos.segment_files thanos.source thanos.upload_time thanos.version ulid version`)
	if m.Resolution() != block.Raw { // whose samples are aggregates
		want = slices.DeleteFunc(want, func(k string) bool { return k == "stats.numFloatSamples" || k == "stats.numHistogramSamples" })
	}
	if got := slices.Sorted(maps.Keys(got)); !slices.Equal(got, want) {
		t.Errorf("meta.json has the keys\n%s\nwant\n%s", strings.Join(got, " "), strings.Join(want, " "))
	}
	for _, f := range m.Thanos.Files {
		if f.RelPath != block.MetaFile && f.SizeBytes != int64(len(readFile(t, dir, f.RelPath))) {
			t.Errorf("%s has %d bytes in meta.json, %d in the bucket", f.RelPath, f.SizeBytes, len(readFile(t, dir, f.RelPath)))
		}
	}
	if !slices.IsSortedFunc(m.Thanos.Files, func(a, b block.File) int { return strings.Compare(a.RelPath, b.RelPath) }) || len(m.Thanos.Files) != 3 {
		t.Errorf("files are %v, want chunks, index and meta.json in this order", m.Thanos.Files)
	}
	longest := 0
	for _, r := range records {
		longest = max(longest, len(r.data))
	}
	// The store reads so many bytes for a chunk whose length it does not know: all of a record.
	if got := m.Thanos.IndexStats.ChunkMaxSize; int(got) < longest || int(got) > longest+20 {
		t.Errorf("the longest chunk has %d bytes, meta.json says %d", longest, got)
	}
	if int(m.Stats.NumSeries) != len(all) || int(m.Stats.NumChunks) != len(records) {
		t.Errorf("meta.json says %+v, there are %d series and %d chunks", m.Stats, len(all), len(records))
	}
}

func checkRaw(t *testing.T, c chunks.Meta, r record) {
	t.Helper()
	if r.encoding != byte(chunkenc.EncXOR) && r.encoding != byte(chunkenc.EncHistogram) {
		t.Errorf("the chunk at %d has encoding %d, which Thanos does not know", c.Ref, r.encoding)
	}
	if times := timesOf(t, r.encoding, r.data); times[0] != c.MinTime || times[len(times)-1] != c.MaxTime {
		t.Errorf("the chunk at %d has samples from %d to %d, the index says [%d, %d]", c.Ref, times[0], times[len(times)-1], c.MinTime, c.MaxTime)
	}
}

// checkAggregates reads the payload of a downsampled chunk byte by byte.
func checkAggregates(t *testing.T, r block.Resolution, c chunks.Meta, rec record) {
	t.Helper()
	if rec.encoding != 0xff {
		t.Errorf("the chunk at %d has encoding %x, want ff", c.Ref, rec.encoding)
	}
	rest := rec.data
	var encodings []byte
	var windows []int64
	for kind := range 5 { // count, sum, min, max, counter
		length, n := binary.Uvarint(rest)
		rest = rest[n:]
		if length == 0 { // absent, without an encoding
			encodings = append(encodings, 0)
			continue
		}
		encodings = append(encodings, rest[0])
		times := timesOf(t, rest[0], rest[1:1+length])
		rest = rest[1+length:]
		switch {
		case kind == 0:
			windows = times
		case kind < 4:
			if !slices.Equal(times, windows) {
				t.Errorf("aggregate %d has its windows at %v, the counts are at %v", kind, times, windows)
			}
		case encodings[kind] == byte(chunkenc.EncXOR): // the first raw sample, windows, and the last one's time again
			if n := len(times); n != len(windows)+2 || !slices.Equal(times[1:n-1], windows) || times[n-1] != windows[n-3] {
				t.Errorf("the counter has samples at %v, windows are at %v", times, windows)
			}
		}
	}
	if len(rest) > 0 {
		t.Errorf("%d bytes stand behind the counter", len(rest))
	}
	float, histograms := []byte{1, 1, 1, 1, 1}, []byte{1, 3, 0, 0, 3}
	if !bytes.Equal(encodings, float) && !bytes.Equal(encodings, histograms) {
		t.Errorf("aggregates have the encodings %v, want %v or %v", encodings, float, histograms)
	}
	if windows[0] != c.MinTime || windows[len(windows)-1] != c.MaxTime {
		t.Errorf("windows are at %v, the index says [%d, %d]", windows, c.MinTime, c.MaxTime)
	}
	for i, at := range windows {
		if i < len(windows)-1 && (at+1)%int64(r) != 0 || i > 0 && at/int64(r) == windows[i-1]/int64(r) {
			t.Errorf("a window ends at %s", time.UnixMilli(at).UTC())
		}
	}
}

// timesOf decodes a chunk with Prometheus' own codec.
func timesOf(t *testing.T, encoding byte, data []byte) (times []int64) {
	t.Helper()
	c, err := chunkenc.FromData(chunkenc.Encoding(encoding), data)
	if err != nil {
		t.Fatal(err)
	}
	it := c.Iterator(nil)
	for it.Next() != chunkenc.ValNone {
		times = append(times, it.AtT())
	}
	if it.Err() != nil || len(times) == 0 {
		t.Fatalf("got %d samples, error %v", len(times), it.Err())
	}
	return times
}
