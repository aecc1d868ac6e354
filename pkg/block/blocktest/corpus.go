package blocktest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/block"
)

// BreakableLoad has four series of more than one chunk, floats and histograms. A
// block of it in Segmented(…, 400) has what the damages of Corpus break.
const BreakableLoad = `load 15s
  requests{pod="a"} 1+1x300
  requests{pod="b"} 2+1x300
  requests{pod="c"} 3+1x300
  latency{pod="a"} {{schema:0 count:5 sum:7 buckets:[1 2 2]}}x150
`

// Breakable writes a sound block to be broken by the damages of Corpus.
func Breakable(t testing.TB, s Spec) (dir string, meta *block.Meta) {
	t.Helper()
	if s.Load == "" && s.Series == nil {
		s.Load = BreakableLoad
	}
	dir, meta = Dir(t, s)
	Segmented(t, dir, 400)
	return dir, meta
}

// Damage is one way in which a block can be broken.
type Damage struct {
	Name  string
	Break func(d Damaged)
}

// Damaged is a local block that is being broken. Meta becomes its meta.json.
type Damaged struct {
	T    testing.TB
	Dir  string
	Meta *block.Meta
}

// Corpus is a list of damages, each of which breaks one thing. Every reader of blocks is tested with it.
func Corpus() []Damage {
	const second = "chunks/000002"
	return []Damage{
		{"a chunk's byte", func(d Damaged) { d.flip(second, 20) }},
		{"a chunk's length", func(d Damaged) { d.flip("chunks/000001", 8) }},
		{"a chunk that is none", func(d Damaged) { d.garble("chunks/000001") }},
		{"a truncated segment", func(d Damaged) { d.truncate(second, 50) }},
		{"an empty segment", func(d Damaged) { d.truncate(second, 0) }},
		{"a missing segment", func(d Damaged) { d.remove(second) }},
		{"the magic of a segment", func(d Damaged) { d.flip(second, 0) }},
		{"the version of a segment", func(d Damaged) { d.flip(second, 4) }},
		{"all segments", func(d Damaged) { d.remove("chunks") }},
		{"no index", func(d Damaged) { d.remove("index") }},
		{"an empty index", func(d Damaged) { d.truncate("index", 0) }},
		{"the magic of the index", func(d Damaged) { d.flip("index", 0) }},
		{"the version of the index", func(d Damaged) { d.flip("index", 4) }},
		{"a symbol", func(d Damaged) { d.flip("index", 16) }},
		{"a series entry", func(d Damaged) { d.flip("index", d.entries()[1]+3) }},
		{"the length of a series", func(d Damaged) { d.flip("index", d.entries()[2]) }},
		{"the table of contents", func(d Damaged) { d.flip("index", d.size("index")-tocSize+10) }},
		{"an index cut in postings", func(d Damaged) { d.truncate("index", int64(d.toc().Postings)+9) }},
		{"an index cut in series", func(d Damaged) { d.truncate("index", d.entries()[2]+5) }},
		{"an index cut in symbols", func(d Damaged) { d.truncate("index", 20) }},
		{"postings", func(d Damaged) { d.flip("index", int64(d.toc().Postings)+9) }},
		{"the table of postings", func(d Damaged) { d.flip("index", int64(d.toc().PostingsTable)+9) }},
		{"a label that is another", func(d Damaged) { d.rename(2, 1) }},
		{"series out of order", func(d Damaged) { d.rename(1, 3) }},
		{"a symbol that is not", func(d Damaged) { Patch(d.T, d.Dir, d.entries()[1], func(c []byte) { c[1] = 100 }) }},
		{"another time range", func(d Damaged) { d.Meta.MaxTime = 600_000 }},
		{"other counts", func(d Damaged) { d.Meta.Stats.NumSamples++ }},
		{"times of another chunk", func(d Damaged) { d.shift() }},
		{"chunks that lie elsewhere", func(d Damaged) { d.misplace() }},
	}
}

// DamageNamed is the damage of Corpus that has the name.
func DamageNamed(t testing.TB, name string) Damage {
	t.Helper()
	for _, d := range Corpus() {
		if d.Name == name {
			return d
		}
	}
	t.Fatalf("no damage is named %q", name)
	return Damage{}
}

