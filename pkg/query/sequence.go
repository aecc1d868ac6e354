package query

import (
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/series"
)

// rawSamples reads raw chunks as Prometheus reads its own: where none overlap,
// chunk after chunk, so that a histogram keeps what it knows of its predecessor even
// when the engine looks at neither it nor anything before. Samples from outside
// the time that is looked at may come.
func rawSamples(chunks []series.Chunk, l looks, it chunkenc.Iterator) chunkenc.Iterator {
	for i := 1; i < len(chunks); i++ {
		if chunks[i].MinTime <= chunks[i-1].MaxTime {
			return series.Samples(chunks, l.start, l.end, it)
		}
	}
	s, ok := it.(*sequence)
	if !ok {
		s = &sequence{}
	}
	*s = sequence{Iterator: chunkenc.NewNopIterator(), chunks: chunks, spare: s.Iterator}
	return s
}

// sequence reads chunks that do not overlap.
type sequence struct {
	chunkenc.Iterator // of the current chunk
	chunks            []series.Chunk
	next              int               // index of the chunk to open next
	spare             chunkenc.Iterator // for the next chunk to use again
	typ               chunkenc.ValueType
	err               error
}

func (s *sequence) Next() chunkenc.ValueType {
	for s.err == nil {
		if s.typ = s.Iterator.Next(); s.typ != chunkenc.ValNone {
			return s.typ
		}
		if !s.open(minTime) {
			break
		}
	}
	return chunkenc.ValNone
}

func (s *sequence) Seek(t int64) chunkenc.ValueType { //nolint:govet // Prometheus' Seek, not io.Seeker's
	if s.typ != chunkenc.ValNone && s.AtT() >= t {
		return s.typ
	}
	for s.err == nil {
		if s.next == 0 || s.chunks[s.next-1].MaxTime >= t {
			if s.typ = s.Iterator.Seek(t); s.typ != chunkenc.ValNone {
				return s.typ
			}
		}
		if !s.open(t) {
			break
		}
	}
	return chunkenc.ValNone
}

// open goes to the next chunk that ends at t or later, and reports whether there is one.
func (s *sequence) open(t int64) bool {
	if s.err = s.Iterator.Err(); s.err != nil {
		return false
	}
	for s.next < len(s.chunks) && s.chunks[s.next].MaxTime < t {
		s.next++
	}
	s.typ = chunkenc.ValNone
	if s.next == len(s.chunks) {
		return false
	}
	chunk, err := s.chunks[s.next].Open()
	if err != nil {
		s.err = err
		return false
	}
	if s.next > 0 {
		s.spare = s.Iterator
	}
	s.next++
	s.Iterator = chunk.Iterator(s.spare)
	return true
}

func (s *sequence) Err() error {
	if s.err != nil {
		return s.err
	}
	return s.Iterator.Err()
}
