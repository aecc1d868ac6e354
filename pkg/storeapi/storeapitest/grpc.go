package storeapitest

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc"

	"github.com/varve-io/varve/pkg/storeapi"
	"github.com/varve-io/varve/pkg/storeapi/storepb"
)

// OverGRPC serves a store on a loopback port until the test ends and returns a
// client of it.
func OverGRPC(t testing.TB, store storeapi.Store) storeapi.Store {
	t.Helper()
	return dial(t, serve(t, store, storeapi.ServerOption()))
}

// OverThanos is OverGRPC with a peer in between that knows nothing of our extra
// fields: the server takes the client for a Thanos querier, and the client the
// server for a Thanos store.
func OverThanos(t testing.TB, store storeapi.Store) storeapi.Store {
	t.Helper()
	return dial(t, ServeAsThanos(t, store))
}

// ServeAsThanos serves a store on a loopback port until the test ends, as
// OverThanos does, and returns the address.
func ServeAsThanos(t testing.TB, store storeapi.Store) (address string) {
	t.Helper()
	return serve(t, store,
		storeapi.ServerOption(),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			res, err := next(ctx, req)
			if info, ok := res.(*storepb.InfoResponse); ok {
				info.Varve = nil
			}
			return res, err
		}),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			return next(srv, foreignStream{stream})
		}),
	)
}

// foreignStream takes our fields out of requests.
type foreignStream struct{ grpc.ServerStream }

func (s foreignStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if req, ok := m.(*storepb.SeriesRequest); ok {
		req.VarveNative = false
		req.VarveFallbackResolution = 0
	}
	return err
}

func serve(t testing.TB, store storeapi.Store, o ...grpc.ServerOption) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	srv := grpc.NewServer(o...)
	storeapi.Register(store, storeapi.ServerOptions{Version: "test"})(srv)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Stop()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return l.Addr().String()
}

func dial(t testing.TB, address string) storeapi.Store {
	t.Helper()
	conn, err := storeapi.Dial(address, storeapi.DialOptions{Compression: storeapi.SnappyCompression})
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Errorf("close connection: %v", err)
		}
	})
	c, err := storeapi.NewClient(conn, address, storeapi.Defaults())
	if err != nil {
		t.Fatalf("client: %v", err)
	}
	return c
}
