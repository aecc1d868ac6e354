package s3

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/middleware"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// route is how the SDK has asked for an object: what a request for another one needs. The
// SDK takes a quarter of a millisecond of CPU time for a request, which is as much as to
// read a hundred kilobytes. So reads of ranges go the way that it has found, and whatever
// does not succeed at once goes the SDK's way, which knows what to do about errors.
type route struct {
	url             url.URL // without the name of the object
	region, service string  // of the signature
}

// emptyHash is the SHA-256 of no content.
const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// plain reports whether a name has no character that a URL escapes.
func plain(name string) bool {
	return strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/-._") == "" && !strings.Contains(name, "//")
}

// learn takes the route from an answer that the SDK has got, if it is one that others can go.
func (b *Bucket) learn(name string, out *s3.GetObjectOutput) {
	raw, ok := middleware.GetRawResponse(out.ResultMetadata).(*smithyhttp.Response)
	if !ok || b.route.Load() != nil || b.encryption.key != nil || !plain(name) {
		return
	}
	asked := raw.Request
	path, whole := strings.CutSuffix(asked.URL.Path, name)
	// AWS4-HMAC-SHA256 Credential=key/date/region/service/aws4_request, ...
	_, credential, ok := strings.Cut(asked.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=")
	credential, _, _ = strings.Cut(credential, ",")
	scope := strings.Split(credential, "/")
	if !ok || !whole || len(scope) < 5 || asked.Header.Get("X-Amz-S3session-Token") != "" {
		return
	}
	scope = scope[len(scope)-5:]
	b.route.Store(&route{url.URL{Scheme: asked.URL.Scheme, Host: asked.URL.Host, Path: path}, scope[2], scope[3]})
}

// quickly asks for a range by the route that is known. It returns nil if that did not succeed.
func (b *Bucket) quickly(ctx context.Context, name, etag, span string) *s3.GetObjectOutput {
	r := b.route.Load()
	if r == nil || b.slow.Load() || !plain(name) {
		return nil
	}
	to := r.url
	to.Path += name
	request := (&http.Request{Method: http.MethodGet, URL: &to, Header: http.Header{
		"User-Agent": {b.options.AppID}, "Range": {span}, "X-Amz-Content-Sha256": {emptyHash},
	}}).WithContext(ctx)
	if etag != "" {
		request.Header.Set("If-Match", *quote(etag))
	}
	keys, err := b.options.Credentials.Retrieve(ctx)
	if err == nil {
		err = b.signer.SignHTTP(ctx, keys, request, emptyHash, r.service, r.region, time.Now())
	}
	if err != nil {
		return nil
	}
	answer, err := b.options.HTTPClient.Do(request)
	if err == nil && answer.StatusCode == http.StatusPartialContent {
		return &s3.GetObjectOutput{
			Body: answer.Body, ContentLength: aws.Int64(answer.ContentLength),
			ContentRange: header(answer, "Content-Range"), ETag: header(answer, "ETag"),
		}
	}
	b.route.Store(nil) // until the SDK has got an answer
	if err == nil {
		switch answer.StatusCode {
		case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
			b.slow.Store(true) // if the SDK can do it, it can do what is not done here
		}
		const little = 64 << 10 // so much is read to use the connection again
		_, _ = io.CopyN(io.Discard, answer.Body, little)
		_ = answer.Body.Close()
	}
	return nil
}

// header returns a header of an answer, nil for none.
func header(answer *http.Response, name string) *string {
	if v := answer.Header.Get(name); v != "" {
		return &v
	}
	return nil
}

// newSigner returns a signer of requests as S3 wants them.
func newSigner() *v4.Signer {
	return v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
}
