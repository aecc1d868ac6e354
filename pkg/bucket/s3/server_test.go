package s3_test

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/thanos-io/objstore"
	"go.uber.org/goleak"

	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/bucket/buckettest"
	"github.com/varve-io/varve/pkg/bucket/s3"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// real returns the configuration of a new bucket on a real server.
func real(t *testing.T) s3.Config {
	t.Helper()
	endpoint, access, secret := buckettest.StartS3(t)
	buckettest.CreateBucket(t, endpoint, "bkt")
	c := s3.Defaults()
	c.Bucket, c.Endpoint, c.AccessKey, c.SecretKey, c.Insecure = "bkt", endpoint, access, secret, true
	return c
}

// before puts a server in front of the real one; intervene answers a request itself
// or returns false to hand it on.
func before(t *testing.T, c s3.Config, intervene func(w http.ResponseWriter, r *http.Request) bool) s3.Config {
	t.Helper()
	transport, target := &http.Transport{}, &url.URL{Scheme: "http", Host: c.Endpoint}
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		ErrorLog:  slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // it is signed
		},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !intervene(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(func() { server.Close(); transport.CloseIdleConnections() })
	c.Endpoint = server.Listener.Addr().String()
	return c
}

func open(t *testing.T, c s3.Config) *s3.Bucket {
	t.Helper()
	b, err := s3.New(t.Context(), c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

// answer writes an error as S3 does.
func answer(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `<?xml version="1.0"?><Error><Code>`+code+`</Code><Message>Said the test.</Message></Error>`)
}

func TestThrottlingIsWaitedOut(t *testing.T) {
	var requests atomic.Int32
	c := before(t, real(t), func(w http.ResponseWriter, _ *http.Request) bool {
		switch requests.Add(1) {
		case 1:
			answer(w, http.StatusServiceUnavailable, "SlowDown")
		case 2:
			answer(w, http.StatusTooManyRequests, "TooManyRequests")
		case 3:
			answer(w, http.StatusInternalServerError, "InternalError")
		default:
			return false
		}
		return true
	})
	c.Region = "us-east-1"
	b := open(t, c)
	if err := b.Upload(t.Context(), "x", strings.NewReader("content")); err != nil {
		t.Errorf("upload through throttling: %v", err)
	}
	if got := requests.Load(); got != 4 {
		t.Errorf("requests: got %d, want 4", got)
	}
}

func TestThrottlingThatStaysIsMarked(t *testing.T) {
	var requests atomic.Int32
	c := before(t, real(t), func(w http.ResponseWriter, _ *http.Request) bool {
		requests.Add(1)
		answer(w, http.StatusServiceUnavailable, "SlowDown")
		return true
	})
	c.Region, c.MaxRetries = "us-east-1", 2
	_, err := open(t, c).Get(t.Context(), "x")
	if !errors.Is(err, bucket.ErrThrottled) || !errors.Is(err, bucket.ErrTransient) || errors.Is(err, bucket.ErrNotFound) {
		t.Errorf("get: got %v, want ErrThrottled", err)
	}
	if got := requests.Load(); got != 2 {
		t.Errorf("requests with max_retries 2: got %d", got)
	}
}

func TestWhatIsWrongIsSaidInOneLine(t *testing.T) {
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	c := real(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change func(*s3.Config)
		mark   error
		want   []string
	}{
		"a secret key that is wrong": {
			func(c *s3.Config) { c.SecretKey = "wrong" }, bucket.ErrAccessDenied, []string{"SignatureDoesNotMatch", "correct access_key and secret_key"},
		},
		"an access key that is wrong": {
			func(c *s3.Config) { c.AccessKey = "wrong" }, bucket.ErrAccessDenied, []string{"InvalidAccessKeyId", "correct access_key and secret_key"},
		},
		"a bucket that is not there": {
			func(c *s3.Config) { c.Bucket = "wrong" }, nil, []string{"NoSuchBucket", "bucket wrong", "create the bucket"},
		},
		"an endpoint where nothing listens": {
			func(c *s3.Config) { c.Endpoint = closed.Addr().String() }, bucket.ErrTransient, []string{"connection refused", "check endpoint"},
		},
		"an endpoint that has no address": {
			func(c *s3.Config) { c.Endpoint = "nowhere.invalid" }, bucket.ErrTransient, []string{"nowhere.invalid", "check endpoint"},
		},
		"TLS where there is none": {
			func(c *s3.Config) { c.Insecure = false }, nil, []string{"insecure: true"},
		},
		"a region that is wrong": {
			func(c *s3.Config) { c.Region = "eu-west-1" }, nil, []string{"set region"},
		},
		"no credentials at all": {
			func(c *s3.Config) { c.AccessKey, c.SecretKey = "", "" }, bucket.ErrAccessDenied, []string{"set access_key and secret_key"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := c
			tc.change(&c)
			err := open(t, c).Check(t.Context(), "")
			if err == nil {
				t.Fatal("check: got no error")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error: got %q, want %q in it", err, want)
				}
			}
			if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "failed") {
				t.Errorf("error: got %q, want one line that says what was attempted", err)
			}
			if tc.mark != nil && !errors.Is(err, tc.mark) {
				t.Errorf("error: got %v, want it marked as %v", err, tc.mark)
			}
			if errors.Is(err, bucket.ErrNotFound) {
				t.Errorf("error: got %v, marked as an absent object", err)
			}
		})
	}
}

