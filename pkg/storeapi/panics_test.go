package storeapi

import (
	"context"
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/varve-io/varve/pkg/panics"
	"github.com/varve-io/varve/pkg/series"
)

// hostileConn is a connection whose streams bring frames that decoding does not expect.
type hostileConn struct{ grpc.ClientConnInterface }

func (c hostileConn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := c.ClientConnInterface.NewStream(ctx, desc, method, opts...)
	return hostileStream{s}, err
}

type hostileStream struct{ grpc.ClientStream }

func (s hostileStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	_ = []int{}[hostile(1)]
	return err
}

// hostile is an index out of bad data.
func hostile(i int) int { return i }

func TestAPanicWhileAFrameIsDecodedEndsItsStreamAlone(t *testing.T) {
	p := thanosStore()
	p.series = send(t, `{a="1"}`, `{a="2"}`)
	conn := connect(t, p.register)
	for name, tc := range map[string]struct {
		conn grpc.ClientConnInterface
		draw Draw
	}{
		"while it is decoded": {hostileConn{conn}, func(int64) error { return nil }},
		"while it is drawn":   {conn, func(int64) error { return []error{}[hostile(1)] }},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := NewClient(tc.conn, "peer:10901", Defaults())
			if err != nil {
				t.Fatalf("client: %v", err)
			}
			_, _, err = series.Collect(c.Series(WithDraw(t.Context(), tc.draw), anything()))
			if !errors.Is(err, panics.Err) || !strings.Contains(err.Error(), "panics_test.go:") || !strings.Contains(err.Error(), "peer:10901") {
				t.Errorf("got error %v, want an internal one that names the peer and the place", err)
			}
		})
	}
	if got, _, err := series.Collect(client(t, conn, Defaults()).Series(t.Context(), anything())); len(got) != 2 || err != nil {
		t.Errorf("the stream after: got %d series and %v, want two", len(got), err)
	}
}
