package daemon

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
)

// serverTLS reads the certificates now and again at every handshake. While they
// cannot be read, or do not fit each other because only one has been replaced so
// far, the last good ones stay in use.
func (o GRPCOptions) serverTLS(log *slog.Logger) (*tls.Config, error) {
	first, err := o.readCertificates()
	if err != nil {
		return nil, err
	}
	var good atomic.Pointer[tls.Config]
	good.Store(first)
	config := first.Clone()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		if fresh, err := o.readCertificates(); err == nil {
			good.Store(fresh)
		} else {
			log.Warn("previous gRPC certificates stay in use", "err", err)
		}
		return good.Load(), nil
	}
	return config, nil
}

func (o GRPCOptions) readCertificates() (*tls.Config, error) {
	c, err := o.tlsChoices()
	if err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(o.Cert, o.Key)
	if err != nil {
		return nil, fmt.Errorf("read --grpc-server-tls-cert=%s and --grpc-server-tls-key=%s: %w", o.Cert, o.Key, err)
	}
	c.Certificates = []tls.Certificate{pair}
	if o.ClientCA == "" {
		return c, nil
	}
	pem, err := os.ReadFile(o.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("read --grpc-server-tls-client-ca: %w", err)
	}
	c.ClientCAs, c.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !c.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read --grpc-server-tls-client-ca=%s: no PEM certificate in it", o.ClientCA)
	}
	return c, nil
}

// tlsChoices returns the choice of versions, ciphers and curves, without
// certificates.
func (o GRPCOptions) tlsChoices() (*tls.Config, error) {
	versions := map[string]uint16{"1.0": tls.VersionTLS10, "1.1": tls.VersionTLS11, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}
	ciphers, curves := map[string]uint16{}, map[string]tls.CurveID{}
	for _, suite := range tls.CipherSuites() {
		ciphers[suite.Name] = suite.ID
	}
	for _, id := range []tls.CurveID{tls.CurveP256, tls.CurveP384, tls.CurveP521, tls.X25519, tls.X25519MLKEM768} {
		curves[id.String()] = id
	}
	version, err1 := choose("--grpc-server-tls-min-version", []string{cmp.Or(o.MinVersion, "1.3")}, versions)
	suites, err2 := choose("--grpc-server-tls-ciphers", o.Ciphers, ciphers)
	preferred, err3 := choose("--grpc-server-tls-curves", o.Curves, curves)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: version[0], CipherSuites: suites, CurvePreferences: preferred, NextProtos: []string{"h2"}}, nil
}

// choose looks names up among the choices that a flag has.
func choose[V any](flag string, names []string, choices map[string]V) ([]V, error) {
	var chosen []V
	for _, name := range names {
		v, ok := choices[name]
		if !ok {
			return nil, fmt.Errorf("%s: %q is none of %s", flag, name, strings.Join(slices.Sorted(maps.Keys(choices)), ", "))
		}
		chosen = append(chosen, v)
	}
	return chosen, nil
}
