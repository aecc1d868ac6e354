package blockindex

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
)

// Chunk is a chunk as an index knows it.
type Chunk struct {
	Ref chunks.BlockChunkRef
	// MinTime and MaxTime are the times of the first and the last sample, both
	// inclusive, Unix milliseconds.
	MinTime, MaxTime int64
}

// Entry is a series as an index has it.
type Entry struct {
	Labels labels.Labels
	// Chunks are all chunks of the series, in the order of the index.
	Chunks []Chunk
	// Next is the first chunk of the series that follows in the index: in the same
	// segment, the last of Chunks ends there at the latest. Zero means unknown.
	Next chunks.BlockChunkRef
}

// SeriesReader reads series entries. It is used by one goroutine.
type SeriesReader struct {
	x       *Index
	window  []byte // bytes of the index from offset on
	offset  int64
	names   []uint64 // symbol references of the labels, names and values in turn
	symbols map[uint64][]string
	builder labels.ScratchBuilder
}

const (
	// seriesWindow is how many bytes of series entries are read at once.
	seriesWindow = 32 << 10
	// maxGroups is how many groups of 32 symbols a SeriesReader remembers.
	maxGroups = 4096
)

// SeriesReader returns a reader of series entries; references that rise make it fast.
func (x *Index) SeriesReader() *SeriesReader {
	return &SeriesReader{x: x, symbols: map[uint64][]string{}, builder: labels.NewScratchBuilder(16)}
}

// Rest releases the memory that the reader holds; the next Read takes it again.
func (r *SeriesReader) Rest() {
	r.window = nil
	r.symbols = map[uint64][]string{}
}

// Read reads the series at ref into e, whose Chunks it reuses. It returns false,
// and leaves Labels alone, when no chunk has samples in [mint, maxt].
func (r *SeriesReader) Read(ctx context.Context, ref storage.SeriesRef, mint, maxt int64, e *Entry) (bool, error) {
	body, after, err := r.entry(ctx, ref)
	if err != nil {
		return false, fmt.Errorf("series %d: %w", ref, err)
	}
	d := decoder{b: body}
	r.names = r.names[:0]
	for range d.uvarint() {
		r.names = append(r.names, d.uvarint(), d.uvarint())
		if d.bad {
			break
		}
	}
	if e.Chunks, err = appendChunks(e.Chunks[:0], &d); err != nil {
		return false, fmt.Errorf("series %d: %w", ref, err)
	}
	overlaps := false
	for _, c := range e.Chunks {
		overlaps = overlaps || c.MinTime <= maxt && mint <= c.MaxTime
	}
	if !overlaps {
		return false, nil
	}
	e.Next = r.firstChunk(ctx, after)
	if e.Labels, err = r.labels(ctx); err != nil {
		return false, fmt.Errorf("series %d: %w", ref, err)
	}
	return true, nil
}

// entry returns the body of the series entry at ref and where the next entry begins.
func (r *SeriesReader) entry(ctx context.Context, ref storage.SeriesRef) (body []byte, after int64, err error) {
	size := r.x.seriesEnd
	if uint64(ref) > uint64(size) {
		return nil, 0, corruptf("position %d of %d", ref, size)
	}
	off := int64(ref)
	if r.x.version != index.FormatV1 {
		off *= seriesAlign
	}
	head, err := r.bytes(ctx, off, min(binary.MaxVarintLen32, size-off))
	if err != nil {
		return nil, 0, err
	}
	length, n := binary.Uvarint(head)
	if n <= 0 || length > uint64(size-off) {
		return nil, 0, corruptf("length of the entry at %d", off)
	}
	begin, end := off+int64(n), off+int64(n)+int64(length)
	b, err := r.bytes(ctx, begin, end+4-begin)
	if err != nil {
		return nil, 0, err
	}
	body = b[:length]
	if checksum(body) != binary.BigEndian.Uint32(b[length:]) {
		return nil, 0, corruptf("checksum of the entry at %d", off)
	}
	after = end + 4
	if r.x.version != index.FormatV1 {
		after = (after + seriesAlign - 1) / seriesAlign * seriesAlign
	}
	return body, after, nil
}

