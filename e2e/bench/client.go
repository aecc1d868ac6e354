package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"

	"github.com/varve-io/varve/pkg/storeapi/storepb"
)

// client talks with a store gateway as a querier does.
type client struct{ conn *grpc.ClientConn }

func dial(address string) (*client, error) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(1<<20), grpc.WithInitialConnWindowSize(4<<20), grpc.WithReadBufferSize(256<<10),
		// The first attempts come before the gateway listens; the default would pause for a second then.
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: poll, MaxDelay: poll}, MinConnectTimeout: time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	return &client{conn}, nil
}

// Close ends the connection.
func (c *client) Close() error { return c.conn.Close() }

func (c *client) info(ctx context.Context) (*storepb.InfoResponse, error) {
	return storepb.NewInfoClient(c.conn).Info(ctx, &storepb.InfoRequest{})
}

// size is how much an answer was.
type size struct {
	frames int
	bytes  int64
}

// discard asks and throws the answer away as it comes.
func (c *client) discard(ctx context.Context, q question) (size, error) {
	var s size
	err := c.series(ctx, q, func(data mem.BufferSlice) error {
		s.frames++
		s.bytes += int64(data.Len())
		return nil
	})
	return s, err
}

// answer is what an answer says, however it is cut into frames and chunks.
type answer struct {
	series  map[uint64]bool // hashes of their labels
	chunks  int
	samples int64
	// sum is made of all labels and samples, in any order.
	sum      uint64
	warnings []string
}

func newAnswer() *answer { return &answer{series: map[uint64]bool{}} }

// same is an error that says what is otherwise in a.
func (a *answer) same(want *answer) error {
	if len(a.warnings) > 0 {
		return fmt.Errorf("the answer comes with warnings: %q", a.warnings[0])
	}
	if a.sum != want.sum || a.samples != want.samples || !maps.Equal(a.series, want.series) {
		return fmt.Errorf("%w: it has %d series and %d samples (sum %x), the truth %d and %d (%x)", errWrong,
			len(a.series), a.samples, a.sum, len(want.series), want.samples, want.sum)
	}
	return nil
}

// errWrong is worse than any other error: an answer that looks right and is not.
var errWrong = errors.New("the answer is wrong")

// addSample counts a sample of the series with that hash.
func (a *answer) addSample(series uint64, t int64, v float64) {
	a.samples++
	a.sum += mix(mix(series^uint64(t)) ^ math.Float64bits(v))
}

// ask asks and reads the answer.
func (c *client) ask(ctx context.Context, q question) (*answer, error) {
	a := newAnswer()
	err := c.series(ctx, q, func(data mem.BufferSlice) error {
		var r storepb.SeriesResponse
		if err := r.UnmarshalVTUnsafe(data.Materialize()); err != nil {
			return fmt.Errorf("read a frame: %w", err)
		}
		if w := r.GetWarning(); w != "" {
			a.warnings = append(a.warnings, w)
		}
		all := r.GetBatch().GetSeries()
		if s := r.GetSeries(); s != nil {
			all = append(all, s)
		}
		for _, s := range all {
			if err := a.add(s, q); err != nil {
				return err
			}
		}
		return nil
	})
	return a, err
}

// add counts the samples of a series within the question's time.
func (a *answer) add(s *storepb.Series, q question) error {
	b := labels.NewScratchBuilder(len(s.GetLabels()))
	for _, l := range s.GetLabels() {
		b.Add(l.GetName(), l.GetValue())
	}
	id := b.Labels().Hash()
	a.series[id] = true
	var it chunkenc.Iterator
	for _, c := range s.GetChunks() {
		a.chunks++
		chunk, err := chunkenc.FromData(chunkenc.Encoding(c.GetRaw().GetType())+chunkenc.EncXOR, c.GetRaw().GetData())
		if err != nil {
			return err
		}
		it = chunk.Iterator(it)
		for it.Next() != chunkenc.ValNone {
			if t, v := it.At(); t >= q.mint && t <= q.maxt {
				a.addSample(id, t, v)
			}
		}
		if err := it.Err(); err != nil {
			return fmt.Errorf("%w: a chunk of %v: %w", errWrong, s.GetLabels(), err)
		}
	}
	return nil
}

// series asks and hands over each frame as it came.
func (c *client) series(ctx context.Context, q question, yield func(mem.BufferSlice) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream if yield does
	desc := &grpc.StreamDesc{StreamName: "Series", ServerStreams: true}
	var mine error // gRPC would hand it on as a text
	codec := frames{func(data mem.BufferSlice) error { mine = yield(data); return mine }}
	stream, err := c.conn.NewStream(ctx, desc, "/thanos.Store/Series", grpc.ForceCodecV2(codec))
	if err != nil {
		return err
	}
	if err := stream.SendMsg(q.request()); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for {
		switch err := stream.RecvMsg(nil); {
		case mine != nil:
			return mine
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// frames is a codec that hands over what it should decode.
type frames struct{ yield func(mem.BufferSlice) error }

// Name is that of the standard codec.
func (frames) Name() string { return "proto" }

// Marshal encodes a request.
func (frames) Marshal(v any) (mem.BufferSlice, error) {
	b, err := v.(*storepb.SeriesRequest).MarshalVT()
	return mem.BufferSlice{mem.SliceBuffer(b)}, err
}

// Unmarshal hands over a frame; gRPC takes its buffers back afterwards.
func (f frames) Unmarshal(data mem.BufferSlice, _ any) error { return f.yield(data) }

// labelValues asks for the values of a label over a time.
func (c *client) labelValues(ctx context.Context, label string, q question) error {
	_, err := storepb.NewStoreClient(c.conn).LabelValues(ctx, &storepb.LabelValuesRequest{
		Label: label, Start: q.mint, End: q.maxt, Matchers: q.wire(),
	})
	return err
}