// tocSize is the length of the table of contents at the end of an index.
const tocSize = 6*8 + crc32.Size

// In uploads a sound local block and breaks it in the bucket; the directory stays as it is.
func (g Damage) In(t testing.TB, bkt objstore.Bucket, dir string) *block.Meta {
	t.Helper()
	meta := Upload(t, bkt, dir)
	local := t.TempDir()
	check(t, os.CopyFS(local, os.DirFS(dir)))
	broken := *meta
	g.Break(Damaged{t, local, &broken})
	for _, f := range meta.Thanos.Files {
		if f.RelPath == block.MetaFile {
			continue
		}
		name := block.ObjectName(meta.ULID, f.RelPath)
		data, err := os.ReadFile(filepath.Join(local, f.RelPath))
		if errors.Is(err, os.ErrNotExist) {
			check(t, bkt.Delete(t.Context(), name))
			continue
		}
		check(t, err)
		check(t, bkt.Upload(t.Context(), name, bytes.NewReader(data)))
	}
	data, err := broken.Encode()
	check(t, err)
	check(t, bkt.Upload(t.Context(), block.MetaName(meta.ULID), bytes.NewReader(data)))
	return &broken
}

func (d Damaged) file(rel string) string { return filepath.Join(d.Dir, rel) }

func (d Damaged) size(rel string) int64 {
	d.T.Helper()
	info, err := os.Stat(d.file(rel))
	check(d.T, err)
	return info.Size()
}

func (d Damaged) flip(rel string, offset int64) {
	d.T.Helper()
	Flip(d.T, d.file(rel), offset)
}

func (d Damaged) truncate(rel string, n int64) {
	d.T.Helper()
	check(d.T, os.Truncate(d.file(rel), n))
}

func (d Damaged) remove(rel string) {
	d.T.Helper()
	check(d.T, os.RemoveAll(d.file(rel)))
}

func (d Damaged) entries() []int64 {
	d.T.Helper()
	return SeriesEntries(d.T, d.Dir)
}

func (d Damaged) toc() *index.TOC {
	d.T.Helper()
	data, err := os.ReadFile(d.file(block.IndexFile))
	check(d.T, err)
	toc, err := index.NewTOCFromByteSlice(byteSlice(data))
	check(d.T, err)
	return toc
}

type byteSlice []byte

func (b byteSlice) Len() int                    { return len(b) }
func (b byteSlice) Range(start, end int) []byte { return b[start:end] }

// garble makes the first chunk of a segment one that says it has more samples than
// it has bytes for, with the right checksum.
func (d Damaged) garble(rel string) {
	d.T.Helper()
	data, err := os.ReadFile(d.file(rel))
	check(d.T, err)
	const at = 8 // behind the segment's header
	n, skip := binary.Uvarint(data[at:])
	record := data[at+skip:][:1+n] // encoding and payload
	record[1], record[2] = 0xff, 0xff
	binary.BigEndian.PutUint32(data[at+skip+len(record):], crc32.Checksum(record, crc32.MakeTable(crc32.Castagnoli)))
	check(d.T, os.WriteFile(d.file(rel), data, 0o600))
}

// rename gives one series the labels of another; both have two.
func (d Damaged) rename(series, as int) {
	d.T.Helper()
	entries := d.entries()
	var other []byte
	Patch(d.T, d.Dir, entries[as], func(c []byte) { other = slices.Clone(c[:5]) })
	Patch(d.T, d.Dir, entries[series], func(c []byte) { copy(c, other) })
}

// shift lets the first series' first chunk begin a millisecond later.
func (d Damaged) shift() {
	d.T.Helper()
	Patch(d.T, d.Dir, d.entries()[0], func(c []byte) { c[6] += 2 }) // behind labels and count
}

// misplace lets the last series' first chunk lie in a segment that there is not.
func (d Damaged) misplace() {
	d.T.Helper()
	Patch(d.T, d.Dir, d.entries()[3], func(c []byte) {
		_, n := binary.Uvarint(c[7:])
		_, m := binary.Uvarint(c[7+n:])
		c[7+n+m-1] = 0x7f // the highest bits of the reference
	})
}
