package store

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/blockindex"
	"github.com/varve-io/varve/pkg/pagecache"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
)

// errCorruptChunk marks a chunk whose bytes contradict its format or its checksum.
var errCorruptChunk = errors.New("corrupt chunk")

const (
	// likelySize is what we expect of a chunk when nothing else is known.
	likelySize = 4 << 10
	// mostSize is the largest chunk we expect; a larger one is read twice.
	mostSize = 256 << 10
	// maxRecord is far beyond what any writer makes of a chunk.
	maxRecord = 16 << 20
	// recordOverhead is what surrounds a chunk in a segment: length, encoding and checksum.
	recordOverhead = chunks.MaxChunkLengthFieldSize + chunks.ChunkEncodingSize + crc32.Size
)

// badChunks counts the chunks that an answer does without.
type badChunks struct {
	mu    sync.Mutex
	count int
	first error
}

func (b *badChunks) add(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.count++; b.first == nil {
		b.first = err
	}
}

// err says which chunks of a block were left out, or is nil.
func (b *badChunks) err(p *pick) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.count == 0 {
		return nil
	}
	return fmt.Errorf("%s: %d chunks left out, the first for: %w", blockText(p), b.count, b.first)
}

// chunkRefs appends the chunks of a series that are wanted to refs. A chunk's record
// ends at the latest where the next chunk of its segment begins; behind the last is next.
func (s *blockStream) chunkRefs(refs []chunkRef, all []blockindex.Chunk, behind chunks.BlockChunkRef) []chunkRef {
	guess := int64(likelySize)
	if most := s.block.meta.Thanos.IndexStats.ChunkMaxSize; most > 0 {
		guess = most + recordOverhead
	}
	for i := range all {
		c := &all[i]
		if !s.overlaps(c.MinTime, c.MaxTime) {
			continue
		}
		next := behind
		if i+1 < len(all) {
			next = all[i+1].Ref
		}
		segment, off := c.Ref.Unpack()
		size := guess
		if nextSegment, end := next.Unpack(); nextSegment == segment && end > off {
			size = int64(end - off)
		}
		refs = append(refs, chunkRef{c.MinTime, c.MaxTime, uint32(segment), uint32(off), uint32(min(size, mostSize))})
	}
	return refs
}

// ahead says until where the segment that was read last is going to be read from off on,
// with no gaps that are worth a request.
func (s *blockStream) ahead(_ pagecache.Object, off int64) int64 {
	if s.reader == nil || s.r.Limit > 0 || s.r.Shard != nil {
		return off // nobody knows
	}
	until, gap := off, s.r.g.cache.ReadOver()
	if len(s.times) == 1 && s.times[0] == s.block.meta.TimeRange() { // so all chunks are wanted
		s.reader.Starts(func(first, next chunks.BlockChunkRef) bool {
			segment, begin := first.Unpack()
			nextSegment, end := next.Unpack()
			if uint32(segment) != s.segment || nextSegment != segment || int64(begin)-until > gap {
				return false
			}
			until = max(until, int64(end))
			return true
		})
		return until
	}
	var refs []chunkRef
	s.reader.Ahead(func(all []blockindex.Chunk, next chunks.BlockChunkRef) bool {
		refs = s.chunkRefs(refs[:0], all, next)
		for _, c := range refs {
			if c.segment != s.segment || int64(c.off)-until > gap {
				return false
			}
			until = max(until, int64(c.off)+int64(c.size))
		}
		return true
	})
	return until
}

// wanted is a chunk that is to be read, and which of the span's it is.
type wanted struct{ segment, off, size, at uint32 }

// run is chunks that lie one after the other in a segment.
type run struct {
	pagecache.Range
	chunks []wanted
}

// maxRun bounds a run, so that little is copied of those that do not arrive in one piece.
const maxRun = 64 << 10

// chunkReader is where chunks come from: the cache, or the stream over it.
type chunkReader interface {
	ReadRanges(ctx context.Context, ranges []pagecache.Range) (*pagecache.Lease, error)
}

// fill reads chunks of the block into those of a span. Their data lie where they arrived from
// the bucket, which the lease holds, or where they are cached. A chunk that is corrupt is left
// without data, if the answer may be partial.
func (s *blockStream) fill(ctx context.Context, into []series.Chunk, all []wanted, from chunkReader) (*pagecache.Lease, error) {
	defer s.r.stats.chunks.since(time.Now())
	runs, err := s.runs(all)
	if err != nil {
		return nil, err
	}
	ranges := make([]pagecache.Range, len(runs))
	var size int64
	for i := range runs {
		ranges[i] = runs[i].Range
		size += ranges[i].Len
	}
	if err := s.r.usage.readBytes(size); err != nil {
		return nil, err
	}
	s.r.g.metrics.chunkBytes.Add(float64(size))
	if from == chunkReader(s.stream) && len(all) > 0 {
		s.segment = all[len(all)-1].segment // runs has sorted them
	}
	lease, err := from.ReadRanges(ctx, ranges)
	if err != nil {
		return nil, err
	}
	for i := range runs {
		runs[i].Bytes = ranges[i].Bytes
	}
	samples, err := s.take(ctx, into, runs)
	if err == nil {
		err = s.r.usage.readSamples(samples)
	}
	if err != nil {
		lease.Release()
		return nil, err
	}
	return lease, nil
}

