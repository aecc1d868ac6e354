package daemon

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oklog/run"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// authority issues certificates for 127.0.0.1.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{pool: x509.NewCertPool()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pem = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	a.pool.AddCert(a.cert)
	return a
}

// issue writes dir/name.crt and dir/name.key, with name as the common name.
func (a *authority) issue(t *testing.T, dir, name string) (cert, key string) {
	t.Helper()
	cert, key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &private.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write(t, cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
	return cert, key
}

func TestGRPCWithTLS(t *testing.T) {
	dir, ca := t.TempDir(), newAuthority(t)
	cert, key := ca.issue(t, dir, "server")
	clientCert, clientKey := ca.issue(t, dir, "client")
	authorities := filepath.Join(dir, "ca.crt")
	write(t, authorities, ca.pem)
	client, err := tls.LoadX509KeyPair(clientCert, clientKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args   []string
		client *tls.Config
		want   string // part of the error; empty: the call succeeds
	}{
		"the server is who it says":                 {nil, &tls.Config{RootCAs: ca.pool}, ""},
		"a stranger's client refuses the server":    {nil, &tls.Config{RootCAs: newAuthority(t).pool}, "unknown authority"},
		"TLS 1.2 is refused by default":             {nil, &tls.Config{RootCAs: ca.pool, MaxVersion: tls.VersionTLS12}, "protocol version"},
		"TLS 1.2 is spoken when allowed":            {[]string{"--grpc-server-tls-min-version=1.2"}, &tls.Config{RootCAs: ca.pool, MaxVersion: tls.VersionTLS12}, ""},
		"a cipher that the client lacks":            {[]string{"--grpc-server-tls-min-version=1.2", "--grpc-server-tls-ciphers=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"}, &tls.Config{RootCAs: ca.pool, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}}, "handshake failure"},
		"a client without certificate is sent away": {[]string{"--grpc-server-tls-client-ca=" + authorities}, &tls.Config{RootCAs: ca.pool}, "code = Unavailable"},
		"a client certificate is let in":            {[]string{"--grpc-server-tls-client-ca=" + authorities}, &tls.Config{RootCAs: ca.pool, Certificates: []tls.Certificate{client}}, ""},
		"curves in one flag, separated by commas":   {[]string{"--grpc-server-tls-curves=X25519MLKEM768,X25519"}, &tls.Config{RootCAs: ca.pool, CurvePreferences: []tls.CurveID{tls.X25519}}, ""},
		"a curve that the client lacks":             {[]string{"--grpc-server-tls-curves=CurveP384"}, &tls.Config{RootCAs: ca.pool, CurvePreferences: []tls.CurveID{tls.X25519}}, "handshake failure"},
	} {
		t.Run(name, func(t *testing.T) {
			d, _ := newDaemon(t, parsed(t, append(tc.args, "--grpc-server-tls-cert="+cert, "--grpc-server-tls-key="+key)...))
			start(t, d, func(g *run.Group) { g.Add(d.GRPC(grpc.EmptyServerOption{})) })
			err := check(t, d.GRPCAddr().String(), credentials.NewTLS(tc.client))
			if (err == nil) != (tc.want == "") || (err != nil && !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestChangedCertificatesAreServed(t *testing.T) {
	dir, before, after := t.TempDir(), newAuthority(t), newAuthority(t)
	cert, key := before.issue(t, dir, "server")
	d, log := newDaemon(t, parsed(t, "--grpc-server-tls-cert="+cert, "--grpc-server-tls-key="+key))
	start(t, d, func(g *run.Group) { g.Add(d.GRPC(grpc.EmptyServerOption{})) })
	served := func(by *authority) error {
		return check(t, d.GRPCAddr().String(), credentials.NewTLS(&tls.Config{RootCAs: by.pool}))
	}

	if err := served(before); err != nil {
		t.Fatalf("first certificate: %v", err)
	}
	write(t, key, "half written")
	if err := served(before); err != nil {
		t.Errorf("while the files do not fit: %v, want the previous certificate", err)
	}
	if len(log.lines("previous gRPC certificates stay in use")) == 0 {
		t.Errorf("no line says so:\n%s", log)
	}
	after.issue(t, dir, "server")
	if err := served(after); err != nil {
		t.Errorf("after the change: %v, want the new certificate", err)
	}
	if err := served(before); err == nil {
		t.Error("after the change the old certificate is still served")
	}
}
