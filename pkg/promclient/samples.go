package promclient

import (
	"fmt"
	"io"
	"net/http"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// samplesPerChunk is where Prometheus cuts its own chunks.
const samplesPerChunk = 120

// readSamples reads the answer of a Prometheus that does not stream, or of a proxy
// in front of it: all samples in one message, which are encoded into chunks.
func (c *Client) readSamples(req *http.Request, body io.Reader) ([]Part, error) {
	packed, err := c.whole(req, body)
	if err != nil {
		return nil, err
	}
	if n, err := snappy.DecodedLen(packed); err == nil && int64(n) > c.opts.MaxAnswer {
		return nil, fmt.Errorf("remote read: %w: %d bytes unpacked, the limit is %d; add matchers or shorten the time range", ErrDamaged, n, c.opts.MaxAnswer)
	}
	data, err := snappy.Decode(nil, packed)
	if err != nil {
		return nil, fmt.Errorf("remote read: %w: %w", ErrDamaged, err)
	}
	return samplesToParts(data)
}

// samplesToParts decodes prompb.ReadResponse.
func samplesToParts(data []byte) ([]Part, error) {
	var m prompb.ReadResponse
	if err := m.Unmarshal(data); err != nil {
		return nil, fmt.Errorf("remote read: %w: %w", ErrDamaged, err)
	}
	names := labels.NewScratchBuilder(16)
	var parts []Part
	for query, result := range m.Results {
		for _, s := range result.GetTimeseries() {
			names.Reset()
			for _, l := range s.Labels {
				names.Add(l.Name, l.Value)
			}
			names.Sort()
			p := Part{Query: query, Labels: names.Labels()}
			var err error
			if p.Chunks, err = encode(s); err != nil {
				return nil, fmt.Errorf("remote read: samples of %s: %w: %w", p.Labels, ErrDamaged, err)
			}
			parts = append(parts, p)
		}
	}
	return parts, nil
}

// encode merges floats and histograms by time and cuts them into chunks.
func encode(s *prompb.TimeSeries) ([]Chunk, error) {
	e := encoder{}
	floats, histograms := s.Samples, s.Histograms
	for len(floats)+len(histograms) > 0 {
		var err error
		if len(histograms) == 0 || (len(floats) > 0 && floats[0].Timestamp < histograms[0].Timestamp) {
			err = e.float(floats[0])
			floats = floats[1:]
		} else {
			err = e.histogram(histograms[0])
			histograms = histograms[1:]
		}
		if err != nil {
			return nil, err
		}
	}
	e.finish()
	return e.out, nil
}

// encoder fills one chunk after the other.
type encoder struct {
	out []Chunk
	cur chunkenc.Chunk
	app chunkenc.Appender
}

func (e *encoder) float(s prompb.Sample) error {
	if err := e.ready(chunkenc.EncXOR, s.Timestamp); err != nil {
		return err
	}
	e.app.Append(0, s.Timestamp, s.Value)
	e.out[len(e.out)-1].MaxTime = s.Timestamp
	return nil
}

func (e *encoder) histogram(h prompb.Histogram) error {
	enc := chunkenc.EncHistogram
	if h.IsFloatHistogram() {
		enc = chunkenc.EncFloatHistogram
	}
	if err := e.ready(enc, h.Timestamp); err != nil {
		return err
	}
	var next chunkenc.Chunk
	var recoded bool
	var err error
	if h.IsFloatHistogram() {
		fh := h.ToFloatHistogram()
		if err := fh.Validate(); err != nil {
			return fmt.Errorf("histogram at %d: %w", h.Timestamp, err)
		}
		next, recoded, e.app, err = e.app.AppendFloatHistogram(nil, 0, h.Timestamp, fh, false)
	} else {
		ih := h.ToIntHistogram()
		if err := ih.Validate(); err != nil {
			return fmt.Errorf("histogram at %d: %w", h.Timestamp, err)
		}
		next, recoded, e.app, err = e.app.AppendHistogram(nil, 0, h.Timestamp, ih, false)
	}
	switch {
	case err != nil:
		return fmt.Errorf("histogram at %d: %w", h.Timestamp, err)
	case next != nil && recoded: // the same chunk with more buckets
		e.cur = next
	case next != nil:
		e.begin(next, h.Timestamp)
	}
	e.out[len(e.out)-1].MaxTime = h.Timestamp
	return nil
}

// ready makes room for one more sample of an encoding.
func (e *encoder) ready(enc chunkenc.Encoding, at int64) error {
	if n := len(e.out); n > 0 && at <= e.out[n-1].MaxTime {
		return fmt.Errorf("a sample at %d follows one at %d", at, e.out[n-1].MaxTime)
	}
	if e.cur != nil && e.cur.Encoding() == enc && e.cur.NumSamples() < samplesPerChunk {
		return nil
	}
	c, err := chunkenc.NewEmptyChunk(enc)
	if err != nil {
		return fmt.Errorf("new chunk: %w", err)
	}
	if e.app, err = c.Appender(); err != nil {
		return fmt.Errorf("new chunk: %w", err)
	}
	e.begin(c, at)
	return nil
}

func (e *encoder) begin(c chunkenc.Chunk, at int64) {
	e.finish()
	e.cur = c
	e.out = append(e.out, Chunk{MinTime: at, MaxTime: at, Encoding: c.Encoding()})
}

func (e *encoder) finish() {
	if e.cur != nil {
		e.out[len(e.out)-1].Data = e.cur.Bytes()
	}
}
