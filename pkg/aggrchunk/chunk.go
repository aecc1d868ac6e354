package aggrchunk

import (
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// errNotIterable is what reading an aggregate chunk as one series of samples, or appending to it, ends in.
var errNotIterable = errors.New("an aggregate chunk has no samples of its own; decode it into its aggregates")

// Chunk is a payload in the shape that Prometheus' block readers and writers
// carry around. It only carries: its samples are read through Decode.
type Chunk struct{ payload []byte }

// NewChunk wraps a payload without looking at it.
func NewChunk(payload []byte) *Chunk { return &Chunk{payload: payload} }

// Bytes returns the payload.
func (c *Chunk) Bytes() []byte { return c.payload }

// Encoding returns 0xff.
func (c *Chunk) Encoding() chunkenc.Encoding { return Encoding }

// NumSamples returns the number of windows.
func (c *Chunk) NumSamples() int { return NumSamples(c.payload) }

// Compact does nothing.
func (c *Chunk) Compact() {}

// Reset replaces the payload.
func (c *Chunk) Reset(payload []byte) { c.payload = payload }

// Appender returns an error.
func (c *Chunk) Appender() (chunkenc.Appender, error) { return nil, errNotIterable }

// Iterator returns an iterator that only has an error.
func (c *Chunk) Iterator(chunkenc.Iterator) chunkenc.Iterator {
	return errIterator{Iterator: chunkenc.NewNopIterator(), err: errNotIterable}
}

type errIterator struct {
	chunkenc.Iterator
	err error
}

func (it errIterator) Err() error { return it.err }

type pool struct{ raw chunkenc.Pool }

// NewPool returns a chunk pool for Prometheus' readers that knows aggregate
// chunks beside the encodings of Prometheus.
func NewPool() chunkenc.Pool { return pool{raw: chunkenc.NewPool()} }

func (p pool) Get(e chunkenc.Encoding, b []byte) (chunkenc.Chunk, error) {
	if e == Encoding {
		return NewChunk(b), nil
	}
	c, err := p.raw.Get(e, b)
	if err != nil {
		return nil, fmt.Errorf("take chunk from pool: %w", err)
	}
	return c, nil
}

func (p pool) Put(c chunkenc.Chunk) error {
	if c.Encoding() == Encoding {
		return nil // two words; the garbage collector is pool enough
	}
	if err := p.raw.Put(c); err != nil {
		return fmt.Errorf("put chunk into pool: %w", err)
	}
	return nil
}
