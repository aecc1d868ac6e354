// Package s3 is objstore.Bucket over aws-sdk-go-v2, for AWS and for every store
// that speaks its protocol.
//
// Floor 1, below package bucket, which opens it and states the contract. Beyond
// objstore's interface it lists flat, writes conditionally and deletes in batches.
//
// Requests wait and repeat themselves on 429, 503, SlowDown and broken
// connections, each for itself. An answer that stalls for a minute
// is an error, which the caller may try again. Checksums travel only where the
// protocol demands them, because stores other than AWS refuse them elsewhere. Requests
// are never anonymous.
package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/bucket/internal/contract"
)

var (
	_ objstore.Bucket       = (*Bucket)(nil)
	_ contract.Lister       = (*Bucket)(nil)
	_ contract.Versioned    = (*Bucket)(nil)
	_ contract.BatchDeleter = (*Bucket)(nil)
	_ contract.Checker      = (*Bucket)(nil)

	_ contract.VersionReader = (*Bucket)(nil)
)

// Bucket is one bucket of a store. It is safe for concurrent use.
type Bucket struct {
	conf       Config
	log        *slog.Logger
	options    s3.Options // without a region
	encryption encryption
	metadata   metadata
	close      func()
	sending    chan struct{} // a place for each part on its way
	spare      sync.Pool     // memory of parts that the store has
	wantsMD5   atomic.Bool   // the store refused content without Content-MD5

	mu     sync.Mutex
	client *s3.Client // nil until the region is known
}

// New returns the bucket of a configuration. It asks the network nothing: the
// region, when it is not configured, and the credentials are found at first use.
func New(ctx context.Context, conf Config, log *slog.Logger) (*Bucket, error) {
	return newBucket(ctx, conf, stallWait, log)
}

func newBucket(ctx context.Context, conf Config, wait time.Duration, log *slog.Logger) (*Bucket, error) {
	if err := conf.Validate(); err != nil {
		return nil, err
	}
	b := &Bucket{conf: conf, log: log, metadata: splitMetadata(conf.PutUserMetadata), sending: make(chan struct{}, partsAtOnce)}
	var err error
	if b.encryption, err = newEncryption(conf.SSE); err != nil {
		return nil, err
	}
	if b.options, b.close, err = newOptions(ctx, conf, wait, log); err != nil {
		return nil, err
	}
	if region, _ := conf.isAWS(); conf.Region == "" {
		b.conf.Region = region
	}
	return b, nil
}

// Provider returns objstore.S3.
func (b *Bucket) Provider() objstore.ObjProvider { return objstore.S3 }

// Name returns the name of the bucket.
func (b *Bucket) Name() string { return b.conf.Bucket }

// Close lets go of idle connections.
func (b *Bucket) Close() error {
	b.close()
	return nil
}

// IsObjNotFoundErr reports whether err carries bucket.ErrNotFound.
func (b *Bucket) IsObjNotFoundErr(err error) bool { return errors.Is(err, contract.ErrNotFound) }

// IsAccessDeniedErr reports whether err carries bucket.ErrAccessDenied.
func (b *Bucket) IsAccessDeniedErr(err error) bool { return errors.Is(err, contract.ErrAccessDenied) }

// Get returns a reader of an object.
func (b *Bucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return b.GetRange(ctx, name, 0, -1)
}

// GetRange returns a reader of a part of an object. One call is one request; who
// wants a long range fast asks for parts of it in parallel.
func (b *Bucket) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	return b.GetRangeIfMatch(ctx, name, "", off, length)
}

// GetRangeIfMatch is GetRange of an object that must have the given ETag, if one is given.
// The answer is looked at, too: not every store knows conditions of reads.
func (b *Bucket) GetRangeIfMatch(ctx context.Context, name, etag string, off, length int64) (io.ReadCloser, error) {
	if err := contract.CheckRange(name, off, length); err != nil {
		return nil, err
	}
	out, err := b.get(ctx, name, etag, off, length)
	if code, _ := apiCode(err); code == "InvalidRange" { // it starts at or past the end
		return objstore.ObjectSizerReadCloser{ReadCloser: http.NoBody, Size: func() (int64, error) { return 0, nil }}, nil
	}
	if unmet(err) {
		err = contract.Mark(err, contract.ErrChanged)
	}
	if err != nil {
		return nil, b.explain("read", name, err)
	}
	if got := unquote(out.ETag); etag != "" && got != "" && got != etag {
		err := contract.Mark(fmt.Errorf("it is the version %s, not %s", got, etag), contract.ErrChanged)
		return nil, errors.Join(b.explain("read", name, err), out.Body.Close())
	}
	size := aws.ToInt64(out.ContentLength)
	if (off > 0 || length >= 0) && out.ContentRange == nil {
		// A server that sends more than it was asked for would corrupt what we build.
		return nil, errors.Join(b.explain("read", name, errors.New("the server ignored the range and sent the whole object")), out.Body.Close())
	}
	return objstore.ObjectSizerReadCloser{
		ReadCloser: &body{ReadCloser: out.Body, bucket: b, name: name},
		Size:       func() (int64, error) { return size, nil },
	}, nil
}

