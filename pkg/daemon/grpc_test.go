package daemon

import (
	"context"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/run"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// lake is a service whose calls panic (Panic, PanicStream), echo (Echo), or
// answer once and then last until the client ends them or the channel is closed
// (Wait).
func lake(release <-chan struct{}) func(grpc.ServiceRegistrar) {
	unary := func(answer func(*wrapperspb.BytesValue) *wrapperspb.BytesValue) grpc.MethodHandler {
		return func(_ any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.BytesValue)
			if err := decode(in); err != nil {
				return nil, err
			}
			return interceptor(ctx, in, &grpc.UnaryServerInfo{FullMethod: "/lake.Lake/Unary"}, func(context.Context, any) (any, error) {
				return answer(in), nil
			})
		}
	}
	desc := &grpc.ServiceDesc{
		ServiceName: "lake.Lake",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			{MethodName: "Panic", Handler: unary(func(*wrapperspb.BytesValue) *wrapperspb.BytesValue { panic("the dam breaks") })},
			{MethodName: "Echo", Handler: unary(func(in *wrapperspb.BytesValue) *wrapperspb.BytesValue { return in })},
		},
		Streams: []grpc.StreamDesc{
			{StreamName: "PanicStream", ServerStreams: true, Handler: func(any, grpc.ServerStream) error { panic("the dam breaks") }},
			{StreamName: "Wait", ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
				if err := s.SendMsg(&wrapperspb.BytesValue{}); err != nil {
					return err
				}
				select {
				case <-release:
					return nil
				case <-s.Context().Done():
					return s.Context().Err()
				}
			}},
		},
	}
	return func(srv grpc.ServiceRegistrar) { srv.RegisterService(desc, struct{}{}) }
}

func dial(t *testing.T, target string, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, opts...)...)
	if err != nil {
		t.Fatalf("dial %s: %v", target, err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// wait opens the stream of a call that answered once and is under way.
func wait(t *testing.T, ctx context.Context, conn *grpc.ClientConn) grpc.ClientStream {
	t.Helper()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/lake.Lake/Wait")
	if err == nil {
		err = stream.SendMsg(&wrapperspb.BytesValue{})
	}
	if err == nil {
		err = stream.CloseSend()
	}
	if err == nil {
		err = stream.RecvMsg(&wrapperspb.BytesValue{})
	}
	if err != nil {
		t.Fatalf("open stream: %v", err)
	}
	return stream
}

func TestAPanicInAHandlerIsAnInternalError(t *testing.T) {
	d, log := newDaemon(t, parsed(t))
	start(t, d, func(g *run.Group) { g.Add(d.GRPC(grpc.EmptyServerOption{}, lake(nil))) })
	conn := dial(t, d.GRPCAddr().String())

	in, out := &wrapperspb.BytesValue{}, &wrapperspb.BytesValue{}
	if err := conn.Invoke(t.Context(), "/lake.Lake/Panic", in, out); status.Code(err) != codes.Internal {
		t.Errorf("unary: got %v, want Internal", err)
	}
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, "/lake.Lake/PanicStream")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(out); status.Code(err) != codes.Internal {
		t.Errorf("stream: got %v, want Internal", err)
	}
	if got := testutil.ToFloat64(d.metrics.panics); got != 2 {
		t.Errorf("%v panics counted, want 2", got)
	}
	if lines := log.lines("the dam breaks"); len(lines) != 2 || !strings.Contains(lines[0], "grpc_test.go") {
		t.Errorf("want two lines with the stack, got %q", lines)
	}
	metrics := get(t, d.mux(nil), "/metrics").Body.String()
	for _, want := range []string{
		`grpc_server_handled_total{grpc_code="Internal",grpc_method="PanicStream",grpc_service="lake.Lake",grpc_type="server_stream"} 1`,
		`grpc_server_handling_seconds_bucket{grpc_method="PanicStream",grpc_service="lake.Lake",grpc_type="server_stream",le="720"} 1`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s in /metrics", want)
		}
	}
}

