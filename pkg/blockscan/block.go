package blockscan

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/varve-io/varve/pkg/block"
)

// Block is a local block, open for reading.
type Block struct {
	meta     *block.Meta
	index    *file         // nil if it is not there
	segments map[int]*file // by number, counted from one; those that are there
}

// Open opens what there is of a block's files in dir. An error is one of the local
// disk; whatever is wrong with the block comes out of Scan and Verify. The caller
// closes the block when nothing uses its series any more.
func Open(dir string, meta *block.Meta) (_ *Block, err error) {
	b := &Block{meta: meta, segments: map[int]*file{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
		}
	}()
	if b.index, err = openFile(dir, block.IndexFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(dir, block.ChunksDir))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		n, ok := segmentNumber(path.Join(block.ChunksDir, e.Name()))
		if !ok {
			continue
		}
		if b.segments[n], err = openFile(dir, block.SegmentFile(n)); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// segmentNumber tells chunk segments from other files.
func segmentNumber(rel string) (n int, ok bool) {
	n, err := strconv.Atoi(path.Base(rel))
	return n, err == nil && n > 0 && rel == block.SegmentFile(n)
}

// Close releases the files.
func (b *Block) Close() error {
	var errs []error
	if b.index != nil {
		errs = append(errs, b.index.close())
	}
	for _, f := range b.segments {
		errs = append(errs, f.close())
	}
	return errors.Join(errs...)
}

// checkFiles compares the files with what meta.json promises, and their first bytes with the format.
func (b *Block) checkFiles(report func(Finding)) {
	for _, f := range b.meta.Thanos.Files {
		got := b.file(f.RelPath)
		switch _, segment := segmentNumber(f.RelPath); {
		case f.RelPath != block.IndexFile && !segment:
		case got == nil:
			report(Finding{Missing, f.RelPath, Whole, "meta.json lists it, and it is not there"})
		case f.SizeBytes != 0 && int64(len(got.data)) != f.SizeBytes:
			report(Finding{Size, f.RelPath, Whole, fmt.Sprintf("it has %d bytes, meta.json says %d", len(got.data), f.SizeBytes)})
		}
	}
	if b.index == nil && !slices.ContainsFunc(b.meta.Thanos.Files, func(f block.File) bool { return f.RelPath == block.IndexFile }) {
		report(Finding{Missing, block.IndexFile, Whole, "it is not there"})
	}
	for n, f := range b.segments {
		if problem := segmentHeader(f.data); problem != "" {
			report(Finding{Magic, block.SegmentFile(n), 0, problem})
		}
	}
}

func (b *Block) file(rel string) *file {
	if rel == block.IndexFile {
		return b.index
	}
	n, _ := segmentNumber(rel)
	return b.segments[n]
}

// segmentHeader says what is wrong with the first bytes of a segment.
func segmentHeader(data []byte) string {
	if len(data) < chunks.SegmentHeaderSize {
		return fmt.Sprintf("it has %d bytes, fewer than a header", len(data))
	}
	if magic := binary.BigEndian.Uint32(data); magic != chunks.MagicChunks {
		return fmt.Sprintf("it begins with %#08x, not with the %#08x of chunks", magic, uint32(chunks.MagicChunks))
	}
	if data[4] != 1 {
		return fmt.Sprintf("it has version %d; version 1 can be read", data[4])
	}
	return ""
}

// chunkAt reads the chunk that a reference names. The place is set also when the
// chunk cannot be read; kind is empty when it can.
func (b *Block) chunkAt(ref chunks.ChunkRef) (enc chunkenc.Encoding, data []byte, place Finding) {
	seq, offset := chunks.BlockChunkRef(ref).Unpack()
	place = Finding{File: block.SegmentFile(seq + 1), Offset: int64(offset)}
	problem := func(kind Kind, format string, args ...any) (chunkenc.Encoding, []byte, Finding) {
		place.Kind, place.Detail = kind, fmt.Sprintf(format, args...)
		return 0, nil, place
	}
	f := b.segments[seq+1]
	if f == nil {
		return problem(Missing, "the segment is not there")
	}
	if offset < 0 || offset >= len(f.data) {
		return problem(Truncated, "the segment ends at %d", len(f.data))
	}
	d := decoder{b: f.data[offset:]}
	n := d.uvarint()
	if d.bad || n > uint64(len(d.b)) || uint64(len(d.b))-n < 1+checksumSize {
		return problem(Truncated, "the chunk's %d bytes reach beyond the segment's end at %d", n, len(f.data))
	}
	guarded := d.bytes(n + 1) // encoding and data
	if got, want := checksum(guarded), d.be32(); got != want {
		return problem(Checksum, "checksum is %08x, the chunk's bytes give %08x", want, got)
	}
	return chunkenc.Encoding(guarded[0]), guarded[1:], place
}
