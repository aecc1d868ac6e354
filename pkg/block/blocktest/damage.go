package blocktest

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/varve-io/varve/pkg/block"
)

// Segmented cuts the chunks of a local block into segments of about size bytes,
// as those of a large block are.
func Segmented(t testing.TB, dir string, size int64) {
	t.Helper()
	rewrite(t, dir, size, func(_ int, metas []chunks.Meta) []chunks.Meta { return metas })
}

// rewrite writes a local block anew, with what change makes of the chunks of each series,
// which are counted from zero.
func rewrite(t testing.TB, dir string, size int64, change func(series int, metas []chunks.Meta) []chunks.Meta) {
	t.Helper()
	b, err := tsdb.OpenBlock(promslog.NewNopLogger(), dir, nil, nil)
	check(t, err)
	ir, err := b.Index()
	check(t, err)
	cr, err := b.Chunks()
	check(t, err)

	out := t.TempDir()
	cw, err := chunks.NewWriter(filepath.Join(out, block.ChunksDir), chunks.WithSegmentSize(size))
	check(t, err)
	iw, err := index.NewWriter(context.Background(), filepath.Join(out, block.IndexFile))
	check(t, err)
	symbols := ir.Symbols()
	for symbols.Next() {
		check(t, iw.AddSymbol(symbols.At()))
	}
	all, err := ir.Postings(context.Background(), "", "")
	check(t, err)
	for n := 0; all.Next(); n++ {
		var builder labels.ScratchBuilder
		var metas []chunks.Meta
		check(t, ir.Series(all.At(), &builder, &metas))
		for i := range metas {
			metas[i].Chunk, _, err = cr.ChunkOrIterable(metas[i])
			check(t, err)
		}
		metas = change(n, metas)
		check(t, cw.WriteChunks(metas...))
		check(t, iw.AddSeries(all.At(), builder.Labels(), metas...))
	}
	check(t, all.Err())
	for _, c := range []interface{ Close() error }{cw, iw, ir, cr, b} {
		check(t, c.Close())
	}
	check(t, os.RemoveAll(filepath.Join(dir, block.ChunksDir)))
	check(t, os.Rename(filepath.Join(out, block.ChunksDir), filepath.Join(dir, block.ChunksDir)))
	check(t, os.Rename(filepath.Join(out, block.IndexFile), filepath.Join(dir, block.IndexFile)))
}

// SeriesEntries gives the offsets of the series in the index of a local block.
func SeriesEntries(t testing.TB, dir string) []int64 {
	t.Helper()
	r, err := index.NewFileReader(filepath.Join(dir, block.IndexFile), index.DecodePostingsRaw)
	check(t, err)
	defer func() { check(t, r.Close()) }()
	all, err := r.Postings(context.Background(), "", "")
	check(t, err)
	var offsets []int64
	for all.Next() {
		offsets = append(offsets, int64(all.At())*16)
	}
	check(t, all.Err())
	return offsets
}

// Flip changes one byte of a file.
func Flip(t testing.TB, file string, offset int64) {
	t.Helper()
	data, err := os.ReadFile(file)
	check(t, err)
	data[offset] ^= 0x40
	check(t, os.WriteFile(file, data, 0o600))
}

// Patch changes a series entry of a local block's index and puts its checksum right.
func Patch(t testing.TB, dir string, entry int64, change func(content []byte)) {
	t.Helper()
	file := filepath.Join(dir, block.IndexFile)
	data, err := os.ReadFile(file)
	check(t, err)
	n, skip := binary.Uvarint(data[entry:])
	content := data[int(entry)+skip:][:n]
	change(content)
	sum := crc32.Checksum(content, crc32.MakeTable(crc32.Castagnoli))
	binary.BigEndian.PutUint32(data[int(entry)+skip+int(n):], sum)
	check(t, os.WriteFile(file, data, 0o600))
}
