package blockscan

import (
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
)

// reader decodes one chunk after the other with the same memory.
type reader struct {
	codec   chunkcodec.Decoder
	samples chunkcodec.Samples
}

// contents are what is in a chunk.
type contents struct {
	samples     int
	first, last int64 // times of samples; those of the index for aggregates
}

// read decodes the chunk wholly.
func (r *reader) read(c series.Chunk) (contents, error) {
	if c.Encoding == aggrchunk.Encoding {
		return r.aggregates(c)
	}
	if err := r.decode(c.Encoding, c.Data); err != nil {
		return contents{}, err
	}
	times := r.samples.T
	if len(times) == 0 {
		return contents{}, errors.New("it holds no sample")
	}
	for i := 1; i < len(times); i++ {
		if times[i] <= times[i-1] {
			return contents{}, fmt.Errorf("its sample at %d comes after that at %d", times[i], times[i-1])
		}
	}
	return contents{len(times), times[0], times[len(times)-1]}, nil
}

func (r *reader) decode(enc chunkenc.Encoding, data []byte) error {
	r.codec.Reset()
	s := &r.samples
	s.T, s.V, s.ST, s.H, s.FH = s.T[:0], s.V[:0], s.ST[:0], s.H[:0], s.FH[:0]
	return r.codec.Decode(enc, data, s)
}

// aggregates decodes every aggregate. Only the counter may repeat a time: it begins
// with the first raw sample and ends with the last, which may be those of a window.
func (r *reader) aggregates(c series.Chunk) (contents, error) {
	subs, err := aggrchunk.Decode(c.Data)
	if err != nil {
		return contents{}, err
	}
	for kind, sub := range subs {
		if !sub.Present() {
			continue
		}
		if err := r.decode(sub.Encoding, sub.Data); err != nil {
			return contents{}, fmt.Errorf("aggregate %s: %w", aggrchunk.Kind(kind), err)
		}
		times := r.samples.T
		for i := 1; i < len(times); i++ {
			repeated := aggrchunk.Kind(kind) == aggrchunk.Counter && times[i] == times[i-1]
			if times[i] <= times[i-1] && !repeated {
				return contents{}, fmt.Errorf("aggregate %s: its sample at %d comes after that at %d", aggrchunk.Kind(kind), times[i], times[i-1])
			}
		}
	}
	n := aggrchunk.NumSamples(c.Data)
	if n == 0 {
		return contents{}, errors.New("it holds no window")
	}
	return contents{n, c.MinTime, c.MaxTime}, nil
}
