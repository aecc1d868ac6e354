package promclient

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// frame is a message as Prometheus frames it.
func frame(t testing.TB, m *prompb.ChunkedReadResponse) []byte {
	t.Helper()
	data, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	b := binary.AppendUvarint(nil, uint64(len(data)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
	return append(b, data...)
}

func message(query int64, chunks ...prompb.Chunk) *prompb.ChunkedReadResponse {
	return &prompb.ChunkedReadResponse{QueryIndex: query, ChunkedSeries: []*prompb.ChunkedSeries{{
		Labels: []prompb.Label{{Name: "__name__", Value: "m"}}, Chunks: chunks,
	}}}
}

func TestFrames(t *testing.T) {
	good := frame(t, message(1, prompb.Chunk{MinTimeMs: 1, MaxTimeMs: 2, Type: prompb.Chunk_XOR2, Data: []byte("data")}))
	damaged := bytes.Clone(good)
	damaged[len(damaged)-1] ^= 1
	for name, tc := range map[string]struct {
		in    []byte
		parts int
		want  error
	}{
		"none":                         {nil, 0, nil},
		"two":                          {append(bytes.Clone(good), good...), 2, nil},
		"one and a half":               {append(bytes.Clone(good), good[:len(good)/2]...), 1, ErrUnreachable},
		"a length alone":               {[]byte{200, 1}, 0, ErrUnreachable},
		"a changed bit":                {damaged, 0, ErrDamaged},
		"a length beyond the limit":    {binary.AppendUvarint(nil, 1<<40), 0, ErrDamaged},
		"a length that ends nowhere":   {bytes.Repeat([]byte{0xff}, 11), 0, ErrUnreachable},
		"an unknown encoding":          {frame(t, message(0, prompb.Chunk{Type: 7})), 0, ErrDamaged},
		"a chunk that ends too early":  {frame(t, message(0, prompb.Chunk{Type: 1, MinTimeMs: 2, MaxTimeMs: 1})), 0, ErrDamaged},
		"an error page after a frame":  {append(bytes.Clone(good), "internal error\n"...), 1, ErrUnreachable},
		"a frame that is no message":   {rawFrame([]byte("no message")), 0, ErrDamaged},
		"a frame that holds no series": {frame(t, &prompb.ChunkedReadResponse{}), 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			srv := server(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse")
				w.Write(tc.in)
			})
			c := clientOf(t, srv.URL, "")
			c.opts.MaxFrame = 1 << 20
			r, err := c.Read(t.Context(), []Query{{}, {}})
			if err != nil {
				t.Fatal(err)
			}
			parts := 0
			for r.Next() {
				parts++
				p := r.At()
				if p.Query != 1 || p.Labels.String() != `{__name__="m"}` || p.Chunks[0].Encoding != chunkenc.EncXOR2 || string(p.Chunks[0].Data) != "data" {
					t.Errorf("got part %+v", p)
				}
			}
			if !errors.Is(r.Err(), tc.want) || parts != tc.parts || !r.Streamed() {
				t.Errorf("got %d parts, error %v, want %d and %v", parts, r.Err(), tc.parts, tc.want)
			}
			if err := r.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
}

func rawFrame(data []byte) []byte {
	b := binary.AppendUvarint(nil, uint64(len(data)))
	return append(binary.BigEndian.AppendUint32(b, crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))), data...)
}

func TestReadRefusesOtherAnswers(t *testing.T) {
	for name, tc := range map[string]struct{ kind, body, want string }{
		"of another type":           {"text/html", "hello", "text/html"},
		"samples that are not":      {"application/x-protobuf", "hello", "damaged"},
		"samples too long unpacked": {"application/x-protobuf", string(binary.AppendUvarint(nil, 1<<31)) + "x", "limit"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := server(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", tc.kind)
				io.WriteString(w, tc.body)
			})
			_, err := clientOf(t, srv.URL, "").Read(t.Context(), []Query{{}})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error is %v, want %q in it", err, tc.want)
			}
		})
	}
}

// Frames of anybody never panic, and never take more memory than they bring bytes.
func FuzzFrames(f *testing.F) {
	f.Add(frame(f, message(0, prompb.Chunk{MinTimeMs: 1, MaxTimeMs: 2, Type: prompb.Chunk_XOR, Data: []byte{0, 1, 2}})))
	f.Add([]byte{5, 0, 0, 0, 0, 'h', 'e', 'l', 'l', 'o'})
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, in := range [][]byte{data, rawFrame(data)} {
			r := newFrameReader(bytes.NewReader(in), 1<<20)
			for {
				parts, err := r.next()
				if err != nil {
					break
				}
				for _, p := range parts {
					for _, c := range p.Chunks {
						if c.Encoding < chunkenc.EncXOR || c.Encoding > chunkenc.EncFloatHistogramST || c.MinTime > c.MaxTime {
							t.Fatalf("got chunk %+v", c)
						}
					}
				}
			}
			if cap(r.frame) > 2<<20 {
				t.Fatalf("%d bytes took a buffer of %d", len(in), cap(r.frame))
			}
		}
	})
}

// Samples of anybody become chunks that can be read, or an error.
func FuzzSamples(f *testing.F) {
	seed, err := (&prompb.ReadResponse{Results: []*prompb.QueryResult{{Timeseries: []*prompb.TimeSeries{{
		Samples:    []prompb.Sample{{Value: 1, Timestamp: 1}, {Value: 2, Timestamp: 5}},
		Histograms: []prompb.Histogram{{Timestamp: 3, Count: &prompb.Histogram_CountInt{CountInt: 0}, ZeroCount: &prompb.Histogram_ZeroCountInt{}}},
	}}}}}).Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		parts, err := samplesToParts(data)
		if err != nil {
			return
		}
		for _, p := range parts {
			for _, c := range p.Chunks {
				chunk, err := chunkenc.FromData(c.Encoding, c.Data)
				if err != nil {
					t.Fatal(err)
				}
				it, last := chunk.Iterator(nil), c.MinTime-1
				for it.Next() != chunkenc.ValNone {
					if at := it.AtT(); at <= last || at > c.MaxTime {
						t.Fatalf("a sample at %d after %d in a chunk up to %d", at, last, c.MaxTime)
					} else {
						last = at
					}
				}
				if it.Err() != nil || last != c.MaxTime {
					t.Fatalf("the last sample is at %d of %d (%v)", last, c.MaxTime, it.Err())
				}
			}
		}
	})
}
