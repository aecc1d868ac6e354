package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/varve-io/varve/e2e/harness"
	"github.com/varve-io/varve/e2e/history"
)

// authority signs certificates for 127.0.0.1.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newAuthority writes its own certificate to ca.pem.
func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir(), key: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "e2e authority"},
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.write(t, "ca.pem", "CERTIFICATE", must(x509.CreateCertificate(rand.Reader, a.cert, a.cert, &a.key.PublicKey, a.key))(t))
	return a
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) write(t *testing.T, name, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(a.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// sign writes name.pem and name.key, good for server and client.
func (a *authority) sign(t *testing.T, name string) {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	a.write(t, name+".pem", "CERTIFICATE", must(x509.CreateCertificate(rand.Reader, leaf, a.cert, &key.PublicKey, a.key))(t))
	a.write(t, name+".key", "EC PRIVATE KEY", must(x509.MarshalECPrivateKey(key))(t))
}

// TestTLSAndPasswordsOnEveryWay asks over mutual TLS on gRPC and over HTTPS with
// a password, and shows that strangers get nothing.
func TestTLSAndPasswordsOnEveryWay(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	c := harness.ForTest(t)
	s3 := startS3(ctx, t, c)
	end := time.Now().Truncate(time.Hour)
	lay(ctx, t, bucketOf(s3, bucketName), pair(nil, nil), history.Options{
		Start: end.Add(-2 * time.Hour), End: end, Interval: time.Minute, BlockRange: 2 * time.Hour, Processes: history.Processes(3),
	})
	ca := newAuthority(t)
	ca.sign(t, "store")
	ca.sign(t, "query")
	server := []string{
		"--grpc-server-tls-cert=" + ca.path("store.pem"), "--grpc-server-tls-key=" + ca.path("store.key"),
		"--grpc-server-tls-client-ca=" + ca.path("ca.pem"),
	}
	store := must(c.Store(ctx, "store", s3.ObjstoreConfig(bucketName), server...))(t)

	// user: alice, password: wonderland
	web := "tls_server_config:\n  cert_file: " + ca.path("query.pem") + "\n  key_file: " + ca.path("query.key") +
		"\nbasic_auth_users:\n  alice: $2b$05$AosH3BVKcQTGi4bgev.z7uR8YNN2GiiwLdDrKgO9X5rBjlqYk5oQW\n"
	if err := os.WriteFile(ca.path("web.yml"), []byte(web), 0o600); err != nil {
		t.Fatal(err)
	}
	trusted := must(c.Launch(harness.ComponentOptions{Binary: "query", Name: "query-trusted", Args: []string{
		"--endpoint=" + store.GRPC, "--query.replica-label=prometheus_replica", "--http.config=" + ca.path("web.yml"), "--grpc-compression=snappy",
		"--grpc-client-tls-secure", "--grpc-client-tls-ca=" + ca.path("ca.pem"), "--grpc-client-server-name=store",
		"--grpc-client-tls-cert=" + ca.path("query.pem"), "--grpc-client-tls-key=" + ca.path("query.key"),
	}}))(t)
	stranger := must(c.Query(ctx, "query-stranger", []string{store.GRPC}))(t)

	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(must(os.ReadFile(ca.path("ca.pem")))(t))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	t.Cleanup(client.CloseIdleConnections)
	count := "https://" + trusted.HTTP + "/api/v1/query?query=" + url.QueryEscape(`count(demo_requests_total)`) +
		fmt.Sprintf("&time=%d", end.Add(-2*time.Minute).Unix())
	err := harness.WaitFor(ctx, "an answer over TLS all the way", func(ctx context.Context) error {
		code, body, err := askWithPassword(ctx, client, count, "wonderland")
		if err == nil && (code != http.StatusOK || !strings.Contains(body, `"2"`)) {
			err = fmt.Errorf("got %d: %s", code, body)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if code, body, err := askWithPassword(ctx, client, count, "guess"); err != nil || code != http.StatusUnauthorized {
		t.Errorf("with a wrong password: got %d %q, %v", code, body, err)
	}
	if _, _, err := askWithPassword(ctx, http.DefaultClient, count, "wonderland"); err == nil {
		t.Error("a client that does not know the authority was answered")
	}

	// A querier without TLS never hears of the store's data, and says so.
	answer := must(stranger.API().Query(ctx, `count(demo_requests_total)`, end.Add(-2*time.Minute)))(t)
	if len(answer.Series) != 0 || !strings.Contains(strings.Join(answer.Warnings, " "), store.GRPC) {
		t.Errorf("a stranger: got %d series and warnings %q", len(answer.Series), answer.Warnings)
	}
}

func askWithPassword(ctx context.Context, client *http.Client, url, password string) (code int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	req.SetBasicAuth("alice", password)
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(data), err
}
