package s3_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/varve-io/varve/pkg/bucket/s3"
)

// TestContentIsSignedOverPlainHTTP looks at the hash that the signature covers: that
// of nothing is what a store gets that trusts TLS.
func TestContentIsSignedOverPlainHTTP(t *testing.T) {
	const header, hello = "X-Amz-Content-Sha256", "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
	if got := asked(t, func(*s3.Config) {}).Get(header); got != hello {
		t.Errorf("over plain HTTP: got %q, want the SHA-256 of the content", got)
	}
	var got http.Header
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Clone()
		w.Header().Set("ETag", `"e"`)
	}))
	t.Cleanup(server.Close)
	c := s3.Defaults()
	c.Bucket, c.Endpoint, c.Region = "bkt", server.Listener.Addr().String(), "us-east-1"
	c.AccessKey, c.SecretKey = "k", "s"
	c.HTTP.InsecureSkipVerify = true
	if err := open(t, c).Upload(t.Context(), "x", strings.NewReader("hello")); err != nil {
		t.Fatalf("upload: %v", err)
	}
	if got.Get(header) != "UNSIGNED-PAYLOAD" || got.Get("Authorization") == "" || got.Get("Content-Md5") == "" {
		t.Errorf("over TLS: got %q, Authorization %q and Content-MD5 %q; want an unsigned payload, and both", got.Get(header), got.Get("Authorization"), got.Get("Content-Md5"))
	}
}
