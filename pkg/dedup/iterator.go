package dedup

import (
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
)

// stretch is how much time floats are decoded for at once: long beside the cell before it, which has to be read,
// too, and short enough that thousands of iterators may stand side by side.
const stretch = 6 * Cell

// Iterators read groups sample by sample, as Prometheus' engine wants to. Its zero value is not usable;
// it is safe for concurrent use.
type Iterators struct {
	opts    Options
	stretch int64 // a multiple of Cell

	mu   sync.Mutex
	free []*Reader // which serve one iterator after the other
}

// NewIterators makes Iterators.
func NewIterators(o Options) *Iterators { return &Iterators{opts: o, stretch: stretch} }

// Raw reports whether a group has nothing but samples as they were scraped, which iterators can read.
func (g *Group) Raw() bool {
	k := kinds(g.replicas)
	return len(k) == 1 && !k[0].aggregate
}

// Span is from the first to the last time that the chunks of a group name, which has one at least.
func (g *Group) Span() (first, last int64) {
	first, last = math.MaxInt64, math.MinInt64
	for _, chunks := range g.replicas {
		for i := range chunks {
			first, last = min(first, chunks[i].MinTime), max(last, chunks[i].MaxTime)
		}
	}
	return first, last
}

// Chunks deduplicates a group of any kind.
func (p *Iterators) Chunks(g *Group) ([]series.Chunk, error) {
	r := p.take()
	defer p.give(r)
	chunks, err := r.dedup.chunks(g, p.opts)
	if err != nil {
		return nil, fmt.Errorf("series %s: %w", g.Labels, err)
	}
	return chunks, nil
}

// Iterator reads a raw group from mint to maxt, both inclusive: what decoding its deduplicated chunks gives.
// Floats are decoded a stretch of time at once, without making chunks, and histograms chunk by chunk. An iterator that came from here is used again.
func (p *Iterators) Iterator(g *Group, mint, maxt int64, it chunkenc.Iterator) chunkenc.Iterator {
	c, ok := it.(*columns)
	if !ok {
		c = &columns{}
	}
	c.s.Reset()
	*c = columns{from: p, group: g, next: mint, maxt: maxt, s: c.s, memory: c.memory, left: c.left[:0], part: c.part[:0], at: -1}
	c.direct = p.opts.Func != Penalty && g.floats() // where a penalty's walk begins matters
	if !c.direct {
		return c
	}
	for _, chunks := range g.replicas {
		if !slices.IsSortedFunc(chunks, series.CompareChunks) {
			chunks = slices.Clone(chunks)
			slices.SortFunc(chunks, series.CompareChunks)
		}
		c.left = append(c.left, chunks)
	}
	return c
}

func (p *Iterators) take() *Reader {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.free)
	if n == 0 {
		return NewReader(p.opts)
	}
	r := p.free[n-1]
	p.free = p.free[:n-1]
	return r
}

func (p *Iterators) give(r *Reader) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, r)
}

// columns reads decoded samples.
type columns struct {
	from  *Iterators
	group *Group
	next  int64 // the first time that was not decoded
	maxt  int64
	ended bool // nothing is left to be decoded

	s       chunkcodec.Samples
	at, end int                // the current sample, and where those asked for end
	typ     chunkenc.ValueType // of the current sample

	// Of a group of floats, which need not become chunks:
	direct     bool
	left, part [][]series.Chunk // what replicas have near next and behind it, sorted; and what one stretch needs

	// Of others:
	merged bool           // chunks is set
	chunks []series.Chunk // those that were not decoded
	memory chunkcodec.Decoder

	err error
}

func (c *columns) Next() chunkenc.ValueType {
	if c.at++; c.at < c.end {
		return c.look()
	}
	return c.load(math.MinInt64)
}

func (c *columns) Seek(t int64) chunkenc.ValueType { //nolint:govet // Prometheus' Seek, not io.Seeker's
	if c.typ != chunkenc.ValNone && c.s.T[c.at] >= t {
		return c.typ
	}
	at := max(c.at, 0)
	if n, _ := search(c.s.T[at:c.end], t); at+n < c.end {
		c.at = at + n
		return c.look()
	}
	return c.load(t)
}

// look finds out the type of the current sample.
func (c *columns) look() chunkenc.ValueType {
	c.typ = chunkenc.ValFloat
	if !c.direct {
		c.typ = c.s.Type(c.at)
	}
	return c.typ
}