// bytes returns n bytes of the series section, valid until the next call.
func (r *SeriesReader) bytes(ctx context.Context, off, n int64) ([]byte, error) {
	limit := r.x.src.Size()
	if off < headerSize || n <= 0 || off+n > limit {
		return nil, corruptf("entry at %d", off)
	}
	if off < r.offset || off+n > r.offset+int64(len(r.window)) {
		size := min(max(n, seriesWindow), limit-off)
		if int64(cap(r.window)) < size {
			r.window = make([]byte, size)
		}
		r.window, r.offset = r.window[:size], off
		if err := r.x.src.ReadAt(ctx, r.window, off); err != nil {
			r.window = r.window[:0]
			return nil, err
		}
	}
	return r.window[off-r.offset:][:n], nil
}

// appendChunks decodes the chunk references of a series entry.
func appendChunks(dst []Chunk, d *decoder) ([]Chunk, error) {
	count := d.uvarint()
	var ref, maxt int64
	for i := range count {
		var c Chunk
		if i == 0 {
			c.MinTime = d.varint()
			c.MaxTime = c.MinTime + int64(d.uvarint())
			ref = int64(d.uvarint())
		} else {
			c.MinTime = maxt + int64(d.uvarint())
			c.MaxTime = c.MinTime + int64(d.uvarint())
			ref += d.varint()
		}
		if d.bad {
			break
		}
		maxt = c.MaxTime
		c.Ref = chunks.BlockChunkRef(ref)
		dst = append(dst, c)
	}
	if d.bad {
		return dst, corruptf("entry ends early")
	}
	return dst, nil
}

// firstChunk returns the first chunk of the series entry at off, or zero.
func (r *SeriesReader) firstChunk(ctx context.Context, off int64) chunks.BlockChunkRef {
	if off >= r.x.seriesEnd {
		return 0
	}
	ref := storage.SeriesRef(off)
	if r.x.version != index.FormatV1 {
		ref /= seriesAlign
	}
	body, _, err := r.entry(ctx, ref)
	if err != nil {
		return 0 // whoever wants that series will hear of it
	}
	d := decoder{b: body}
	for range d.uvarint() {
		d.uvarint()
		d.uvarint()
		if d.bad {
			return 0
		}
	}
	if d.uvarint() == 0 {
		return 0
	}
	d.varint()
	d.uvarint()
	first := d.uvarint()
	if d.bad {
		return 0
	}
	return chunks.BlockChunkRef(first)
}

// labels builds the label set of the references that Read has gathered.
func (r *SeriesReader) labels(ctx context.Context) (labels.Labels, error) {
	r.builder.Reset()
	last := ""
	for i := 0; i < len(r.names); i += 2 {
		name, err := r.symbol(ctx, r.names[i])
		if err != nil {
			return labels.EmptyLabels(), err
		}
		value, err := r.symbol(ctx, r.names[i+1])
		if err != nil {
			return labels.EmptyLabels(), err
		}
		if name <= last {
			return labels.EmptyLabels(), corruptf("label %q follows %q", name, last)
		}
		last = name
		r.builder.Add(name, value)
	}
	return r.builder.Labels(), nil
}

func (r *SeriesReader) symbol(ctx context.Context, ref uint64) (string, error) {
	number, place := r.x.symbols.group(ref)
	group, ok := r.symbols[number]
	if !ok {
		var err error
		if group, err = r.x.symbols.read(ctx, r.x.src, number); err != nil {
			return "", fmt.Errorf("symbol %d: %w", ref, err)
		}
		if len(r.symbols) >= maxGroups {
			clear(r.symbols)
		}
		r.symbols[number] = group
	}
	if place >= len(group) {
		return "", corruptf("symbol %d of %d", ref, r.x.symbols.count)
	}
	return group[place], nil
}