func TestAMissingBucketIsNoMissingObject(t *testing.T) {
	c := real(t)
	c.Bucket = "wrong"
	_, err := open(t, c).Get(t.Context(), "x")
	if err == nil || errors.Is(err, bucket.ErrNotFound) {
		t.Errorf("get: got %v, want an error about the bucket", err)
	}
}

func TestBatchesFallBackToSingleDeletions(t *testing.T) {
	for _, status := range []int{http.StatusNotImplemented, http.StatusMethodNotAllowed} {
		var batches atomic.Int32
		b := open(t, before(t, real(t), func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPost || !r.URL.Query().Has("delete") {
				return false
			}
			batches.Add(1)
			answer(w, status, http.StatusText(status))
			return true
		}))
		names := []string{"a", "b/c", "gone"}
		for _, name := range names[:2] {
			if err := b.Upload(t.Context(), name, strings.NewReader("x")); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.DeleteBatch(t.Context(), names); err != nil {
			t.Errorf("delete a batch where batches end in %d: %v", status, err)
		}
		if err := b.List(t.Context(), "", "", func(o bucket.Object) error { return errors.New(o.Name) }); err != nil {
			t.Errorf("left over: %v", err)
		}
		if batches.Load() == 0 {
			t.Error("no batch was tried")
		}
	}
}

func TestAServerThatIgnoresRangesIsFoundOut(t *testing.T) {
	b := open(t, before(t, real(t), func(_ http.ResponseWriter, r *http.Request) bool {
		r.Header.Del("Range") // SDK signs it not
		return false
	}))
	if err := b.Upload(t.Context(), "x", strings.NewReader("0123456789")); err != nil {
		t.Fatal(err)
	}
	if rc, err := b.GetRange(t.Context(), "x", 5, 2); err == nil {
		got, _ := io.ReadAll(rc)
		_ = rc.Close()
		t.Errorf("range: got %q, want an error", got)
	}
}

func TestAServerThatIgnoresVersionsIsFoundOut(t *testing.T) {
	var condition atomic.Value
	b := open(t, before(t, real(t), func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || r.URL.Path != "/bkt/x" {
			return false
		}
		condition.Store(r.Header.Get("If-Match"))
		w.Header().Set("ETag", `"new"`)
		w.Header().Set("Content-Range", "bytes 5-6/10")
		w.WriteHeader(http.StatusPartialContent)
		_, _ = io.WriteString(w, "56")
		return true
	}))
	if _, err := b.GetRangeIfMatch(t.Context(), "x", "old", 5, 2); !errors.Is(err, bucket.ErrChanged) || condition.Load() != `"old"` {
		t.Errorf("the version that was, under the condition %v: got %v, want ErrChanged", condition.Load(), err)
	}
	rc, err := b.GetRangeIfMatch(t.Context(), "x", "new", 5, 2)
	if err != nil {
		t.Fatalf("the version that is: %v", err)
	}
	if got, err := io.ReadAll(rc); string(got) != "56" || errors.Join(err, rc.Close()) != nil {
		t.Errorf("the version that is: got %q, %v", got, err)
	}
}

func TestABodyThatBreaksOffIsTransient(t *testing.T) {
	b := open(t, before(t, real(t), func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || r.URL.Path != "/bkt/x" {
			return false
		}
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Errorf("flush: %v", err)
		}
		panic(http.ErrAbortHandler)
	}))
	rc, err := b.Get(t.Context(), "x")
	if err != nil {
		t.Fatalf("get: %v", err)
	}
	if _, err := io.ReadAll(rc); !errors.Is(err, bucket.ErrTransient) {
		t.Errorf("read: got %v, want ErrTransient", err)
	}
	if err := rc.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestAConflictOfConditionalWritesIsTriedAgain(t *testing.T) {
	var puts atomic.Int32
	c := before(t, real(t), func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && puts.Add(1) == 1 {
			answer(w, http.StatusConflict, "ConditionalRequestConflict")
			return true
		}
		return false
	})
	if _, err := open(t, c).PutIfAbsent(t.Context(), "x", strings.NewReader("x")); err != nil {
		t.Errorf("put: %v", err)
	}
}

