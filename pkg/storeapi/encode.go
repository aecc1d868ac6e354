package storeapi

import (
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi/storepb"
)

// How large frames grow. Small ones cost more to send than they carry; large
// ones make the other side wait.
const (
	frameBytes     = 256 << 10 // a frame is sent once it holds this much
	maxSeriesBytes = 1 << 20   // a longer series is cut into parts that follow each other
	maxFrameSeries = 16 << 10
)

var errEncoding = errors.New("unknown chunk encoding")

// slab hands out values that live until reset, and reuses them afterwards.
type slab[T any] struct {
	items []*T
	next  int
}

func (s *slab[T]) take() *T {
	if s.next == len(s.items) {
		block := make([]T, max(16, len(s.items)))
		for i := range block {
			s.items = append(s.items, &block[i])
		}
	}
	s.next++
	return s.items[s.next-1]
}

func (s *slab[T]) reset() { s.next = 0 }

// encoder turns series into messages, which point to the labels and chunk bytes
// of the series and are valid until reset.
type encoder struct {
	native bool
	kinds  aggrchunk.Kinds

	labels slab[storepb.Label]
	series slab[storepb.Series]
	aggrs  slab[storepb.AggrChunk]
	chunks slab[storepb.Chunk]
}

func (e *encoder) reset() {
	e.labels.reset()
	e.series.reset()
	e.aggrs.reset()
	e.chunks.reset()
}

// begin starts a message for s without chunks and returns its rough size.
func (e *encoder) begin(s *series.Series) (out *storepb.Series, size int) {
	out = e.series.take()
	out.Labels, out.Chunks, out.VarveReplica = out.Labels[:0], out.Chunks[:0], nil
	s.Labels.Range(func(l labels.Label) {
		m := e.labels.take()
		m.Name, m.Value = l.Name, l.Value
		out.Labels = append(out.Labels, m)
		size += len(l.Name) + len(l.Value) + 6
	})
	if e.native && s.Replica != "" {
		out.VarveReplica = []byte(s.Replica)
		size += len(s.Replica)
	}
	return out, size
}

// chunk adds c to out and returns how many bytes of payload that is.
func (e *encoder) chunk(out *storepb.Series, c series.Chunk) (size int, err error) {
	if c.Encoding == aggrchunk.Encoding {
		return e.aggregates(out, c)
	}
	p, err := e.payload(c.Encoding, c.Data)
	if err != nil {
		return 0, err
	}
	e.aggr(out, c).Raw = p
	return len(p.Data), nil
}

// aggr adds an empty AggrChunk with the times of c.
func (e *encoder) aggr(out *storepb.Series, c series.Chunk) *storepb.AggrChunk {
	a := e.aggrs.take()
	a.MinTime, a.MaxTime, a.VarveResolution = c.MinTime, c.MaxTime, 0
	a.Raw, a.Count, a.Sum, a.Min, a.Max, a.Counter = nil, nil, nil, nil, nil, nil
	if e.native {
		a.VarveResolution = c.Resolution
	}
	out.Chunks = append(out.Chunks, a)
	return a
}

// aggregates splits an aggregate chunk into the fields that were asked for. What
// is absent stays absent: histograms have no min and max.
func (e *encoder) aggregates(out *storepb.Series, c series.Chunk) (size int, err error) {
	subs, err := aggrchunk.Decode(c.Data)
	if err != nil {
		return 0, fmt.Errorf("split aggregate chunk: %w", err)
	}
	a := e.aggr(out, c)
	for k, field := range aggregateFields(a) {
		sub := subs[k]
		if !sub.Present() || !e.kinds.Has(aggrchunk.Kind(k)) {
			continue
		}
		p, err := e.payload(sub.Encoding, sub.Data)
		if err != nil {
			return 0, fmt.Errorf("aggregate %s: %w", aggrchunk.Kind(k), err)
		}
		*field = p
		size += len(p.Data)
	}
	return size, nil
}

// aggregateFields are the fields of a message in the order of aggrchunk.Kind.
func aggregateFields(a *storepb.AggrChunk) [aggrchunk.NumKinds]**storepb.Chunk {
	return [...]**storepb.Chunk{&a.Count, &a.Sum, &a.Min, &a.Max, &a.Counter}
}

// payload is a chunk in an encoding that the caller reads. Others compare chunks
// by their hash, and compute it when it is not there; our own do not need it.
func (e *encoder) payload(enc chunkenc.Encoding, data []byte) (*storepb.Chunk, error) {
	if !chunkenc.IsValidEncoding(enc) {
		return nil, fmt.Errorf("%w: %d", errEncoding, enc)
	}
	hash := uint64(0)
	if !e.native {
		var err error
		if enc, data, err = chunkcodec.Transcode(enc, data); err != nil {
			return nil, err
		}
		hash = xxhash.Sum64(data)
	}
	m := e.chunks.take()
	m.Type, m.Data, m.Hash, m.VarveEncoding = 0, data, hash, 0
	if classic(enc) {
		m.Type = storepb.Chunk_Encoding(enc - chunkenc.EncXOR)
	} else {
		m.VarveEncoding = uint32(enc)
	}
	return m, nil
}

// classic reports whether the type of a message has a value for the encoding.
func classic(e chunkenc.Encoding) bool {
	return e == chunkenc.EncXOR || e == chunkenc.EncHistogram || e == chunkenc.EncFloatHistogram
}

// frameWriter packs consecutive series into frames and sends them.
type frameWriter struct {
	enc       encoder
	send      func(*storepb.SeriesResponse) error
	maxSeries int // 1 asks for plain series frames
	pending   []*storepb.Series
	bytes     int
}

func newFrameWriter(req *storepb.SeriesRequest, kinds aggrchunk.Kinds, send func(*storepb.SeriesResponse) error) *frameWriter {
	return &frameWriter{
		enc:       encoder{native: req.VarveNative, kinds: kinds},
		send:      send,
		maxSeries: int(max(1, min(req.ResponseBatchSize, maxFrameSeries))),
	}
}

// add takes a series, cut into parts where it is long. Nothing of s is referred
// to after the frame is sent, and frames are sent here or in flush.
func (w *frameWriter) add(s *series.Series) error {
	cur, size := w.enc.begin(s)
	for _, c := range s.Chunks {
		if size >= maxSeriesBytes {
			if err := w.queue(cur, size); err != nil {
				return err
			}
			cur, size = w.enc.begin(s)
		}
		n, err := w.enc.chunk(cur, c)
		if err != nil {
			return fmt.Errorf("send series %s: %w", s.Labels, err)
		}
		size += n
	}
	return w.queue(cur, size)
}

func (w *frameWriter) queue(s *storepb.Series, size int) error {
	w.pending = append(w.pending, s)
	w.bytes += size
	if len(w.pending) >= w.maxSeries || w.bytes >= frameBytes {
		return w.flush()
	}
	return nil
}

// empty reports whether all series that were added are sent, so that nothing refers to them.
func (w *frameWriter) empty() bool { return len(w.pending) == 0 }

// flush sends what is pending: before frames of another kind, and at the end.
func (w *frameWriter) flush() error {
	if len(w.pending) == 0 {
		return nil
	}
	frame := &storepb.SeriesResponse{}
	if w.maxSeries == 1 {
		frame.Result = &storepb.SeriesResponse_Series{Series: w.pending[0]}
	} else {
		frame.Result = &storepb.SeriesResponse_Batch{Batch: &storepb.SeriesBatch{Series: w.pending}}
	}
	err := w.send(frame)
	w.pending, w.bytes = w.pending[:0], 0
	w.enc.reset()
	return err
}
