package compact

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/blockscan"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/planner"
)

// unproven is a merged block that is in the bucket but for its meta.json.
type unproven struct {
	*draft

	bkt *bucket.Memory
	e   *Executor
}

// writeMerged merges what is in a bucket.
func writeMerged(t *testing.T, bkt *bucket.Memory) unproven {
	t.Helper()
	e := executor(t, bkt)
	jobs := planner.Plan(fetch(t, bkt), e.opts.Policy, e.now())
	i := slices.IndexFunc(jobs, func(j planner.Job) bool { return kindOf(j) == kindCompact })
	o := e.merged(jobs[i].(planner.Compact), block.Shard{}, 0)
	o.into, o.beside = bkt, nil
	d, _, err := e.write(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.verify(t.Context(), d); err != nil {
		t.Fatalf("as it was written: %v", err)
	}
	return unproven{d, bkt, e}
}

// files are the contents of the block's data.
func (w unproven) files(t *testing.T) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for _, f := range w.into.Files() {
		if f.RelPath == block.MetaFile {
			continue
		}
		data, _, err := w.bkt.GetVersion(t.Context(), block.ObjectName(w.meta.ULID, f.RelPath))
		if err != nil {
			t.Fatal(err)
		}
		out[f.RelPath] = data
	}
	return out
}

func (w unproven) put(t *testing.T, rel string, data []byte) {
	t.Helper()
	if err := w.bkt.Upload(t.Context(), block.ObjectName(w.meta.ULID, rel), bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
}

// dir has the files.
func (w unproven) dir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for rel, data := range w.files(t) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, rel)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, rel), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// sound reports whether the files are a block that has nothing wrong, read by another reader.
func (w unproven) sound(t *testing.T) bool {
	t.Helper()
	b, err := blockscan.Open(w.dir(t), w.meta)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	findings := 0
	if _, err := b.Verify(t.Context(), func(blockscan.Finding) { findings++ }); err != nil {
		t.Fatal(err)
	}
	return findings == 0
}

// Of a block whose series are all looked at no byte may be another, in whatever file and table,
// but for what fills up to the next entry.
func TestNoByteOfAnOutputIsLeftUnverified(t *testing.T) {
	w := writeMerged(t, replicas(t, 2)(t))
	for rel, data := range w.files(t) {
		padding := 0
		for i := range data {
			if rel != block.IndexFile && i > 64 && i%16 > 0 {
				continue // one checksum guards all bytes of a chunk
			}
			changed := bytes.Clone(data)
			changed[i] ^= 0x55
			w.put(t, rel, changed)
			if err := w.e.verify(t.Context(), w.draft); err != nil {
				continue
			}
			if padding++; data[i] != 0 || !w.sound(t) {
				t.Errorf("byte %d of %s is another, and nobody notices", i, rel)
			}
		}
		if padding > 64 {
			t.Errorf("%d bytes of %s are no byte's", padding, rel)
		}
		w.put(t, rel, data)
	}
}

// broken is a local copy of a block that is to be broken.
type broken struct {
	t       *testing.T
	meta    *block.Meta
	dir     string
	entries []int64
	toc     *index.TOC
}

// local writes the block to a directory, where what breaks local blocks can break it.
func (w unproven) local(t *testing.T) broken {
	t.Helper()
	dir := w.dir(t)
	data, err := os.ReadFile(filepath.Join(dir, block.IndexFile))
	if err != nil {
		t.Fatal(err)
	}
	toc, err := index.NewTOCFromByteSlice(tocBytes(data))
	if err != nil {
		t.Fatal(err)
	}
	return broken{t, w.meta, dir, blocktest.SeriesEntries(t, dir), toc}
}

// section changes the content of a section of the index and puts its checksum right.
func (b broken) section(at uint64, change func(content []byte)) (behind uint64) {
	b.t.Helper()
	b.edit(block.IndexFile, func(data []byte) []byte {
		end := at + 4 + uint64(binary.BigEndian.Uint32(data[at:]))
		change(data[at+4 : end])
		binary.BigEndian.PutUint32(data[end:], crc32.Checksum(data[at+4:end], crc32.MakeTable(crc32.Castagnoli)))
		behind = end + 4
		return data
	})
	return behind
}

// list changes a list of postings by its number. The first is that of all series.
func (b broken) list(n int, change func(content []byte)) {
	b.t.Helper()
	at := (b.toc.Postings + 3) / 4 * 4
	for range n {
		at = b.section(at, func([]byte) {})
	}
	b.section(at, change)
}

func (b broken) remove(rel string) {
	b.t.Helper()
	if err := os.Remove(filepath.Join(b.dir, rel)); err != nil {
		b.t.Fatal(err)
	}
}

func (b broken) edit(rel string, change func([]byte) []byte) {
	b.t.Helper()
	file := filepath.Join(b.dir, rel)
	data, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, change(data), 0o600)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// The counter has the labels __name__=c and x=1, the gauge g and 2. Of an entry's content the first byte is
// the number of labels, then come two of each, the number of chunks, and of the first chunk two of the time.
const (
	valueOfX = 4
	times    = 6
)

