package compact

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/prometheus/prometheus/util/annotations"
	"golang.org/x/sync/errgroup"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockio"
	"github.com/varve-io/varve/pkg/blockwriter"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/panics"
	"github.com/varve-io/varve/pkg/series"
)

// symbolTable is what several sources add their symbols to. Symbols are added by any
// goroutine, labels are made by one.
type symbolTable struct {
	*blockwriter.Symbols

	mu sync.Mutex

	// places and made are the labels made last.
	places  []uint32
	made    labels.Labels
	builder labels.ScratchBuilder
}

func newSymbolTable() *symbolTable { return &symbolTable{Symbols: blockwriter.NewSymbols()} }

// labels makes labels of names and values in turn. Sources that are merged have the
// same series one after the other, and share what is made for the first of them.
func (t *symbolTable) labels(places []uint32) labels.Labels {
	if len(places) > 0 && slices.Equal(places, t.places) {
		return t.made
	}
	t.builder.Reset()
	for i := 0; i < len(places); i += 2 {
		t.builder.Add(t.At(places[i]), t.At(places[i+1]))
	}
	t.places = append(t.places[:0], places...)
	t.made = t.builder.Labels()
	return t.made
}

// source is a block that is read from front to end, where it lies.
type source struct {
	meta    *block.Meta
	files   *blockio.Remote
	symbols *symbolTable
	places  []uint32 // in the table, by the block's own number of the symbol
	// The series entries are between begin and end; lists and table are where postings are, and their table.
	begin, end, lists, table int64
}

// readers bounds the memory and the requests of reading blocks.
type readers struct {
	index, segments *blockio.ReadAhead
	requests        int
}

const (
	// segmentMemory and indexMemory are what windows of a job's sources may take.
	segmentMemory, indexMemory = 48 << 20, 11 << 20
	// requestsPerBlock is how many requests a job has under way for each block that
	// it may fetch at a time. At 20 ms each, 16 of them bring windows of half a
	// megabyte at 400 MB/s.
	requestsPerBlock = 4
)

func newReaders(sources, fetchConcurrency int) readers {
	n := requestsPerBlock * fetchConcurrency
	return readers{blockio.NewReadAhead(indexMemory, sources, n), blockio.NewReadAhead(segmentMemory, sources, n), n}
}

