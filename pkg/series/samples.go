package series

import (
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/chunkcodec"
)

// Open wraps the chunk's bytes as one of Prometheus' chunks. Damaged headers
// are an error; damage further inside is reported by the iterator.
func (c Chunk) Open() (chunkenc.Chunk, error) {
	if c.Encoding == aggrchunk.Encoding {
		return aggrchunk.NewChunk(c.Data), nil
	}
	return chunkcodec.Open(c.Encoding, c.Data)
}

// NumSamples is how many samples, or windows of an aggregate chunk, the chunk's
// header states. Damaged headers are an error, as for Open.
func (c Chunk) NumSamples() (int, error) {
	if c.Encoding == aggrchunk.Encoding {
		return aggrchunk.NumSamples(c.Data), nil
	}
	return chunkcodec.NumSamples(c.Encoding, c.Data)
}

// Classic returns the chunk in an encoding that Thanos reads, without start
// timestamps. A chunk in such an encoding is returned as it is.
func (c Chunk) Classic() (Chunk, error) {
	if c.Encoding == aggrchunk.Encoding {
		return c, nil
	}
	var err error
	if c.Encoding, c.Data, err = chunkcodec.Transcode(c.Encoding, c.Data); err != nil {
		return Chunk{}, fmt.Errorf("chunk at %d: %w", c.MinTime, err)
	}
	return c, nil
}

// Samples reads raw chunks, sorted by CompareChunks, as one sequence of
// samples with strictly increasing times from mint to maxt, both inclusive.
// Chunks may overlap: where several hold a sample of the same time, that of
// the first of them in the list counts.
//
// A histogram whose predecessor in its chunk is not the sample emitted before
// loses its knowledge about counter resets. it is reused when it came from
// here. Aggregate chunks are an error.
func Samples(chunks []Chunk, mint, maxt int64, it chunkenc.Iterator) chunkenc.Iterator {
	s, ok := it.(*samples)
	if !ok {
		s = &samples{}
	}
	s.reset(chunks, mint, maxt)
	return s
}

// noChunk is the index of no chunk.
const noChunk = -1

// samples merges the iterators of the chunks that overlap the current time.
type samples struct {
	chunks     []Chunk
	mint, maxt int64
	next       int      // index of the chunk to open next
	open       []cursor // every one stands at a sample that was not emitted, but the current one
	at         int      // position in open, noChunk before the first and after the last sample
	last       int      // index of the chunk of the last sample emitted
	lastT      int64
	follows    bool // the current sample directly follows the last one in its chunk
	ended      bool
	err        error
	spare      chunkenc.Iterator
}

// cursor is an open chunk at one of its samples.
type cursor struct {
	chunk int // index
	it    chunkenc.Iterator
	typ   chunkenc.ValueType
	t     int64
}

func (s *samples) reset(chunks []Chunk, mint, maxt int64) {
	open := s.open[:0]
	spare := s.spare
	if len(s.open) > 0 {
		spare = s.open[0].it
	}
	*s = samples{chunks: chunks, mint: mint, maxt: maxt, open: open, spare: spare, at: noChunk, last: noChunk}
}

func (s *samples) Next() chunkenc.ValueType {
	floor := s.mint
	if s.at != noChunk {
		if s.lastT == math.MaxInt64 {
			return s.end(nil)
		}
		floor = s.lastT + 1
	}
	return s.advance(floor, s.last)
}

func (s *samples) Seek(t int64) chunkenc.ValueType { //nolint:govet // Prometheus' Seek, not io.Seeker's
	if s.at != noChunk && s.lastT >= t {
		return s.open[s.at].typ
	}
	floor := max(t, s.mint)
	if s.at != noChunk && floor == s.lastT+1 {
		return s.advance(floor, s.last)
	}
	return s.advance(floor, noChunk)
}

// advance moves to the first sample at or after floor. A sample of the chunk
// follower is known to follow the one emitted last.
func (s *samples) advance(floor int64, follower int) chunkenc.ValueType {
	if s.ended {
		return chunkenc.ValNone
	}
	if err := s.moveOpen(floor); err != nil {
		return s.end(err)
	}
	first := s.first()
	for s.next < len(s.chunks) {
		c := s.chunks[s.next]
		if c.MinTime > s.maxt || (first != noChunk && c.MinTime > s.open[first].t) {
			break
		}
		s.next++
		if c.MaxTime < floor {
			continue
		}
		if err := s.openChunk(s.next-1, floor); err != nil {
			return s.end(err)
		}
		first = s.first()
	}
	if first == noChunk || s.open[first].t > s.maxt {
		return s.end(nil)
	}
	cur := s.open[first]
	s.follows = cur.chunk == follower
	s.at, s.last, s.lastT = first, cur.chunk, cur.t
	return cur.typ
}

// moveOpen moves every open chunk to floor and closes those that end before.
func (s *samples) moveOpen(floor int64) error {
	kept := s.open[:0]
	for _, c := range s.open {
		if c.t >= floor {
			kept = append(kept, c)
			continue
		}
		if c.typ = c.it.Seek(floor); c.typ == chunkenc.ValNone {
			if err := c.it.Err(); err != nil {
				return s.damage(c.chunk, err)
			}
			s.spare = c.it
			continue
		}
		c.t = c.it.AtT()
		kept = append(kept, c)
	}
	s.open = kept
	return nil
}

func (s *samples) openChunk(i int, floor int64) error {
	c := s.chunks[i]
	if c.Encoding == aggrchunk.Encoding {
		return fmt.Errorf("read samples of an aggregate chunk at %d: %w", c.MinTime, chunkcodec.ErrInvalid)
	}
	chunk, err := c.Open()
	if err != nil {
		return err
	}
	it := chunk.Iterator(s.spare)
	s.spare = nil
	typ := it.Seek(floor)
	if typ == chunkenc.ValNone {
		if err := it.Err(); err != nil {
			return s.damage(i, err)
		}
		s.spare = it
		return nil
	}
	s.open = append(s.open, cursor{chunk: i, it: it, typ: typ, t: it.AtT()})
	return nil
}

func (s *samples) damage(i int, err error) error {
	c := s.chunks[i]
	return fmt.Errorf("read %s chunk from %d to %d: %w: %w", c.Encoding, c.MinTime, c.MaxTime, chunkcodec.ErrInvalid, err)
}

// first is the position of the earliest open sample, of equal ones that of the first chunk.
func (s *samples) first() int {
	best := noChunk
	for i, c := range s.open { // in the order of chunks
		if best == noChunk || c.t < s.open[best].t {
			best = i
		}
	}
	return best
}

func (s *samples) end(err error) chunkenc.ValueType {
	s.ended, s.err, s.at = true, err, noChunk
	return chunkenc.ValNone
}

func (s *samples) At() (int64, float64) { return s.open[s.at].it.At() }

func (s *samples) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	t, h := s.open[s.at].it.AtHistogram(h)
	if !s.follows && h.CounterResetHint != histogram.GaugeType {
		h.CounterResetHint = histogram.UnknownCounterReset
	}
	return t, h
}

func (s *samples) AtFloatHistogram(h *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	t, h := s.open[s.at].it.AtFloatHistogram(h)
	if !s.follows && h.CounterResetHint != histogram.GaugeType {
		h.CounterResetHint = histogram.UnknownCounterReset
	}
	return t, h
}

func (s *samples) AtT() int64  { return s.lastT }
func (s *samples) AtST() int64 { return s.open[s.at].it.AtST() }
func (s *samples) Err() error  { return s.err }
