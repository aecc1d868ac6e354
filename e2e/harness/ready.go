package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// HTTPReady returns a condition for WaitFor: a GET of the URL answers 200.
func HTTPReady(url string) func(context.Context) error {
	return func(ctx context.Context) (err error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, resp.Body.Close()) }()
		body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		if err != nil {
			return fmt.Errorf("read %s: %w", url, err)
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("get %s: %s: %s", url, resp.Status, body)
		}
		return nil
	}
}

// GRPCReady returns a condition for WaitFor: the gRPC health service at
// host:port says that the whole server is serving.
func GRPCReady(address string) func(context.Context) error {
	return func(ctx context.Context) (err error) {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return fmt.Errorf("dial %s: %w", address, err)
		}
		defer func() { err = errors.Join(err, conn.Close()) }()
		resp, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
		if err != nil {
			return fmt.Errorf("check health of %s: %w", address, err)
		}
		if resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			return fmt.Errorf("health of %s: %s", address, resp.GetStatus())
		}
		return nil
	}
}
