package storeapi

import (
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// Pings tell a dead peer from a slow one; every server of the family allows them
// at this distance.
const (
	pingEvery   = 10 * time.Second
	pingTimeout = 5 * time.Second
)

// DialOptions say how to reach a peer.
type DialOptions struct {
	// Credentials are those of TLS; nil means plain text.
	Credentials credentials.TransportCredentials
	// Compression of requests and answers; empty means none.
	Compression Compression
	// More is appended to the options of the connection: interceptors, a dialer.
	More []grpc.DialOption
}

// Dial returns a connection for the clients of all services of a peer. It
// connects when it is first used; the caller closes it.
func Dial(address string, o DialOptions) (*grpc.ClientConn, error) {
	RegisterCompressors()
	calls := []grpc.CallOption{
		grpc.MaxCallRecvMsgSize(math.MaxInt32),
		grpc.MaxCallSendMsgSize(math.MaxInt32),
		grpc.ForceCodecV2(newCodec()),
	}
	switch o.Compression {
	case "", NoCompression:
	case SnappyCompression:
		calls = append(calls, grpc.UseCompressor(string(SnappyCompression)))
	default:
		return nil, fmt.Errorf("dial %s: %w", address, errors.New("compression "+string(o.Compression)+" is not one of none, snappy"))
	}
	creds := o.Credentials
	if creds == nil {
		creds = insecure.NewCredentials()
	}
	opts := append([]grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: pingTimeout}),
		grpc.WithDefaultCallOptions(calls...),
		grpc.WithDisableServiceConfig(),
	}, o.More...)
	conn, err := grpc.NewClient(address, opts...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	return conn, nil
}
