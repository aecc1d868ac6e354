package promclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Query selects series for Read.
type Query struct {
	// MinTime and MaxTime are inclusive, Unix milliseconds.
	MinTime, MaxTime int64
	// Matchers are combined with AND. They see series without external labels, except
	// that one which wants an external label to be equal to what it is selects
	// series without a label of that name.
	Matchers []*labels.Matcher
}

// Part is a series or, when it is long, a run of its chunks.
type Part struct {
	// Query is the index of the query that it answers; indexes never fall.
	Query int
	// Labels are those of the series, with the external labels that it has no label of the same name for.
	Labels labels.Labels
	Chunks []Chunk
}

// Chunk is an encoded run of samples inside the range of the query.
type Chunk struct {
	MinTime, MaxTime int64 // of the first and the last sample
	Encoding         chunkenc.Encoding
	Data             []byte
}

// Reader is an answer of remote read. Its parts stay valid after Next. It is used by
// one goroutine, which closes it, or ends the context of Read.
type Reader struct {
	body     io.ReadCloser // nil once closed
	frames   *frameReader  // nil when there is nothing beyond parts
	streamed bool
	parts    []Part
	at       int
	err      error
}

// Media types of the two answers.
const (
	chunkedType = "application/x-streamed-protobuf"
	samplesType = "application/x-protobuf"
)

// Read asks for the series of all queries in one request. Prometheus' answer streams
// where it can.
func (c *Client) Read(ctx context.Context, queries []Query) (*Reader, error) {
	req, err := c.readRequest(ctx, queries)
	if err != nil {
		return nil, err
	}
	res, err := c.do(req)
	if err != nil {
		return nil, err
	}
	kind, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	switch {
	case err == nil && kind == chunkedType:
		return &Reader{body: res.Body, frames: newFrameReader(res.Body, c.opts.MaxFrame), streamed: true, at: -1}, nil
	case err == nil && kind == samplesType:
		parts, err := c.readSamples(req, res.Body)
		if err := errors.Join(err, res.Body.Close()); err != nil {
			return nil, err
		}
		return &Reader{parts: parts, at: -1}, nil
	}
	err = fmt.Errorf("remote read: Prometheus answered with type %q, want %s or %s; is --prometheus.url right?", res.Header.Get("Content-Type"), chunkedType, samplesType)
	return nil, errors.Join(err, res.Body.Close())
}

func (c *Client) readRequest(ctx context.Context, queries []Query) (*http.Request, error) {
	wire := prompb.ReadRequest{AcceptedResponseTypes: []prompb.ReadRequest_ResponseType{
		prompb.ReadRequest_STREAMED_XOR_CHUNKS, prompb.ReadRequest_SAMPLES,
	}}
	for _, q := range queries {
		out := &prompb.Query{StartTimestampMs: q.MinTime, EndTimestampMs: q.MaxTime}
		for _, m := range q.Matchers {
			out.Matchers = append(out.Matchers, &prompb.LabelMatcher{Type: matcherType(m.Type), Name: m.Name, Value: m.Value})
		}
		wire.Queries = append(wire.Queries, out)
	}
	data, err := wire.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encode remote read: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base.JoinPath("api/v1/read").String(), bytes.NewReader(snappy.Encode(nil, data)))
	if err != nil {
		return nil, fmt.Errorf("remote read: %w", err)
	}
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("Content-Type", samplesType)
	req.Header.Set("X-Prometheus-Remote-Read-Version", "0.1.0")
	return req, nil
}

func matcherType(t labels.MatchType) prompb.LabelMatcher_Type {
	switch t {
	case labels.MatchEqual:
		return prompb.LabelMatcher_EQ
	case labels.MatchNotEqual:
		return prompb.LabelMatcher_NEQ
	case labels.MatchRegexp:
		return prompb.LabelMatcher_RE
	case labels.MatchNotRegexp:
		return prompb.LabelMatcher_NRE
	}
	panic(fmt.Sprintf("matcher of type %d", t)) // labels.NewMatcher makes no others
}

// Streamed reports whether the parts of each query come sorted by the labels of the
// series without external labels, and in bounded memory. Otherwise all parts are
// in memory in no particular order.
func (r *Reader) Streamed() bool { return r.streamed }

// Next moves to the next part.
func (r *Reader) Next() bool {
	r.at++
	for r.at >= len(r.parts) {
		if r.frames == nil {
			return false
		}
		parts, err := r.frames.next()
		r.parts, r.at = parts, 0
		if err != nil {
			r.frames = nil
			if errors.Is(err, io.EOF) {
				err = nil
			}
			r.err = errors.Join(err, r.Close())
		}
	}
	return true
}

// At returns the current part.
func (r *Reader) At() Part { return r.parts[r.at] }

// Err is the error that ended the answer early.
func (r *Reader) Err() error { return r.err }

// Close ends the request. It may be called again.
func (r *Reader) Close() error {
	if r.body == nil {
		return nil
	}
	body := r.body
	r.body = nil
	if err := body.Close(); err != nil {
		return fmt.Errorf("close remote read: %w", err)
	}
	return nil
}
