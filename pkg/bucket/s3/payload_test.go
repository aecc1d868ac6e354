package s3_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
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

// TestContentMD5IsSentWhereTheStoreDemandsIt is of buckets with object lock: the store
// says so once, and every part and object has the digest from then on.
func TestContentMD5IsSentWhereTheStoreDemandsIt(t *testing.T) {
	var mu sync.Mutex
	refused, bodies := 0, map[string]string{}
	c := fake(t, func(w http.ResponseWriter, r *http.Request) {
		content, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		if r.Header.Get("Content-Md5") == "" {
			refused++
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `<Error><Code>InvalidRequest</Code><Message>Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters</Message></Error>`)
			return
		}
		bodies[r.URL.Path] = string(content)
		w.Header().Set("ETag", `"e"`)
	})
	b := open(t, c)
	for _, name := range []string{"x", "y"} {
		if err := b.Upload(t.Context(), name, strings.NewReader("content of "+name)); err != nil {
			t.Fatalf("upload: %v", err)
		}
	}
	if refused != 1 || bodies["/bkt/x"] != "content of x" || bodies["/bkt/y"] != "content of y" {
		t.Errorf("got %d refusals and %q; want one, and both objects", refused, bodies)
	}
	no := false
	c.SendContentMD5 = &no
	if err := open(t, c).Upload(t.Context(), "z", strings.NewReader("z")); err == nil {
		t.Error("an operator who wants no Content-MD5 got it")
	}
}
