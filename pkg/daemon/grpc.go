package daemon

import (
	"context"
	"errors"
	"math"
	"runtime/debug"
	"time"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
)

// minPing is the shortest distance between keepalive pings that is borne. A
// Thanos querier pings every 10 s; grpc-go's own minimum, 5 minutes, would cut
// its long Series streams off.
const minPing = 5 * time.Second

// GRPC returns the actor of the gRPC server with the services that register
// adds, health (serving while the process is ready) and reflection; codec is
// how messages become bytes. The interrupt lets calls end within the grace
// period. The component must have bound GRPCOptions.
func (d *Daemon) GRPC(codec grpc.ServerOption, register ...func(grpc.ServiceRegistrar)) (execute func() error, interrupt func(error)) {
	srv := grpc.NewServer(append(d.serverOptions(), codec)...)
	for _, add := range register {
		add(srv)
	}
	grpc_health_v1.RegisterHealthServer(srv, d.Probe.grpc)
	reflection.Register(srv)

	execute = func() error {
		d.Logger.Info("listening for gRPC", "address", d.grpc.Addr(), "tls", d.tls != nil)
		if err := srv.Serve(d.grpc); !errors.Is(err, grpc.ErrServerStopped) {
			return err
		}
		return nil
	}
	return execute, func(error) {
		stopped := make(chan struct{})
		go func() { srv.GracefulStop(); close(stopped) }()
		select {
		case <-stopped:
		case <-time.After(d.opts.GRPC.Grace):
			d.Logger.Warn("gRPC calls cut off", "grace_period", d.opts.GRPC.Grace)
			srv.Stop()
			<-stopped
		}
	}
}

func (d *Daemon) serverOptions() []grpc.ServerOption {
	native := histogram("", "", durationBuckets())
	calls := grpcprom.NewServerMetrics(grpcprom.WithServerHandlingTimeHistogram(grpcprom.WithHistogramOpts(&native)))
	d.Registry.MustRegister(calls)
	recovered := recovery.WithRecoveryHandlerContext(func(_ context.Context, p any) error {
		d.metrics.panics.Inc()
		d.Logger.Error("panic in a gRPC handler", "panic", p, "stack", string(debug.Stack()))
		return status.Errorf(codes.Internal, "panic: %v", p)
	})
	opts := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(math.MaxInt32),
		grpc.MaxSendMsgSize(math.MaxInt32),
		// Answers are long: fewer system calls, with memory that idle connections do without.
		grpc.WriteBufferSize(256 << 10),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: d.opts.GRPC.MaxConnectionAge}),
		// Metrics outside, so that a panic counts as the Internal it becomes.
		grpc.ChainUnaryInterceptor(calls.UnaryServerInterceptor(), recovery.UnaryServerInterceptor(recovered)),
		grpc.ChainStreamInterceptor(calls.StreamServerInterceptor(), recovery.StreamServerInterceptor(recovered)),
	}
	if d.tls != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(d.tls)))
	}
	return opts
}
