package blockscan

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/series"
)

// Scan reads the series of the block from the first to the last, with all chunks
// that can be read, and calls report with what is wrong, in any order of places.
// Series and chunks are handed out where they stand: if Stats are not Sorted, a
// series may come before its predecessor, or twice.
func (b *Block) Scan(ctx context.Context, report func(Finding)) *Scanner {
	s := &Scanner{ctx: ctx, block: b, report: report, gap: noGap, missing: map[string]bool{}}
	s.stats.Sorted = true
	count := func(f Finding) {
		s.missing[f.File] = s.missing[f.File] || f.Kind == Missing
		report(f)
	}
	b.checkFiles(count)
	if b.index != nil {
		s.index = openIndex(b.index.data, report)
		s.pos = s.index.start
	}
	return s
}

// Stats are what a scan saw.
type Stats struct {
	block.Stats // of what can be read

	// Sorted says that series came in the order of their labels, each once, and so did chunks, none overlapping another.
	Sorted bool
	// Gaps counts the places of the index where one series or more cannot be read,
	// LostChunks the chunks of readable series that cannot.
	Gaps, LostChunks uint64
	// Symbols says that the index has readable symbols; without them no series is.
	Symbols bool
}

// noGap is the position of no gap.
const noGap = -1

// Scanner iterates the series of a block. It is a series.Set, sorted if the block
// is. Labels are copies; the data of chunks are valid until the block is closed.
type Scanner struct {
	ctx    context.Context //nolint:containedctx // an iterator lives as long as its request
	block  *Block
	report func(Finding)
	index  *indexFile
	reader reader

	pos, gap int // of the next entry; of the first byte that belongs to no series
	problem  string
	missing  map[string]bool // files whose absence was reported
	tables   *tables         // nil unless postings are to be compared

	cur     *series.Series
	lost    []Loss
	prev    labels.Labels
	builder labels.ScratchBuilder
	stats   Stats
	err     error
}

// Next moves to the next series that can be read, even if none of its chunks can.
func (s *Scanner) Next() bool {
	for s.err == nil && s.index != nil && s.index.usable {
		if s.err = s.ctx.Err(); s.err != nil {
			break
		}
		at, content := s.entry()
		if content == nil {
			break
		}
		if s.load(at, content) {
			return true
		}
	}
	s.cur, s.lost = nil, nil
	return false
}

// At returns the series. What can be read of its chunks is sorted.
func (s *Scanner) At() *series.Series { return s.cur }

// Lost returns the spans of the series that cannot be read, in the order of time.
func (s *Scanner) Lost() []Loss { return s.lost }

// Err is an error that ended the scan early: that of its context.
func (s *Scanner) Err() error { return s.err }

// Warnings returns nothing.
func (s *Scanner) Warnings() annotations.Annotations { return nil }

// Symbols returns all strings that labels are made of, sorted; none if they cannot be read.
func (s *Scanner) Symbols() []string {
	if s.index == nil {
		return nil
	}
	return s.index.symbols.strings
}

// Stats returns the counts so far.
func (s *Scanner) Stats() Stats {
	s.stats.Symbols = s.index != nil && s.index.usable
	return s.stats
}

func (s *Scanner) found(kind Kind, at int, format string, args ...any) {
	s.report(Finding{kind, block.IndexFile, int64(at), fmt.Sprintf(format, args...)})
}

// entry returns the next series entry whose checksum is right, and its offset.
func (s *Scanner) entry() (at int, content []byte) {
	x := s.index
	for s.pos < x.end {
		at := s.pos
		content, next, problem := readEntry(x.data[:x.end], at)
		if problem == "" {
			s.endGap(at)
			s.pos = next
			return at, content
		}
		if s.gap == noGap {
			s.gap, s.problem = at, problem
		}
		s.pos += seriesAlign
	}
	if x.toc != nil {
		s.endGap(x.end)
	} else { // what follows may be series that cannot be read, or the rest of the index
		s.stats.Gaps++
		s.gap = noGap
	}
	return 0, nil
}

// endGap reports the bytes before at that belong to no series.
func (s *Scanner) endGap(at int) {
	if s.gap == noGap {
		return
	}
	s.stats.Gaps++
	s.found(Checksum, s.gap, "series entry: %s; the next one that can be read is at %d", s.problem, at)
	s.gap = noGap
}

// readEntry takes the series entry at an offset: its length, content and checksum.
func readEntry(data []byte, at int) (content []byte, next int, problem string) {
	d := decoder{b: data[at:]}
	n := d.uvarint()
	if d.bad || n == 0 || n > uint64(len(d.b)) || uint64(len(d.b))-n < checksumSize {
		return nil, 0, "it reaches beyond the series' end"
	}
	content = d.bytes(n)
	if got, want := checksum(content), d.be32(); got != want {
		return nil, 0, fmt.Sprintf("checksum is %08x, its bytes give %08x", want, got)
	}
	return content, align(len(data) - len(d.b)), ""
}

// load decodes an entry and reads its chunks.
func (s *Scanner) load(at int, content []byte) bool {
	d := decoder{b: content}
	lset, problem := s.labels(&d)
	if problem == "" && d.bad {
		problem = "its labels reach beyond its end"
	}
	if problem != "" {
		s.stats.Gaps++
		s.found(Malformed, at, "series entry: %s", problem)
		return false
	}
	if s.tables != nil {
		s.tables.series(at, content)
	}
	s.checkLabels(at, lset)
	s.cur, s.lost = &series.Series{Labels: lset}, nil
	s.chunks(at, &d)
	s.stats.NumSeries++
	return true
}

