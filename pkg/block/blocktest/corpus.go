package blocktest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/block"
)

// BreakableLoad has four series of more than one chunk, floats and histograms. A
// block of it in Segmented has what the damages of Corpus break.
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
	Segmented(t, dir, segmentSize)
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
		{"the length of the symbols", func(d Damaged) { d.flip("index", 5) }},
		{"the number of symbols", func(d Damaged) { d.miscount() }},
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
		{"chunks out of order", func(d Damaged) {
			d.rechunk(func(c []chunks.Meta) []chunks.Meta { c[0], c[1] = c[1], c[0]; return c })
		}},
		{"a chunk twice", func(d Damaged) {
			d.rechunk(func(c []chunks.Meta) []chunks.Meta { return slices.Insert(c, 1, c[0]) })
		}},
		{"a chunk of absurd times", func(d Damaged) {
			d.rechunk(func(c []chunks.Meta) []chunks.Meta { c[len(c)-1].MaxTime = math.MaxInt64 / 2; return c })
		}},
		{"samples out of order", func(d Damaged) {
			d.rechunk(func(c []chunks.Meta) []chunks.Meta { c[0].Chunk = d.backwards(c[0].Chunk); return c })
		}},
		{"a chunk of no encoding", func(d Damaged) { d.encode("chunks/000001", 0x7f) }},
		{"labels out of order", func(d Damaged) {
			Patch(d.T, d.Dir, d.entries()[1], func(c []byte) { c[1], c[2], c[3], c[4] = c[3], c[4], c[1], c[2] })
		}},
	}
}

// segmentSize is about how much of a breakable block a segment has.
const segmentSize = 400

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
	for _, f := range append(slices.Clone(meta.Thanos.Files), broken.Thanos.Files...) {
		if f.RelPath == block.MetaFile {
			continue
		}
		name := block.ObjectName(meta.ULID, f.RelPath)
		data, err := os.ReadFile(filepath.Join(local, f.RelPath))
		if errors.Is(err, os.ErrNotExist) {
			if err := bkt.Delete(t.Context(), name); !bkt.IsObjNotFoundErr(err) {
				check(t, err)
			}
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

// rechunk changes the chunks of the second series; meta.json knows of the files as they are then.
// Prometheus' writer takes no chunk that is out of order, so the times are put in behind its back.
func (d Damaged) rechunk(change func([]chunks.Meta) []chunks.Meta) {
	d.T.Helper()
	const second, apart = 1, 1 << 60
	var times []int64
	rewrite(d.T, d.Dir, segmentSize, func(series int, metas []chunks.Meta) []chunks.Meta {
		if series != second {
			return metas
		}
		metas = change(metas)
		for i := range metas {
			times = append(times, metas[i].MinTime, metas[i].MaxTime)
			metas[i].MinTime = int64(i) * apart // which leaves room for any other
			metas[i].MaxTime = metas[i].MinTime + apart/2
		}
		return metas
	})
	Patch(d.T, d.Dir, d.entries()[second], func(c []byte) { retime(c[6:], times) }) // behind labels and count
	d.Meta.Thanos.Files = nil
	check(d.T, filepath.WalkDir(d.Dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(d.Dir, path)
		d.Meta.Thanos.Files = append(d.Meta.Thanos.Files, block.File{RelPath: filepath.ToSlash(rel), SizeBytes: info.Size()})
		return err
	}))
}

// retime gives chunks of an index entry other times, without changing its length.
func retime(c []byte, times []int64) {
	var fields [][]byte
	rest, end := c, int64(0)
	for i := 0; i < len(times); i += 2 {
		from := binary.AppendUvarint(nil, uint64(times[i]-end))
		if i == 0 {
			from = binary.AppendVarint(nil, times[i])
		}
		length := binary.AppendUvarint(nil, uint64(times[i+1]-times[i]))
		for range 2 {
			_, n := binary.Uvarint(rest)
			rest = rest[n:]
		}
		_, n := binary.Uvarint(rest)
		fields = append(fields, from, length, slices.Clone(rest[:n]))
		rest, end = rest[n:], times[i+1]
	}
	room := len(c) - len(slices.Concat(fields...))
	for i, f := range fields {
		for ; room > 0 && len(f) < binary.MaxVarintLen64-1; room-- {
			f[len(f)-1] |= 0x80 // a number may be written longer than it has to
			f = append(f, 0)
		}
		fields[i] = f
	}
	if copy(c, slices.Concat(fields...)) != len(c) {
		panic("no room for these times")
	}
}

// backwards makes a chunk of the same samples in which the second comes before the first.
func (d Damaged) backwards(c chunkenc.Chunk) chunkenc.Chunk {
	d.T.Helper()
	type sample struct {
		t int64
		v float64
	}
	var all []sample
	for it := c.Iterator(nil); it.Next() != chunkenc.ValNone; {
		t, v := it.At()
		all = append(all, sample{t, v})
	}
	all[0], all[1] = all[1], all[0]
	out := chunkenc.NewXORChunk()
	app, err := out.Appender()
	check(d.T, err)
	for _, s := range all {
		app.Append(0, s.t, s.v)
	}
	return out
}

// encode gives the first chunk of a segment another encoding, with the right checksum.
func (d Damaged) encode(rel string, encoding byte) {
	d.T.Helper()
	d.record(rel, func(record []byte) { record[0] = encoding })
}

// garble makes the first chunk of a segment one that says it has more samples than
// it has bytes for, with the right checksum.
func (d Damaged) garble(rel string) {
	d.T.Helper()
	d.record(rel, func(record []byte) { record[1], record[2] = 0xff, 0xff })
}

// record changes encoding and payload of the first chunk of a segment, and puts the checksum right.
func (d Damaged) record(rel string, change func(record []byte)) {
	d.T.Helper()
	data, err := os.ReadFile(d.file(rel))
	check(d.T, err)
	const at = 8 // behind the segment's header
	n, skip := binary.Uvarint(data[at:])
	record := data[at+skip:][:1+n]
	change(record)
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

// miscount lets the table of symbols say that it has more than there are, with the right checksum.
func (d Damaged) miscount() {
	d.T.Helper()
	data, err := os.ReadFile(d.file(block.IndexFile))
	check(d.T, err)
	const at = index.HeaderLen + 4 // behind the table's length
	table := data[at:][:binary.BigEndian.Uint32(data[index.HeaderLen:])]
	binary.BigEndian.PutUint32(table, binary.BigEndian.Uint32(table)+1)
	binary.BigEndian.PutUint32(data[at+len(table):], crc32.Checksum(table, crc32.MakeTable(crc32.Castagnoli)))
	check(d.T, os.WriteFile(d.file(block.IndexFile), data, 0o600))
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