func TestABrokenMultipartUploadLeavesNothing(t *testing.T) {
	var started atomic.Int32
	c := real(t)
	b := open(t, before(t, c, func(w http.ResponseWriter, r *http.Request) bool {
		q := r.URL.Query()
		if q.Has("uploads") {
			started.Add(1)
		}
		if q.Get("partNumber") == "2" {
			_, _ = io.Copy(io.Discard, r.Body) // or the answer may be lost with the connection
			answer(w, http.StatusForbidden, "AccessDenied")
			return true
		}
		return false
	}))
	err := b.Upload(t.Context(), "x", io.LimitReader(zeros{}, 30<<20))
	if !errors.Is(err, bucket.ErrAccessDenied) {
		t.Errorf("upload: got %v, want ErrAccessDenied", err)
	}
	if left := uploadsIn(t, c); started.Load() != 1 || len(left) != 0 {
		t.Errorf("multipart uploads: %d started, %d left, want 1 and 0; the upload said: %v", started.Load(), len(left), err)
	}
}

func TestAnUploadReadsNotFarAhead(t *testing.T) {
	const part = 5 << 20
	var sent atomic.Int64
	c := fake(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		sent.Add(n)
		w.Header().Set("ETag", `"e"`)
		switch {
		case r.URL.Query().Has("uploads"):
			_, _ = io.WriteString(w, `<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>`)
		case r.Method == http.MethodPost:
			_, _ = io.WriteString(w, `<CompleteMultipartUploadResult><ETag>"all"</ETag></CompleteMultipartUploadResult>`)
		}
	})
	c.PartSize, c.SendContentMD5 = part, new(bool)
	var read, ahead int64
	r := readerFunc(func(p []byte) (int, error) {
		if read >= 40*part {
			return 0, io.EOF
		}
		read += int64(len(p))
		ahead = max(ahead, read-sent.Load())
		return len(p), nil
	})
	if err := open(t, c).Upload(t.Context(), "x", r); err != nil {
		t.Fatalf("upload: %v", err)
	}
	if limit := int64(5 * part); ahead > limit {
		t.Errorf("bytes read and not sent: got up to %d, want at most 5 parts, %d", ahead, limit)
	}
}

// fake is a store that only tells what it was asked, for what no real one shows.
func fake(t *testing.T, handle http.HandlerFunc) s3.Config {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	c := s3.Defaults()
	c.Bucket, c.Endpoint, c.Insecure, c.Region = "bkt", server.Listener.Addr().String(), true, "us-east-1"
	c.AccessKey, c.SecretKey = "k", "s"
	return c
}

// asked returns the headers of one upload with a configuration.
func asked(t *testing.T, change func(*s3.Config)) http.Header {
	t.Helper()
	var got http.Header
	c := fake(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Clone()
		w.Header().Set("ETag", `"e"`)
	})
	change(&c)
	if err := open(t, c).Upload(t.Context(), "x", strings.NewReader("hello"), objstore.WithContentType("text/plain")); err != nil {
		t.Fatalf("upload: %v", err)
	}
	return got
}