func TestGRPCServesHealthReflectionAndLargeMessages(t *testing.T) {
	d, _ := newDaemon(t, parsed(t))
	start(t, d, func(g *run.Group) { g.Add(d.GRPC(grpc.EmptyServerOption{}, lake(nil))) })
	conn := dial(t, d.GRPCAddr().String())

	health := grpc_health_v1.NewHealthClient(conn)
	for _, want := range []grpc_health_v1.HealthCheckResponse_ServingStatus{
		grpc_health_v1.HealthCheckResponse_NOT_SERVING, grpc_health_v1.HealthCheckResponse_SERVING,
	} {
		got, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
		if err != nil || got.Status != want {
			t.Errorf("health is %v, %v, want %v", got, err, want)
		}
		d.Probe.Ready()
	}

	reflection, err := grpc_reflection_v1.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ask := &grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}}
	if err := reflection.Send(ask); err != nil {
		t.Fatal(err)
	}
	if got, err := reflection.Recv(); err != nil || !strings.Contains(got.String(), "lake.Lake") {
		t.Errorf("reflection says %v, %v, want lake.Lake among the services", got, err)
	}

	in, out := &wrapperspb.BytesValue{Value: make([]byte, 5<<20)}, &wrapperspb.BytesValue{} // grpc-go's own limit is 4 MiB
	if err := conn.Invoke(t.Context(), "/lake.Lake/Echo", in, out, grpc.MaxCallRecvMsgSize(6<<20)); err != nil || len(out.Value) != 5<<20 {
		t.Errorf("a message of 5 MiB comes back with %d bytes, %v", len(out.Value), err)
	}
}

// A Thanos querier pings every 10 s, and so long must a Series stream survive.
func TestPingsEveryTenSecondsAreBorne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := newDaemon(t, parsed(t))
		buf := bufconn.Listen(1 << 20)
		d.grpc.Close()
		d.grpc = buf
		execute, interrupt := d.GRPC(grpc.EmptyServerOption{}, lake(nil))
		done := make(chan error)
		go func() { done <- execute() }()

		conn := dial(t, "passthrough:///lake",
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return buf.DialContext(ctx) }),
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}))
		ctx, cancel := context.WithCancel(t.Context())
		stream := wait(t, ctx, conn)
		<-time.After(20 * time.Minute)
		cancel()
		if err := stream.RecvMsg(&wrapperspb.BytesValue{}); status.Code(err) != codes.Canceled {
			t.Errorf("after 20 minutes of pings the stream ended with %v, want our own cancellation", err)
		}
		conn.Close()
		interrupt(nil)
		if err := <-done; err != nil {
			t.Errorf("server ended with %v", err)
		}
	})
}

func TestGRPCStopsWithinItsGracePeriod(t *testing.T) {
	for name, tc := range map[string]struct {
		grace string
		cut   bool
	}{
		"a call in flight is answered":          {"1m", false},
		"a call that lasts too long is cut off": {"20ms", true},
	} {
		t.Run(name, func(t *testing.T) {
			d, log := newDaemon(t, parsed(t, "--grpc-grace-period="+tc.grace))
			release := make(chan struct{})
			stop := start(t, d, func(g *run.Group) { g.Add(d.GRPC(grpc.EmptyServerOption{}, lake(release))) })
			stream := wait(t, t.Context(), dial(t, d.GRPCAddr().String()))
			if !tc.cut {
				go onceDeaf(d.GRPCAddr(), func() { close(release) })
			}
			if err := stop(); err != nil {
				t.Errorf("run ended with %v", err)
			}
			err := stream.RecvMsg(&wrapperspb.BytesValue{})
			if cut := status.Code(err) == codes.Unavailable; cut != tc.cut {
				t.Errorf("the call ended with %v", err)
			}
			if cut := len(log.lines("gRPC calls cut off")) == 1; cut != tc.cut {
				t.Errorf("log of the stop:\n%s", log)
			}
		})
	}
}

func check(t *testing.T, target string, creds credentials.TransportCredentials) error {
	t.Helper()
	conn := dial(t, target, grpc.WithTransportCredentials(creds))
	defer conn.Close()
	_, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	return err
}