func (s *Scanner) labels(d *decoder) (labels.Labels, string) {
	n := d.uvarint()
	s.builder.Reset()
	for range n {
		name, ok1 := s.index.symbols.at(d.uvarint())
		value, ok2 := s.index.symbols.at(d.uvarint())
		if d.bad {
			return labels.EmptyLabels(), ""
		}
		if !ok1 || !ok2 {
			return labels.EmptyLabels(), "it refers to a symbol that is not in the table"
		}
		s.builder.Add(name, value)
	}
	return s.builder.Labels(), ""
}

// checkLabels reports labels that are out of order inside the series or between series. It puts the first right.
func (s *Scanner) checkLabels(at int, lset labels.Labels) {
	if name, twice := lset.HasDuplicateLabelNames(); twice {
		s.found(Duplicate, at, "series %s has label %s twice", lset, name)
	}
	last, sorted := "", true
	lset.Range(func(l labels.Label) {
		sorted = sorted && l.Name >= last
		last = l.Name
	})
	if !sorted {
		s.found(Order, at, "labels of series %s are out of order", lset)
		s.stats.Sorted = false
	}
	switch c := labels.Compare(s.prev, lset); {
	case s.stats.NumSeries == 0 || c < 0:
	case c == 0:
		s.found(Duplicate, at, "series %s comes twice", lset)
		s.stats.Sorted = false
	default:
		s.found(Order, at, "series %s comes after %s", lset, s.prev)
		s.stats.Sorted = false
	}
	s.prev = lset
}

// chunks reads the chunks that the rest of an entry refers to.
func (s *Scanner) chunks(at int, d *decoder) {
	n := d.uvarint()
	var last int64 // end of the chunk before
	var ref uint64
	for i := range n {
		var c series.Chunk
		if i == 0 {
			c.MinTime = d.varint()
			c.MaxTime = c.MinTime + int64(d.uvarint())
			ref = d.uvarint()
		} else {
			c.MinTime = last + int64(d.uvarint())
			c.MaxTime = c.MinTime + int64(d.uvarint())
			ref += uint64(d.varint())
		}
		if d.bad {
			s.found(Malformed, at, "series %s: its entry ends after %d of %d chunks", s.cur.Labels, i, n)
			s.lose(Loss{s.block.meta.TimeRange(), block.IndexFile, int64(at)})
			break
		}
		last = c.MaxTime
		s.chunk(c, chunks.ChunkRef(ref))
	}
	s.orderChunks(at)
}

func (s *Scanner) lose(l Loss) {
	s.stats.LostChunks++
	s.lost = append(s.lost, l)
}

// chunk reads one chunk wholly and adds it to the series, or to what is lost of it.
func (s *Scanner) chunk(c series.Chunk, ref chunks.ChunkRef) {
	enc, data, place := s.block.chunkAt(ref)
	report := func(kind Kind, format string, args ...any) {
		s.report(Finding{kind, place.File, place.Offset, fmt.Sprintf("chunk from %d to %d of %s: ", c.MinTime, c.MaxTime, s.cur.Labels) + fmt.Sprintf(format, args...)})
	}
	loss := Loss{block.TimeRange{MinTime: c.MinTime, MaxTime: after(c.MaxTime)}, place.File, place.Offset}
	if place.Kind == Missing {
		if !s.missing[place.File] {
			s.missing[place.File] = true
			s.report(Finding{Missing, place.File, Whole, place.Detail})
		}
		s.lose(loss)
		return
	}
	if place.Kind != "" {
		report(place.Kind, "%s", place.Detail)
		s.lose(loss)
		return
	}
	c.Encoding, c.Data = enc, data
	c.Resolution = int64(s.block.meta.Resolution())
	in, err := s.reader.read(c)
	if err != nil {
		report(Malformed, "%s", err)
		s.lose(loss)
		return
	}
	if in.first != c.MinTime || in.last != c.MaxTime {
		report(Outside, "its samples are from %d to %d", in.first, in.last)
		c.MinTime, c.MaxTime = in.first, in.last
	}
	if r := s.block.meta.TimeRange(); c.MinTime < r.MinTime || c.MaxTime >= r.MaxTime {
		report(Outside, "it reaches outside the block's range [%d, %d)", r.MinTime, r.MaxTime)
	}
	s.count(enc, uint64(in.samples))
	s.cur.Chunks = append(s.cur.Chunks, c)
}

// after is the instant behind an inclusive end.
func after(t int64) int64 {
	if t == math.MaxInt64 {
		return t
	}
	return t + 1
}

func (s *Scanner) count(enc chunkenc.Encoding, samples uint64) {
	s.stats.NumChunks++
	s.stats.NumSamples += samples
	switch enc {
	case chunkenc.EncXOR, chunkenc.EncXOR2:
		s.stats.NumFloatSamples += samples
	case chunkenc.EncHistogram, chunkenc.EncFloatHistogram, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST:
		s.stats.NumHistogramSamples += samples
	}
}

// orderChunks reports chunks that do not follow each other, and sorts them.
func (s *Scanner) orderChunks(at int) {
	list := s.cur.Chunks
	for i := 1; i < len(list); i++ {
		if c, before := list[i], list[i-1]; c.MinTime <= before.MaxTime {
			kind := Overlap
			if c.MinTime < before.MinTime {
				kind = Order
			}
			s.found(kind, at, "series %s: chunk from %d to %d comes after that from %d to %d", s.cur.Labels, c.MinTime, c.MaxTime, before.MinTime, before.MaxTime)
			s.stats.Sorted = false
		}
	}
	slices.SortStableFunc(list, series.CompareChunks)
	slices.SortStableFunc(s.lost, func(a, b Loss) int { return cmp.Compare(a.MinTime, b.MinTime) })
}

var _ series.Set = (*Scanner)(nil)