// openSources opens blocks, which share the symbol table.
func openSources(ctx context.Context, bkt bucket.Reader, metas []*block.Meta, r readers, symbols *symbolTable) ([]*source, error) {
	sources := make([]*source, len(metas))
	var g errgroup.Group // what is read ahead must outlive its opening, so it shares no context
	g.SetLimit(r.requests)
	for i, m := range metas {
		g.Go(func() (err error) {
			sources[i], err = openSource(ctx, bkt, m, r, symbols)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		closeAll(sources)
		return nil, err
	}
	return sources, nil
}

// openSource opens a block. The caller closes it when nothing reads it any more.
func openSource(ctx context.Context, bkt bucket.Reader, meta *block.Meta, r readers, symbols *symbolTable) (*source, error) {
	files, err := blockio.Open(ctx, bkt, meta, r.index, r.segments)
	if err != nil {
		return nil, inBlock(meta.ULID, err)
	}
	s := &source{meta: meta, files: files, symbols: symbols}
	if err := panics.Caught(func() error { return s.open(ctx) }); err != nil {
		files.Close()
		return nil, inBlock(meta.ULID, inPart(indexUnreadable, err))
	}
	return s, nil
}

// Close ends all reading.
func (s *source) Close() { s.files.Close() }

// closeAll closes all sources that were opened.
func closeAll(sources []*source) {
	for _, s := range sources {
		if s != nil {
			s.Close()
		}
	}
}

const (
	indexTail   = 6*8 + crc32.Size // the table of contents
	seriesAlign = 16
)

// tocBytes are bytes for Prometheus' reader of the table of contents.
type tocBytes []byte

func (b tocBytes) Len() int                  { return len(b) }
func (b tocBytes) Range(from, to int) []byte { return b[from:to] }

// open reads the table of contents and the symbols.
func (s *source) open(ctx context.Context) error {
	size := s.files.Index.Size()
	tail, err := s.files.Index.At(ctx, size-indexTail, indexTail)
	if err != nil {
		return err
	}
	toc, err := index.NewTOCFromByteSlice(tocBytes(tail))
	if err != nil {
		return damagedf(indexUnreadable, "table of contents of the index: %v", err)
	}
	head, err := s.files.Index.At(ctx, 0, index.HeaderLen)
	if err != nil {
		return err
	}
	if magic := binary.BigEndian.Uint32(head); magic != index.MagicIndex {
		return damagedf(indexUnreadable, "the index begins with %x", magic)
	}
	if head[4] != index.FormatV2 && head[4] != index.FormatV3 {
		return damagedf(indexUnreadable, "the index has the format %d, of which this program reads 2 and 3", head[4])
	}
	s.begin, s.end = int64(toc.Series), size-indexTail
	s.lists, s.table = int64(toc.Postings), int64(toc.PostingsTable)
	for _, section := range []uint64{toc.LabelIndices, toc.LabelIndicesTable, toc.Postings, toc.PostingsTable} {
		if section >= toc.Series { // at the same place when there is no series; zero when there is no such section
			s.end = min(s.end, int64(min(section, uint64(size))))
		}
	}
	if s.begin > s.end {
		return damagedf(indexUnreadable, "the index has its series at %d of %d", s.begin, size)
	}
	if err := s.readSymbols(ctx, int64(toc.Symbols)); err != nil {
		return fmt.Errorf("symbols: %w", err)
	}
	return nil
}

// checkSegment looks at the header of a segment.
func checkSegment(ctx context.Context, segment *blockio.Object) error {
	head, err := segment.At(ctx, 0, chunks.SegmentHeaderSize)
	if err != nil {
		return err
	}
	if magic := binary.BigEndian.Uint32(head); magic != chunks.MagicChunks || head[4] != 1 {
		return damagedf(chunkUnreadable, "%s begins with %x", segment.Name(), head)
	}
	return nil
}

// readSymbols adds the block's symbols to the table.
func (s *source) readSymbols(ctx context.Context, off int64) error {
	head, err := s.files.Index.At(ctx, off, 4)
	if err != nil {
		return err
	}
	size := int64(binary.BigEndian.Uint32(head))
	b, err := s.files.Index.At(ctx, off+4, size+crc32.Size)
	if err != nil {
		return err
	}
	if b, err = checked(b, indexChecksum); err != nil {
		return err
	}
	if len(b) < 4 {
		return damagedf(indexUnreadable, "a table of %d bytes", len(b))
	}
	d := decoder{b: b[4:]}
	n := binary.BigEndian.Uint32(b)
	if int(n) > len(d.b) {
		return damagedf(indexUnreadable, "%d symbols in %d bytes", n, len(d.b))
	}
	s.places = make([]uint32, n)
	s.symbols.mu.Lock()
	defer s.symbols.mu.Unlock()
	for i := range s.places {
		str := d.text()
		if d.bad {
			return damagedf(indexUnreadable, "the table ends early")
		}
		if s.places[i], err = s.symbols.Add(str); err != nil {
			return err
		}
	}
	return nil
}

// checked takes the checksum off the end of b, or gives the reason if it is wrong.
func checked(b []byte, r reason) ([]byte, error) {
	body := b[:len(b)-crc32.Size]
	if crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32(b[len(body):]) {
		return nil, damagedf(r, "wrong checksum")
	}
	return body, nil
}

// set iterates all series of the block with all their chunks. Their replica is
// what the block's external labels say under the replica labels.
func (s *source) set(ctx context.Context, replicaLabels []string) *sourceSet {
	set := s.entries(ctx)
	set.bytes = true
	_, set.replica = series.Final(labels.EmptyLabels(), s.meta.Labels(), replicaLabels)
	if len(s.files.Segments) > 0 {
		s.files.Segments[0].Expect(ctx, 0)
	}
	return set
}

// entries iterates all series of the block with what the index says of their chunks.
func (s *source) entries(ctx context.Context) *sourceSet {
	s.files.Index.Expect(ctx, s.begin)
	return &sourceSet{ctx: ctx, source: s, pos: s.begin, segment: noSegment}
}

// again is the same block for another goroutine, which closes it, too.
func (s *source) again() *source {
	other := *s
	other.files = s.files.Again()
	return &other
}

// noSegment is the number of no segment.
const noSegment = -1

type sourceSet struct {
	ctx     context.Context //nolint:containedctx // lives no longer than the job that made it
	source  *source
	replica string
	bytes   bool  // those of chunks are read, too
	at, pos int64 // of the entry, and of the next
	segment int   // of the chunk read last, or noSegment
	metas   []chunkMeta
	places  []uint32 // of the symbols of the series' labels
	slab    []series.Chunk
	cur     *series.Series
	err     error
}

func (s *sourceSet) Next() bool {
	for s.err == nil {
		s.pos = (s.pos + seriesAlign - 1) / seriesAlign * seriesAlign
		if s.pos >= s.source.end {
			return false
		}
		s.at = s.pos
		cur, err := s.load()
		if err != nil {
			s.err = inBlock(s.source.meta.ULID, fmt.Errorf("series at %d: %w", s.at, err))
			return false
		}
		if len(cur.Chunks) > 0 {
			s.cur = cur
			return true
		}
	}
	return false
}

// load reads the next series.
func (s *sourceSet) load() (*series.Series, error) {
	if err := s.entry(); err != nil {
		return nil, inPart(indexUnreadable, err)
	}
	out := &series.Series{
		Labels:  s.source.symbols.labels(s.places),
		Replica: s.replica,
		Chunks:  s.chunks(len(s.metas)),
	}
	for i, m := range s.metas {
		out.Chunks[i] = series.Chunk{MinTime: m.minTime, MaxTime: m.maxTime, Resolution: int64(s.source.meta.Resolution())}
	}
	if !s.bytes {
		return out, nil
	}
	return out, s.read(out, s.metas)
}

// read reads the bytes of a series' chunks.
func (s *sourceSet) read(of *series.Series, metas []chunkMeta) error {
	for i, m := range metas {
		if err := s.chunk(m.ref, &of.Chunks[i]); err != nil {
			return fmt.Errorf("chunk at %d of %s: %w", m.minTime, of.Labels, inPart(chunkUnreadable, err))
		}
	}
	return nil
}

// slab is how many chunks are allocated at a time. More of them would keep windows in
// memory for the sake of chunks that nobody needs any more.
const slab = 64

// chunks returns so many new chunks.
func (s *sourceSet) chunks(n int) []series.Chunk {
	if n > len(s.slab) {
		if n > slab/4 {
			return make([]series.Chunk, n)
		}
		s.slab = make([]series.Chunk, slab)
	}
	out := s.slab[:n:n]
	s.slab = s.slab[n:]
	return out
}

// chunkMeta is a chunk as its series' entry tells of it.
type chunkMeta struct {
	minTime, maxTime int64
	ref              chunks.BlockChunkRef
}

// entry reads the entry at s.pos: its labels into the builder, its chunks into metas.
func (s *sourceSet) entry() error {
	in, end := s.source.files.Index, s.source.end
	head, err := in.At(s.ctx, s.pos, min(binary.MaxVarintLen32, end-s.pos))
	if err != nil {
		return err
	}
	size, n := binary.Uvarint(head)
	if n <= 0 || size == 0 || size > uint64(end-s.pos) {
		return damagedf(indexUnreadable, "an entry of %d bytes", size)
	}
	b, err := in.At(s.ctx, s.pos+int64(n), int64(size)+crc32.Size)
	if err != nil {
		return err
	}
	s.pos += int64(n) + int64(len(b))
	if b, err = checked(b, indexChecksum); err != nil {
		return err
	}
	d := decoder{b: b}
	symbols := 2 * d.count()
	if s.places, d.b = appendPlaces(s.places[:0], s.source.places, symbols, d.b); uint64(len(s.places)) != symbols {
		return damagedf(indexUnreadable, "a label of unknown symbols")
	}
	s.metas = d.chunks(s.metas[:0])
	if d.bad {
		return damagedf(indexUnreadable, "the entry ends early")
	}
	return nil
}

// appendPlaces reads so many numbers of symbols off the front of b, and gives their places in the
// table and what is left of b; there are fewer where b ends or a symbol is unknown.
func appendPlaces(dst, known []uint32, symbols uint64, b []byte) (places []uint32, rest []byte) {
	for range symbols {
		var symbol uint64
		switch { // most have one byte or two
		case len(b) > 0 && b[0] < 0x80:
			symbol, b = uint64(b[0]), b[1:]
		case len(b) > 1 && b[1] < 0x80:
			symbol, b = uint64(b[0]&0x7f)|uint64(b[1])<<7, b[2:]
		default:
			v, size := binary.Uvarint(b)
			if size <= 0 {
				return dst, b
			}
			symbol, b = v, b[size:]
		}
		if symbol >= uint64(len(known)) {
			return dst, b
		}
		dst = append(dst, known[symbol])
	}
	return dst, b
}

// chunk reads the record of a chunk.
func (s *sourceSet) chunk(ref chunks.BlockChunkRef, c *series.Chunk) error {
	segment, off := ref.Unpack()
	if segment < 0 || segment >= len(s.source.files.Segments) {
		return damagedf(chunkUnreadable, "it is in segment %d of %d", segment+1, len(s.source.files.Segments))
	}
	in := s.source.files.Segments[segment]
	if segment != s.segment {
		if s.segment != noSegment {
			s.source.files.Segments[s.segment].Close()
		}
		s.segment = segment
		if err := checkSegment(s.ctx, in); err != nil {
			return err
		}
	}
	at := int64(off)
	head, err := in.At(s.ctx, at, max(1, min(binary.MaxVarintLen32, in.Size()-at)))
	if err != nil {
		return err
	}
	size, n := binary.Uvarint(head)
	if n <= 0 || size > maxChunk {
		return damagedf(chunkUnreadable, "a chunk of %d bytes", size)
	}
	b, err := in.At(s.ctx, at+int64(n), 1+int64(size)+crc32.Size)
	if err != nil {
		return err
	}
	if b, err = checked(b, chunkChecksum); err != nil {
		return err
	}
	c.Encoding, c.Data = chunkenc.Encoding(b[0]), b[1:]
	return nil
}

// maxChunk is the most that a chunk may have: it would be held in memory.
const maxChunk = 64 << 20

func (s *sourceSet) At() *series.Series                { return s.cur }
func (s *sourceSet) Err() error                        { return s.err }
func (s *sourceSet) Warnings() annotations.Annotations { return nil }

// decoder reads numbers off the front of bytes; bad stays once they ended early.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	if len(d.b) > 0 && d.b[0] < 0x80 { // most are small
		v := uint64(d.b[0])
		d.b = d.b[1:]
		return v
	}
	v, n := binary.Uvarint(d.b)
	return d.take(v, n)
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	return int64(d.take(uint64(v), n))
}

func (d *decoder) take(v uint64, n int) uint64 {
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count is a number of things of which each takes a byte at least.
func (d *decoder) count() uint64 {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.bad = true
		return 0
	}
	return n
}

func (d *decoder) text() string {
	n := d.count()
	str := string(d.b[:n])
	d.b = d.b[n:]
	return str
}

// chunks reads the chunks of a series entry.
func (d *decoder) chunks(dst []chunkMeta) []chunkMeta {
	var prev chunkMeta
	for i := range d.count() {
		var c chunkMeta
		if i == 0 {
			c.minTime = d.varint()
			c.maxTime = c.minTime + int64(d.uvarint())
			c.ref = chunks.BlockChunkRef(d.uvarint())
		} else {
			c.minTime = prev.maxTime + int64(d.uvarint())
			c.maxTime = c.minTime + int64(d.uvarint())
			c.ref = chunks.BlockChunkRef(int64(prev.ref) + d.varint())
		}
		dst = append(dst, c)
		prev = c
	}
	return dst
}
