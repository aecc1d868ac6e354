package query

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/varve-io/varve/pkg/proxyapi"
	"github.com/varve-io/varve/pkg/storeapi"
)

// ClientOptions are the settings of connections to endpoints.
type ClientOptions struct {
	// Secure switches TLS on; SkipVerify believes any certificate.
	Secure, SkipVerify bool
	// Cert, Key and CA are paths of PEM files; Cert and Key are read again for every connection.
	Cert, Key, CA string
	// ServerName is the name that the certificate must have; empty: that of the address.
	ServerName string
	// MinVersion is the lowest TLS version, 1.0 to 1.3.
	MinVersion string
	// Compression of requests and answers: none or snappy.
	Compression string
}

// DefaultClientOptions returns plain connections.
func DefaultClientOptions() ClientOptions {
	return ClientOptions{MinVersion: "1.3", Compression: string(storeapi.NoCompression)}
}

// Validate reports every setting that contradicts another.
func (o ClientOptions) Validate() error {
	var errs []error
	if (o.Cert == "") != (o.Key == "") {
		errs = append(errs, errors.New("--grpc-client-tls-cert and --grpc-client-tls-key need each other"))
	}
	if !o.Secure && (o.Cert != "" || o.CA != "" || o.SkipVerify) {
		errs = append(errs, errors.New("the other --grpc-client-tls flags need --grpc-client-tls-secure"))
	}
	if _, err := o.minVersion(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (o ClientOptions) minVersion() (uint16, error) {
	switch o.MinVersion {
	case "1.0":
		return tls.VersionTLS10, nil
	case "1.1":
		return tls.VersionTLS11, nil
	case "1.2":
		return tls.VersionTLS12, nil
	case "", "1.3":
		return tls.VersionTLS13, nil
	}
	return 0, fmt.Errorf("--grpc-client-tls-min-version=%s is none of 1.0, 1.1, 1.2, 1.3", o.MinVersion)
}

// credentials returns those of TLS, or nil for plain text.
func (o ClientOptions) credentials() (credentials.TransportCredentials, error) {
	if !o.Secure {
		return nil, nil
	}
	version, err := o.minVersion()
	if err != nil {
		return nil, err
	}
	c := &tls.Config{MinVersion: version, ServerName: o.ServerName, InsecureSkipVerify: o.SkipVerify} //nolint:gosec // asked for
	if o.CA != "" {
		pem, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, fmt.Errorf("read --grpc-client-tls-ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read --grpc-client-tls-ca: %s holds no certificate", o.CA)
		}
	}
	if o.Cert != "" {
		load := func() (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(o.Cert, o.Key)
			if err != nil {
				return nil, fmt.Errorf("load --grpc-client-tls-cert and --grpc-client-tls-key: %w", err)
			}
			return &cert, nil
		}
		if _, err := load(); err != nil {
			return nil, err
		}
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return credentials.NewTLS(c), nil
}

// Dialer returns what connects to endpoints over gRPC. It reads the certificates.
// An endpoint may be silent for the wait at a time while it streams series; 0 means
// as long as the query may take.
func Dialer(o ClientOptions, wait time.Duration, reg prometheus.Registerer) (Connect, error) {
	creds, err := o.credentials()
	if err != nil {
		return nil, err
	}
	metrics := grpcprom.NewClientMetrics(grpcprom.WithClientHandlingTimeHistogram())
	if err := reg.Register(metrics); err != nil {
		return nil, fmt.Errorf("register gRPC client metrics: %w", err)
	}
	dial := storeapi.DialOptions{
		Credentials: creds, Compression: storeapi.Compression(o.Compression),
		More: []grpc.DialOption{
			grpc.WithUnaryInterceptor(metrics.UnaryClientInterceptor()),
			grpc.WithStreamInterceptor(metrics.StreamClientInterceptor()),
		},
	}
	client := storeapi.Defaults()
	client.ResponseTimeout = wait
	return func(address string) (Peer, error) {
		conn, err := storeapi.Dial(address, dial)
		if err != nil {
			return nil, err
		}
		store, err := storeapi.NewClient(conn, address, client)
		if err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return &remote{store, proxyapi.NewClient(conn, address), conn}, nil
	}, nil
}

type (
	storeClient = storeapi.Client
	proxyClient = proxyapi.Client
)

// remote is a Peer over gRPC, with all the services that there are.
type remote struct {
	*storeClient
	*proxyClient
	conn *grpc.ClientConn
}

// Close ends the calls in flight.
func (r *remote) Close() error { return r.conn.Close() }