// TestEachKindOfDamageIsFoundBeforeAnOutputCounts breaks what was written in ways that leave all checksums right,
// and lets only the first series be compared byte by byte, as it is in a block of many series.
func TestEachKindOfDamageIsFoundBeforeAnOutputCounts(t *testing.T) {
	fill := replicas(t, 4)
	for name, tc := range map[string]struct {
		damage func(b broken)
		want   string
	}{
		"a series was not counted": {func(b broken) { b.meta.Stats.NumSeries++ }, "has 2 series"},
		"a chunk was not counted":  {func(b broken) { b.meta.Stats.NumChunks-- }, "chunks instead of"},
		"no index":                 {func(b broken) { b.remove(block.IndexFile) }, "index"},
		"no segment":               {func(b broken) { b.remove(block.SegmentFile(1)) }, block.SegmentFile(1)},
		"a shorter segment": {func(b broken) {
			b.edit(block.SegmentFile(1), func(data []byte) []byte { return data[:len(data)-1] })
		}, block.SegmentFile(1)},
		"a segment of another format": {func(b broken) {
			b.edit(block.SegmentFile(1), func(data []byte) []byte { data[4] = 9; return data })
		}, "begins with"},
		"a series twice": {func(b broken) {
			var first []byte
			blocktest.Patch(b.t, b.dir, b.entries[0], func(c []byte) { first = bytes.Clone(c[:5]) })
			blocktest.Patch(b.t, b.dir, b.entries[1], func(c []byte) { copy(c, first) })
		}, "comes after"},
		"a series that begins before its block": {func(b broken) { b.meta.MinTime += 2000 }, "reaches outside"},
		"a series that ends behind its block":   {func(b broken) { b.meta.MaxTime -= 120_000 }, "reaches outside"},
		"a series that ends before it begins": {func(b broken) {
			blocktest.Patch(b.t, b.dir, b.entries[1], func(c []byte) { huge(c[times+varintLen(c[times:]):]) })
		}, "entry ends early"},
		"a chunk in no segment": {func(b broken) {
			blocktest.Patch(b.t, b.dir, b.entries[1], func(c []byte) { c[place(c)+varintLen(c[place(c):])-1] |= 0x7f })
		}, "not behind the one before, or in no segment"},
		"a chunk in the place of one before": {func(b broken) {
			blocktest.Patch(b.t, b.dir, b.entries[1], func(c []byte) {
				ref := c[place(c):][:varintLen(c[place(c):])]
				for i := range ref { // the number 8 in as many bytes
					ref[i] = 0x80
				}
				ref[0] |= chunks.SegmentHeaderSize
				ref[len(ref)-1] &= 0x7f
			})
		}, "not behind the one before, or in no segment"},
		"other samples in a chunk": {func(b broken) {
			b.edit(block.SegmentFile(1), otherSample)
		}, "not what was written"},
		"a label that its postings do not know": {func(b broken) {
			blocktest.Patch(b.t, b.dir, b.entries[1], func(c []byte) { c[valueOfX]-- })
		}, "postings"},
		"postings of another series": {func(b broken) {
			b.list(1, func(c []byte) { binary.BigEndian.PutUint32(c[4:], uint32(b.entries[1]/seriesAlign)) })
		}, "postings"},
		"postings of no series": {func(b broken) {
			b.list(1, func(c []byte) { binary.BigEndian.PutUint32(c[4:], math.MaxUint32) })
		}, "comes after"},
		"postings out of order": {func(b broken) {
			b.list(0, func(c []byte) {
				first := bytes.Clone(c[4:8])
				copy(c[4:8], c[8:12])
				copy(c[8:12], first)
			})
		}, "comes after"},
		"fewer postings of all series": {func(b broken) {
			b.list(0, func(c []byte) { binary.BigEndian.PutUint32(c, 1) })
		}, "left at its end"},
		"postings under another label": {func(b broken) {
			b.section(b.toc.PostingsTable, func(c []byte) { c[bytes.IndexByte(c, 'c')] = '1' })
		}, "postings"},
		"postings under a label that is not": {func(b broken) {
			b.section(b.toc.PostingsTable, func(c []byte) { c[bytes.IndexByte(c, 'c')] = 'd' })
		}, "not among the symbols"},
		"a label without postings": {func(b broken) {
			b.section(b.toc.PostingsTable, func(c []byte) { binary.BigEndian.PutUint32(c, binary.BigEndian.Uint32(c)-1) })
		}, "left at its end"},
		"a table that leads elsewhere": {func(b broken) {
			b.section(b.toc.PostingsTable, func(c []byte) { c[len(c)-1]-- })
		}, "leads to"},
	} {
		t.Run(name, func(t *testing.T) {
			w := writeMerged(t, fill(t))
			w.stride = 1000
			b := w.local(t)
			tc.damage(b)
			for rel := range w.files(t) {
				data, err := os.ReadFile(filepath.Join(b.dir, rel))
				if err != nil {
					err = w.bkt.Delete(t.Context(), block.ObjectName(w.meta.ULID, rel))
				} else {
					w.put(t, rel, data)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			err := w.e.verify(t.Context(), w.draft)
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), w.meta.ULID.String()) {
				t.Errorf("got %v, want an error that says %q", err, tc.want)
			}
		})
	}
}

// otherSample flips the last bit of the first chunk, and puts its checksum right.
func otherSample(data []byte) []byte {
	size, n := binary.Uvarint(data[chunks.SegmentHeaderSize:])
	record := data[chunks.SegmentHeaderSize+n:][:1+size]
	record[size] ^= 1
	binary.BigEndian.PutUint32(data[chunks.SegmentHeaderSize+n+len(record):], crc32.Checksum(record, crc32.MakeTable(crc32.Castagnoli)))
	return data
}

// place is where a series' content has the place of its first chunk.
func place(c []byte) int {
	at := times
	at += varintLen(c[at:])
	return at + varintLen(c[at:])
}

func varintLen(b []byte) int {
	_, n := binary.Uvarint(b)
	return n
}

// huge makes a number one that does not end.
func huge(b []byte) {
	for i := range b {
		b[i] |= 0x80
	}
}