func (b *Bucket) get(ctx context.Context, name, etag string, off, length int64) (*s3.GetObjectOutput, error) {
	client, err := b.api(ctx)
	if err != nil {
		return nil, err
	}
	in := &s3.GetObjectInput{
		Bucket: &b.conf.Bucket, Key: &name,
		SSECustomerAlgorithm: b.encryption.algorithm, SSECustomerKey: b.encryption.key, SSECustomerKeyMD5: b.encryption.digest,
	}
	if etag != "" {
		in.IfMatch = quote(etag)
	}
	switch {
	case length >= 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", off, off+length-1))
	case off > 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", off))
	}
	return client.GetObject(ctx, in) //nolint:wrapcheck // the caller explains it
}

// body marks what goes wrong while an object is read.
type body struct {
	io.ReadCloser
	bucket *Bucket
	name   string
}

func (r *body) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = r.bucket.explain("read", r.name, err)
	}
	return n, err
}

// GetVersion returns an object and its ETag.
func (b *Bucket) GetVersion(ctx context.Context, name string) (content []byte, etag string, err error) {
	out, err := b.get(ctx, name, "", 0, -1)
	if err != nil {
		return nil, "", b.explain("read", name, err)
	}
	content, err = io.ReadAll(out.Body)
	if err = errors.Join(err, out.Body.Close()); err != nil {
		return nil, "", b.explain("read", name, err)
	}
	return content, unquote(out.ETag), nil
}

// Exists reports whether there is an object of that name.
func (b *Bucket) Exists(ctx context.Context, name string) (bool, error) {
	_, err := b.head(ctx, name)
	if errors.Is(err, contract.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Attributes returns size and time of an object.
func (b *Bucket) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	out, err := b.head(ctx, name)
	if err != nil {
		return objstore.ObjectAttributes{}, err
	}
	return objstore.ObjectAttributes{Size: aws.ToInt64(out.ContentLength), LastModified: aws.ToTime(out.LastModified)}, nil
}

func (b *Bucket) head(ctx context.Context, name string) (*s3.HeadObjectOutput, error) {
	client, err := b.api(ctx)
	if err != nil {
		return nil, b.explain("look at", name, err)
	}
	out, err := client.HeadObject(ctx, &s3.HeadObjectInput{
		Bucket: &b.conf.Bucket, Key: &name,
		SSECustomerAlgorithm: b.encryption.algorithm, SSECustomerKey: b.encryption.key, SSECustomerKeyMD5: b.encryption.digest,
	})
	if err != nil {
		return nil, b.explain("look at", name, err)
	}
	return out, nil
}

// Check lists one object below dir, with two attempts within half a minute.
func (b *Bucket) Check(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	client, err := b.api(ctx)
	if err != nil {
		return b.explain("list", dir, err)
	}
	keys, err := b.options.Credentials.Retrieve(ctx)
	if err != nil {
		return b.explain("list", dir, err)
	}
	b.log.Debug("credentials found", "bucket", b.conf.Bucket, "source", keys.Source, "region", client.Options().Region)
	if b.conf.ListObjectsVersion == "v1" {
		_, err = client.ListObjects(ctx, &s3.ListObjectsInput{Bucket: &b.conf.Bucket, Prefix: &dir, MaxKeys: aws.Int32(1)}, fewAttempts)
	} else {
		_, err = client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &b.conf.Bucket, Prefix: &dir, MaxKeys: aws.Int32(1)}, fewAttempts)
	}
	return b.explain("list", dir, err)
}

// api returns the client, once the region is known. A region that could not be
// looked up is looked up again by the next caller. The goroutine is made ready for requests.
func (b *Bucket) api(ctx context.Context) (*s3.Client, error) {
	grow(0)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.client != nil {
		return b.client, nil
	}
	region := b.conf.Region
	if region == "" {
		var err error
		if region, err = b.findRegion(ctx); err != nil {
			return nil, err
		}
		b.log.Info("region found", "bucket", b.conf.Bucket, "region", region)
	}
	b.client = b.clientIn(ctx, region)
	return b.client, nil
}

func (b *Bucket) clientIn(ctx context.Context, region string) *s3.Client {
	o := b.options
	o.Region = region
	settle(ctx, &o, b.conf.Bucket)
	return s3.New(o)
}

// findRegion asks the store for the region of the bucket. What answers without
// naming one is content with us-east-1, as all stores with no regions are.
func (b *Bucket) findRegion(ctx context.Context) (string, error) {
	const fallback = "us-east-1"
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	client := b.clientIn(ctx, fallback)
	head, err := client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &b.conf.Bucket}, fewAttempts)
	if err == nil && aws.ToString(head.BucketRegion) != "" {
		return *head.BucketRegion, nil
	}
	response := responseOf(err)
	switch {
	case err != nil && response == nil:
		return "", err //nolint:wrapcheck // the caller explains it
	case response != nil && response.Header.Get("X-Amz-Bucket-Region") != "":
		return response.Header.Get("X-Amz-Bucket-Region"), nil
	}
	where, err := client.GetBucketLocation(ctx, &s3.GetBucketLocationInput{Bucket: &b.conf.Bucket}, fewAttempts)
	if err != nil && responseOf(err) == nil {
		return "", err //nolint:wrapcheck // the caller explains it
	}
	if err != nil || where.LocationConstraint == "" {
		return fallback, nil // what is wrong, the next request says better
	}
	if where.LocationConstraint == "EU" {
		return "eu-west-1", nil
	}
	return string(where.LocationConstraint), nil
}

func unquote(etag *string) string { return strings.Trim(aws.ToString(etag), `"`) }

func quote(etag string) *string { return aws.String(`"` + etag + `"`) }
