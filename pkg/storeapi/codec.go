package storeapi

import (
	"fmt"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// codec is gRPC's "proto" codec with the generated fast paths where a message
// has them. A received message owns its bytes: its strings and byte fields point
// into one buffer, which lives as long as any of them.
type codec struct {
	plain  encoding.CodecV2
	frames *framePool
}

// pool is where the memory of a message of a size comes from.
func (c codec) pool(size int) mem.BufferPool {
	if size < frameBytes/2 {
		return mem.DefaultBufferPool()
	}
	return c.frames
}

// framePool keeps buffers about as long as frames of series. Unlike gRPC's own it
// does not clear them before each use: a message fills its buffer.
type framePool struct{ pool sync.Pool }

// Get returns a buffer with anything in it.
func (f *framePool) Get(n int) *[]byte {
	if b, ok := f.pool.Get().(*[]byte); ok && cap(*b) >= n {
		*b = (*b)[:n]
		return b
	}
	b := make([]byte, n, max(n, frameBytes+frameBytes/4))
	return &b
}

// Put takes a buffer back.
func (f *framePool) Put(b *[]byte) { f.pool.Put(b) }

// fastMessage is what vtproto generates for a message.
type fastMessage interface {
	SizeVT() int
	MarshalToSizedBufferVT(b []byte) (int, error)
	UnmarshalVTUnsafe(b []byte) error
}

// ServerOption makes a gRPC server use this package's codec for every service.
// Without it everything works too, more slowly, and label values that are not
// UTF-8 end a stream with an error.
func ServerOption() grpc.ServerOption { return grpc.ForceServerCodecV2(newCodec()) }

func newCodec() codec { return codec{plain: encoding.GetCodecV2(proto.Name), frames: &framePool{}} }

// Name is that of the standard codec: peers see no difference.
func (codec) Name() string { return proto.Name }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(fastMessage)
	if !ok {
		return c.plain.Marshal(v)
	}
	size := m.SizeVT()
	pool := c.pool(size)
	buf := pool.Get(size)
	if _, err := m.MarshalToSizedBufferVT((*buf)[:size]); err != nil {
		pool.Put(buf)
		return nil, fmt.Errorf("marshal %T: %w", v, err)
	}
	return mem.BufferSlice{mem.NewBuffer(buf, pool)}, nil
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(fastMessage)
	if !ok {
		return c.plain.Unmarshal(data, v)
	}
	// gRPC takes its buffers back, so the message gets one of its own.
	if err := m.UnmarshalVTUnsafe(data.Materialize()); err != nil {
		return fmt.Errorf("unmarshal %T: %w", v, err)
	}
	return nil
}