func TestSettingsBecomeHeaders(t *testing.T) {
	key := t.TempDir() + "/key"
	writeFile(t, key, strings.Repeat("k", 32))
	yes := true
	for name, tc := range map[string]struct {
		change func(*s3.Config)
		want   map[string]string // an empty value means no such header
	}{
		"by default the signature has the only digest, and there is no checksum that other stores refuse": {
			func(*s3.Config) {},
			map[string]string{
				"Content-Md5": "", "Content-Type": "text/plain", "X-Amz-Checksum-Crc32": "",
				"X-Amz-Sdk-Checksum-Algorithm": "", "X-Amz-Trailer": "", "X-Amz-Server-Side-Encryption": "",
			},
		},
		"a second digest can be asked for": {func(c *s3.Config) { c.SendContentMD5 = &yes }, map[string]string{"Content-Md5": "XUFAKrxLKna5cZ2REBfFkg=="}},
		"metadata are the user's or the protocol's": {
			func(c *s3.Config) {
				c.PutUserMetadata = map[string]string{"x-amz-storage-class": "STANDARD_IA", "X-Amz-Acl": "bucket-owner-full-control", "Team": "core", "X-Amz-Meta-Zone": "eu"}
			},
			map[string]string{"X-Amz-Storage-Class": "STANDARD_IA", "X-Amz-Acl": "bucket-owner-full-control", "X-Amz-Meta-Team": "core", "X-Amz-Meta-Zone": "eu"},
		},
		"SSE-S3": {func(c *s3.Config) { c.SSE.Type = "SSE-S3" }, map[string]string{"X-Amz-Server-Side-Encryption": "AES256"}},
		"SSE-KMS": {
			func(c *s3.Config) {
				c.SSE = s3.SSE{Type: "SSE-KMS", KMSKeyID: "id", KMSEncryptionContext: map[string]string{"a": "b"}}
			},
			map[string]string{
				"X-Amz-Server-Side-Encryption": "aws:kms", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": "id",
				"X-Amz-Server-Side-Encryption-Context": "eyJhIjoiYiJ9",
			},
		},
		"SSE-C": {
			func(c *s3.Config) { c.SSE = s3.SSE{Type: "SSE-C", EncryptionKey: key} },
			map[string]string{
				"X-Amz-Server-Side-Encryption-Customer-Algorithm": "AES256",
				"X-Amz-Server-Side-Encryption-Customer-Key":       "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=",
				"X-Amz-Server-Side-Encryption-Customer-Key-Md5":   "odn4MRqXVoeY3PP0bNqBLw==",
			},
		},
		"a session token": {func(c *s3.Config) { c.SessionToken = "tok" }, map[string]string{"X-Amz-Security-Token": "tok"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := asked(t, tc.change)
			for header, want := range tc.want {
				if got := got.Get(header); got != want && (want != "odn4MRqXVoeY3PP0bNqBLw==" || got == "") {
					t.Errorf("%s: got %q, want %q", header, got, want)
				}
			}
		})
	}
}

func TestTheRegionIsFoundOnce(t *testing.T) {
	for name, tc := range map[string]struct {
		handle func(w http.ResponseWriter, r *http.Request) bool
		want   string
	}{
		"in the answer": {func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("X-Amz-Bucket-Region", "eu-central-1")
			return true
		}, "eu-central-1"},
		"in an answer that refuses": {func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("X-Amz-Bucket-Region", "ap-south-1")
			w.WriteHeader(http.StatusForbidden)
			return true
		}, "ap-south-1"},
		"by its location": {func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Query().Has("location") {
				_, _ = io.WriteString(w, `<LocationConstraint>EU</LocationConstraint>`)
			}
			return true
		}, "eu-west-1"},
		"nowhere": {func(w http.ResponseWriter, _ *http.Request) bool {
			answer(w, http.StatusBadRequest, "NotImplemented")
			return true
		}, "us-east-1"},
	} {
		t.Run(name, func(t *testing.T) {
			var lookups atomic.Int32
			var scopes []string
			c := fake(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Query().Has("location") || r.URL.Path == "/bkt" {
					lookups.Add(1)
					tc.handle(w, r)
					return
				}
				scopes = append(scopes, strings.Split(r.Header.Get("Authorization"), "/")[2])
				w.Header().Set("ETag", `"e"`)
			})
			c.Region = ""
			b := open(t, c)
			for range 2 {
				if err := b.Upload(t.Context(), "x", strings.NewReader("x")); err != nil {
					t.Fatalf("upload: %v", err)
				}
			}
			if !slices.Equal(scopes, []string{tc.want, tc.want}) || lookups.Load() > 2 {
				t.Errorf("got requests signed for %q after %d lookups, want 2 for %s after at most 2", scopes, lookups.Load(), tc.want)
			}
		})
	}
}