// load goes on to the first sample at t or later that is not decoded yet.
func (c *columns) load(t int64) chunkenc.ValueType {
	c.next = max(c.next, t)
	for !c.ended && c.err == nil {
		c.s.Reset()
		c.at, c.end = 0, 0
		if c.direct {
			c.err = c.loadStretch()
		} else {
			c.err = c.loadChunk()
		}
		if c.err == nil && c.at < c.end {
			return c.look()
		}
	}
	c.at, c.end, c.typ = 0, 0, chunkenc.ValNone
	return chunkenc.ValNone
}

// keep leaves the decoded samples from one time to another, both inclusive, behind which the next begin.
func (c *columns) keep(from, to int64) {
	c.ended = c.ended || to >= c.maxt
	to = min(to, c.maxt)
	c.at, _ = search(c.s.T, from)
	if c.end = c.s.Len(); to < math.MaxInt64 {
		c.end, _ = search(c.s.T, to+1)
		c.next = max(c.next, to+1)
	}
}

// loadStretch decodes floats, if there are any left.
func (c *columns) loadStretch() error {
	c.pass()
	from := int64(math.MaxInt64)
	for _, chunks := range c.left {
		for i := range chunks {
			if chunks[i].MinTime >= from {
				break
			}
			if chunks[i].MaxTime >= c.next {
				from = chunks[i].MinTime
			}
		}
	}
	if from > c.maxt || from == math.MaxInt64 {
		c.ended = true
		return nil
	}
	from = max(from, c.next)
	to := min(c.maxt, saturate(cellStart(from), c.from.stretch-1))
	part := c.within(Widen(from, to))
	r := c.from.take()
	defer c.from.give(r)
	if err := r.floats(&c.s, &part, from, to); err != nil {
		return fmt.Errorf("series %s: %w", c.group.Labels, err)
	}
	c.keep(from, to)
	return nil
}

// pass leaves behind what nothing that follows depends on.
func (c *columns) pass() {
	lo, _ := Widen(c.next, c.next)
	for i, chunks := range c.left {
		for len(chunks) > 0 && chunks[0].MaxTime < lo {
			chunks = chunks[1:]
		}
		c.left[i] = chunks
	}
}

// within are the chunks that overlap a range, both ends inclusive, and some between them.
func (c *columns) within(mint, maxt int64) Group {
	c.part = c.part[:0]
	merged := false
	for i, chunks := range c.left {
		end, first := 0, -1
		for ; end < len(chunks) && chunks[end].MinTime <= maxt; end++ {
			if first < 0 && chunks[end].MaxTime >= mint {
				first = end
			}
		}
		if first >= 0 {
			c.part = append(c.part, chunks[first:end])
			merged = merged || i == 0 && c.group.merged
		}
	}
	return Group{replicas: c.part, merged: merged}
}

// loadChunk decodes the next deduplicated chunk, if there is one.
func (c *columns) loadChunk() (err error) {
	if !c.merged {
		if c.chunks, err = c.from.Chunks(c.group); err != nil {
			return err
		}
		c.merged = true
	}
	for len(c.chunks) > 0 && c.chunks[0].MaxTime < c.next {
		c.chunks = c.chunks[1:]
	}
	if len(c.chunks) == 0 || c.chunks[0].MinTime > c.maxt {
		c.ended = true
		return nil
	}
	chunk := c.chunks[0]
	c.chunks = c.chunks[1:]
	c.memory.Reset()
	if err := c.memory.Decode(chunk.Encoding, chunk.Data, &c.s); err != nil {
		return fmt.Errorf("series %s: chunk from %d to %d: %w", c.group.Labels, chunk.MinTime, chunk.MaxTime, err)
	}
	c.keep(c.next, max(c.next, chunk.MaxTime))
	return nil
}

func (c *columns) At() (int64, float64) { return c.s.T[c.at], c.s.V[c.at] }

func (c *columns) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	if h == nil {
		h = &histogram.Histogram{}
	}
	c.s.H[c.at].CopyTo(h)
	return c.s.T[c.at], h
}

func (c *columns) AtFloatHistogram(h *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	if c.typ == chunkenc.ValHistogram {
		return c.s.T[c.at], c.s.H[c.at].ToFloat(h)
	}
	if h == nil {
		h = &histogram.FloatHistogram{}
	}
	c.s.FH[c.at].CopyTo(h)
	return c.s.T[c.at], h
}

func (c *columns) AtT() int64  { return c.s.T[c.at] }
func (c *columns) AtST() int64 { return c.s.Start(c.at) }
func (c *columns) Err() error  { return c.err }

// floats reports whether a group has no histograms.
func (g *Group) floats() bool {
	for _, chunks := range g.replicas {
		for i := range chunks {
			if !isFloat(&chunks[i]) {
				return false
			}
		}
	}
	return true
}
