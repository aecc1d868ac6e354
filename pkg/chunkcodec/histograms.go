package chunkcodec

import (
	"fmt"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// encodeHistograms encodes histograms, all of the type that enc holds, into one chunk.
func encodeHistograms(enc chunkenc.Encoding, s *Samples, reset chunkenc.CounterResetHeader) ([]byte, error) {
	var w writer
	if err := w.open(enc); err != nil {
		return nil, err
	}
	for i := range s.T {
		full, err := w.append(s, i)
		if err != nil {
			return nil, err
		}
		if full != nil {
			return nil, fmt.Errorf("encode histograms as %s: %w", enc, ErrUnfit)
		}
	}
	data := w.chunk.Bytes()
	if p := resetByte(enc); p >= 0 && s.Len() > 0 {
		data[p] = data[p]&^chunkenc.CounterResetHeaderMask | byte(reset)
	}
	return data, nil
}

// appendHistograms appends chunks of the histograms, all of one type, from position from up to to.
func appendHistograms(dst []Chunk, s *Samples, from, to int) ([]Chunk, error) {
	var w writer
	for i := from; i < to; i++ {
		started := s.Start(i) != 0
		if enc := s.Type(i).ChunkEncoding(started, started); w.chunk == nil || w.n >= MaxSamples || w.chunk.Encoding() != enc {
			dst = w.flush(dst)
			if err := w.open(enc); err != nil {
				return dst, err
			}
		}
		full, err := w.append(s, i)
		if err != nil {
			return dst, err
		}
		if full != nil {
			dst = append(dst, *full)
		}
	}
	return w.flush(dst), nil
}

// writer is the chunk of histograms being written, by Prometheus' appender:
// widening a chunk whose histograms gain buckets, and finding resets, is its business.
type writer struct {
	chunk            chunkenc.Chunk
	app              chunkenc.Appender
	n                int
	minTime, maxTime int64
}

func (w *writer) open(enc chunkenc.Encoding) error {
	c, err := chunkenc.NewEmptyChunk(enc)
	if err != nil {
		return fmt.Errorf("begin chunk: %w", err)
	}
	app, err := c.Appender()
	if err != nil {
		return fmt.Errorf("begin %s chunk: %w", enc, err)
	}
	*w = writer{chunk: c, app: app}
	return nil
}

// append writes one sample. It returns the chunk so far when a histogram had to begin another one.
func (w *writer) append(s *Samples, i int) (full *Chunk, err error) {
	var next chunkenc.Chunk
	recoded := false
	st, t := s.Start(i), s.T[i]
	switch s.Type(i) {
	case chunkenc.ValHistogram:
		h := *s.H[i] // the appender widens the histogram it is given
		next, recoded, w.app, err = w.app.AppendHistogram(nil, st, t, &h, false)
	case chunkenc.ValFloatHistogram:
		h := *s.FH[i]
		next, recoded, w.app, err = w.app.AppendFloatHistogram(nil, st, t, &h, false)
	case chunkenc.ValFloat, chunkenc.ValNone:
	}
	if err != nil {
		return nil, fmt.Errorf("append sample at %d: %w", t, err)
	}
	if next != nil {
		if !recoded {
			full = w.done()
			w.n = 0
		}
		w.chunk = next
	}
	if w.n == 0 {
		w.minTime = t
	}
	w.maxTime = t
	w.n++
	return full, nil
}

func (w *writer) done() *Chunk {
	return &Chunk{MinTime: w.minTime, MaxTime: w.maxTime, Encoding: w.chunk.Encoding(), Data: w.chunk.Bytes()}
}

func (w *writer) flush(dst []Chunk) []Chunk {
	if w.n > 0 {
		dst = append(dst, *w.done())
	}
	return dst
}