func TestTheRegionIsLookedUpAgainAfterAnOutage(t *testing.T) {
	down := atomic.Bool{}
	down.Store(true)
	c := fake(t, func(w http.ResponseWriter, _ *http.Request) {
		if down.Load() {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("X-Amz-Bucket-Region", "eu-central-1")
		w.Header().Set("ETag", `"e"`)
	})
	c.Region = ""
	b := open(t, c)
	if err := b.Upload(t.Context(), "x", strings.NewReader("x")); !errors.Is(err, bucket.ErrTransient) {
		t.Errorf("upload while the store is down: got %v, want ErrTransient", err)
	}
	down.Store(false)
	if err := b.Upload(t.Context(), "x", strings.NewReader("x")); err != nil {
		t.Errorf("upload when it is back: %v", err)
	}
}

func TestAWebIdentityIsTradedAtTheTokenService(t *testing.T) {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil || r.Form.Get("WebIdentityToken") != "token" || r.Form.Get("RoleArn") != "arn:aws:iam::1:role/r" {
			t.Errorf("asked the token service for %v, %v", r.Form, err)
		}
		_, _ = io.WriteString(w, `<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>
			<AccessKeyId>traded</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>session</SessionToken>
			<Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`)
	}))
	defer service.Close()
	defer http.DefaultClient.CloseIdleConnections()
	file := t.TempDir() + "/token"
	writeFile(t, file, "token")
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/r")
	t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", file)
	got := asked(t, func(c *s3.Config) { c.AccessKey, c.SecretKey, c.STSEndpoint = "", "", service.URL })
	if !strings.Contains(got.Get("Authorization"), "Credential=traded/") || got.Get("X-Amz-Security-Token") != "session" {
		t.Errorf("signed with %q, token %q, want the traded keys", got.Get("Authorization"), got.Get("X-Amz-Security-Token"))
	}
}

func TestATraceShowsRequestsAndNoSecrets(t *testing.T) {
	var logged strings.Builder
	c := fake(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("ETag", `"e"`) })
	c.Trace.Enable, c.SessionToken, c.SecretKey = true, "secret-token", "secret-key"
	b, err := s3.New(t.Context(), c, slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(b.Upload(t.Context(), "some/object", strings.NewReader("x")), b.Close())
	if err != nil {
		t.Fatalf("upload: %v", err)
	}
	if got := logged.String(); !strings.Contains(got, "/bkt/some/object") || !strings.Contains(got, "method=PUT") || strings.Contains(got, "secret-") {
		t.Errorf("trace: got %s", got)
	}
}

func TestVersion1OfListingsIsAllThatIsAsked(t *testing.T) {
	var version2 atomic.Int32
	c := fake(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("list-type") {
			version2.Add(1)
		}
		_, _ = io.WriteString(w, `<ListBucketResult></ListBucketResult>`)
	})
	c.ListObjectsVersion = "v1"
	b := open(t, c)
	err := errors.Join(
		b.Check(t.Context(), ""),
		b.Iter(t.Context(), "", func(string) error { return nil }),
		b.List(t.Context(), "", "", func(bucket.Object) error { return nil }),
	)
	if err != nil || version2.Load() != 0 {
		t.Errorf("got %d requests of version 2, %v, want none", version2.Load(), err)
	}
}

func TestAnAuthorityOfOnesOwnIsTrustedWhenNamed(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `<ListBucketResult></ListBucketResult>`)
	}))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	server.StartTLS()
	defer server.Close()
	file := t.TempDir() + "/ca.pem"
	writeFile(t, file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	for name, tc := range map[string]struct {
		change func(*s3.Config)
		want   string // part of the error; empty if there is none
	}{
		"an authority nobody named":      {func(*s3.Config) {}, "tls_config.ca_file"},
		"its file":                       {func(c *s3.Config) { c.HTTP.TLSConfig.CAFile = file }, ""},
		"no verification, outer key":     {func(c *s3.Config) { c.HTTP.InsecureSkipVerify = true }, ""},
		"no verification, in tls_config": {func(c *s3.Config) { c.HTTP.TLSConfig.InsecureSkipVerify = true }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := s3.Defaults()
			c.Bucket, c.Endpoint, c.Region, c.AccessKey, c.SecretKey = "bkt", server.Listener.Addr().String(), "us-east-1", "k", "s"
			tc.change(&c)
			err := open(t, c).Check(t.Context(), "")
			if (err == nil) != (tc.want == "") || (err != nil && !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("check: got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func TestLongListingsStopWithTheContext(t *testing.T) {
	var pages atomic.Int32
	c := fake(t, func(w http.ResponseWriter, _ *http.Request) {
		n := strconv.Itoa(int(pages.Add(1)))
		_, _ = io.WriteString(w, `<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>`+n+
			`</NextContinuationToken><Contents><Key>k`+n+`</Key></Contents></ListBucketResult>`)
	})
	ctx, cancel := context.WithCancel(t.Context())
	err := open(t, c).List(ctx, "", "", func(o bucket.Object) error {
		if o.Name == "k3" {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || pages.Load() > 4 {
		t.Errorf("list: got %v after %d pages, want context.Canceled after 3", err, pages.Load())
	}
}