// take sets the chunks of runs that were read, and counts their samples while their bytes are
// at hand, if there is a limit.
func (s *blockStream) take(ctx context.Context, into []series.Chunk, runs []run) (samples int, err error) {
	counts := s.r.usage.limits.Samples > 0
	for i := range runs {
		r := &runs[i]
		for j := range r.chunks {
			c := &r.chunks[j]
			from := int64(c.off) - r.Off
			b := r.Bytes[from:min(from+int64(c.size), r.Len)]
			rec, err := parseRecord(b)
			if err != nil || rec.size > int64(len(b)) {
				rec, err = s.chunk(ctx, r.Object, int64(c.off), b)
			}
			if errors.Is(err, errCorruptChunk) {
				err = s.leaveOut(err)
			}
			if err != nil {
				return samples, err
			}
			chunk := &into[c.at]
			chunk.Encoding, chunk.Data = rec.encoding, rec.data
			if counts {
				n, _ := chunk.NumSamples() // a damaged chunk has none
				samples += n
			}
		}
	}
	return samples, nil
}

// runs sorts chunks and joins those that touch.
func (s *blockStream) runs(all []wanted) (runs []run, err error) {
	byPlace := func(a, b wanted) int { return cmp.Or(cmp.Compare(a.segment, b.segment), cmp.Compare(a.off, b.off)) }
	if !slices.IsSortedFunc(all, byPlace) {
		slices.SortFunc(all, byPlace)
	}
	var segment uint32 // of the last run
	first := 0
	for i, c := range all {
		off, end := int64(c.off), int64(c.off)+int64(c.size)
		n := len(runs) - 1
		same := n >= 0 && c.segment == segment
		if same && off <= runs[n].Off+runs[n].Len && end-runs[n].Off <= maxRun {
			last := &runs[n]
			last.Len = max(last.Len, min(end, last.Object.Size)-last.Off)
			last.chunks = all[first : i+1]
			continue
		}
		var object pagecache.Object
		var err error
		if same {
			object = runs[n].Object
		} else {
			object, err = s.block.segment(int(c.segment))
		}
		if err == nil && off >= object.Size {
			err = fmt.Errorf("%w: byte %d of %s with %d", errCorruptChunk, off, object.Name, object.Size)
		}
		if err != nil {
			if err := s.leaveOut(err); err != nil {
				return nil, err
			}
			continue
		}
		segment, first = c.segment, i
		runs = append(runs, run{pagecache.Range{Object: object, Off: off, Len: min(end, object.Size) - off}, all[i : i+1]})
	}
	return runs, nil
}

// leaveOut counts a chunk that is corrupt, or returns the error if the answer must be whole.
func (s *blockStream) leaveOut(err error) error {
	if s.r.Partial == storeapi.Abort {
		return err
	}
	s.bad.add(err)
	return nil
}

// chunk takes the chunk whose record begins at off out of b, which begins there
// too. A record that is longer than b, or does not have its checksum, is read
// again by itself.
func (s *blockStream) chunk(ctx context.Context, o pagecache.Object, off int64, b []byte) (record, error) {
	var wrong error
	for range 3 { // the second may only bring the length
		rec, err := parseRecord(b)
		if err == nil && rec.size <= int64(len(b)) {
			return rec, nil
		}
		if wrong = err; err != nil {
			s.r.g.cache.Forget(o, off, int64(len(b))) //nolint:contextcheck // wrong bytes go even if the request ends
			rec.size = int64(len(b))
		}
		if rec.size > min(o.Size-off, maxRecord) {
			wrong = fmt.Errorf("%w: a record of %d bytes", errCorruptChunk, rec.size)
			break
		}
		s.r.g.metrics.refetches.Inc()
		if err := s.r.usage.readBytes(rec.size); err != nil {
			return record{}, err
		}
		b = make([]byte, rec.size)
		if err := s.r.g.cache.Read(ctx, o, b, off); err != nil {
			return record{}, err
		}
	}
	if wrong == nil {
		wrong = fmt.Errorf("%w: length", errCorruptChunk)
	}
	return record{}, fmt.Errorf("%w at %d of %s with %d bytes", wrong, off, o.Name, o.Size)
}

// record is a chunk as a segment holds it: length, encoding, data, checksum.
type record struct {
	encoding chunkenc.Encoding
	data     []byte
	size     int64 // of the whole record
}

// parseRecord reads the record at the beginning of b. When b is too short for it
// only size is set: how long the record is, or at least is.
func parseRecord(b []byte) (record, error) {
	length, n := binary.Uvarint(b[:min(len(b), chunks.MaxChunkLengthFieldSize)])
	switch {
	case n == 0 && len(b) < chunks.MaxChunkLengthFieldSize:
		return record{size: chunks.MaxChunkLengthFieldSize + 1}, nil
	case n <= 0:
		return record{}, fmt.Errorf("%w: length", errCorruptChunk)
	}
	begin := int64(n)
	end := begin + chunks.ChunkEncodingSize + int64(length)
	size := end + crc32.Size
	if size > int64(len(b)) {
		return record{size: size}, nil
	}
	if crc32.Checksum(b[begin:end], crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32(b[end:]) {
		return record{}, fmt.Errorf("%w: checksum", errCorruptChunk)
	}
	encoding := chunkenc.Encoding(b[begin])
	if !chunkenc.IsValidEncoding(encoding) && encoding != aggrchunk.Encoding {
		return record{}, fmt.Errorf("%w: encoding %d is unknown", errCorruptChunk, encoding)
	}
	return record{encoding, b[begin+chunks.ChunkEncodingSize : end : end], size}, nil
}
