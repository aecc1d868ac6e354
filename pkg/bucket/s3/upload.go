package s3

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // the protocol's own digest
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"

	"github.com/varve-io/varve/pkg/bucket/internal/contract"
)

const (
	// partsAtOnce is how many parts travel at a time, of one upload or of several.
	// Memory in use is at most that of these and of one part of each upload that is
	// being read. At 90 MB/s a connection they carry 280 MB/s.
	partsAtOnce = 4
	// defaultPart is the size of a part when neither part_size nor the length of the
	// upload asks for more: 40 MiB of memory an upload, where objstore's 64 MiB would
	// take 320.
	defaultPart = 8 << 20
	// streamPart is where the parts of an upload of unknown length begin: a compactor
	// has several of these open at a time.
	streamPart = 6 << 20
	// maxParts is the most that an object may have.
	maxParts = 10_000
	// growEvery is after how many parts of an upload of unknown length they double,
	// so that 10,000 of them hold more than an object may.
	growEvery = 1000
	// abortTime is what an upload that ends early may take to clean up.
	abortTime = 10 * time.Second
)

// condition is what must hold of the name when an upload takes it.
type condition struct {
	ifNoneMatch, ifMatch *string
	mark                 error // of the error when it does not hold
}

// Upload stores an object, replacing one of the same name.
func (b *Bucket) Upload(ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption) error {
	params := objstore.ApplyObjectUploadOptions(opts...)
	_, err := b.upload(ctx, &upload{bucket: b, name: name, contentType: optional(params.ContentType)}, r)
	return err
}

// PutIfAbsent stores an object whose name must be free when the upload is complete.
func (b *Bucket) PutIfAbsent(ctx context.Context, name string, r io.Reader) (string, error) {
	return b.upload(ctx, &upload{
		bucket: b, name: name, condition: condition{ifNoneMatch: aws.String("*"), mark: contract.ErrExists},
	}, r)
}

// PutIfMatch replaces an object that must still have the given ETag.
func (b *Bucket) PutIfMatch(ctx context.Context, name string, content []byte, etag string) (string, error) {
	if etag == "" {
		return "", contract.Mark(fmt.Errorf("replace %s: the version to replace has no ETag", name), contract.ErrChanged)
	}
	u := &upload{bucket: b, name: name, condition: condition{ifMatch: quote(etag), mark: contract.ErrChanged}}
	return u.single(ctx, bytes.NewReader(content))
}

// upload is one object on its way.
type upload struct {
	bucket      *Bucket
	name        string
	contentType *string
	condition   condition

	id    *string // of the multipart upload
	mu    sync.Mutex
	parts []types.CompletedPart
}

// upload sends one request for what fits into a part, and parts in parallel for
// the rest.
func (b *Bucket) upload(ctx context.Context, u *upload, r io.Reader) (string, error) {
	if b.conf.DisableMultipart {
		return u.whole(ctx, r)
	}
	hint, err := objstore.TryToGetSize(r)
	if err != nil {
		hint = -1
	}
	size := b.partSize(hint, 0)
	first, err := b.readFirst(contextReader{ctx, r}, size, hint)
	if err != nil {
		return "", fmt.Errorf("upload %s: read the content: %w", u.name, err)
	}
	if int64(len(first)) < size {
		return u.single(ctx, bytes.NewReader(first))
	}
	return u.multipart(ctx, first, r, hint)
}

// partSize returns the size of the part that follows so many others in an upload
// of about hint bytes, or of unknown length if hint is negative.
func (b *Bucket) partSize(hint int64, before int) int64 {
	if b.conf.PartSize > 0 {
		return b.conf.PartSize
	}
	if hint < 0 {
		return streamPart << (before / growEvery)
	}
	size := max(defaultPart, (hint+maxParts-1)/maxParts)
	if int64(before)*size <= hint {
		return size
	}
	return size << (before / growEvery)
}

// readFirst reads up to size bytes. It begins with what hint says, so that a small
// object does not take the memory of a part.
func (b *Bucket) readFirst(r io.Reader, size, hint int64) ([]byte, error) {
	const begin, small = 64 << 10, 1 << 20
	if hint < 0 {
		hint = begin
	}
	limit := min(size, max(hint+1, small))
	var buf bytes.Buffer
	buf.Grow(int(min(size, hint)) + bytes.MinRead)
	if _, err := buf.ReadFrom(io.LimitReader(r, limit)); err != nil || int64(buf.Len()) < limit || limit == size {
		return buf.Bytes(), err
	}
	part := b.memory(size)
	n := copy(part, buf.Bytes())
	return fill(part, n, r)
}

// memory is that of a part which the store has, or new.
func (b *Bucket) memory(size int64) []byte {
	if part, ok := b.spare.Get().([]byte); ok && int64(cap(part)) >= size {
		return part[:size]
	}
	return make([]byte, size)
}

// fill reads what a part lacks behind its first n bytes; at the end of r it stays shorter.
func fill(part []byte, n int, r io.Reader) ([]byte, error) {
	m, err := io.ReadFull(r, part[n:])
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return part[:n+m], err
}

// single puts an object with one request; content may be sent again.
func (u *upload) single(ctx context.Context, content io.ReadSeeker) (etag string, err error) {
	b, e := u.bucket, u.bucket.encryption
	client, err := b.api(ctx)
	if err != nil {
		return "", b.explain("upload", u.name, err)
	}
	var out *s3.PutObjectOutput
	err = b.digested(content, func(digest *string) (err error) {
		out, err = client.PutObject(ctx, &s3.PutObjectInput{
			Bucket: &b.conf.Bucket, Key: &u.name, Body: content, ContentType: u.contentType, ContentMD5: digest,
			Metadata: b.metadata.user, IfNoneMatch: u.condition.ifNoneMatch, IfMatch: u.condition.ifMatch,
			ServerSideEncryption: e.serverSide, SSEKMSKeyId: e.kmsKey, SSEKMSEncryptionContext: e.kmsContext,
			SSECustomerAlgorithm: e.algorithm, SSECustomerKey: e.key, SSECustomerKeyMD5: e.digest,
		}, b.metadata.headers, b.payload)
		return err //nolint:wrapcheck // it is explained below
	})
	if err != nil {
		return "", b.explain("upload", u.name, marked(err, u.condition.mark))
	}
	return unquote(out.ETag), nil
}

// whole puts an object of any length with one request. What cannot be read twice
// waits in a file: a request must state its length and its digest before.
func (u *upload) whole(ctx context.Context, r io.Reader) (etag string, err error) {
	content, ok := r.(io.ReadSeeker)
	if !ok {
		f, err := os.CreateTemp("", "varve-upload-*")
		if err != nil {
			return "", fmt.Errorf("upload %s without multipart: %w", u.name, err)
		}
		defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
		if _, err := io.Copy(f, contextReader{ctx, r}); err != nil {
			return "", fmt.Errorf("upload %s without multipart: spool the content: %w", u.name, err)
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return "", fmt.Errorf("upload %s without multipart: %w", u.name, err)
		}
		content = f
	}
	return u.single(ctx, content)
}

// contextReader ends with the context, between two reads.
type contextReader struct {
	ctx context.Context //nolint:containedctx // lives no longer than the call that made it
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p) //nolint:wrapcheck // io.EOF must stay io.EOF
}

// multipart uploads in parts what begins with first and goes on with r.
func (u *upload) multipart(ctx context.Context, first []byte, r io.Reader, hint int64) (etag string, err error) {
	if u.condition.ifNoneMatch != nil { // spare the parts that would be in vain
		if found, err := u.bucket.Exists(ctx, u.name); err != nil {
			return "", err
		} else if found {
			return "", contract.Mark(fmt.Errorf("upload %s: an object of that name exists", u.name), u.condition.mark)
		}
	}
	if err := u.create(ctx); err != nil {
		return "", u.bucket.explain("upload", u.name, err)
	}
	defer func() {
		if err == nil {
			return
		}
		if abortErr := u.abort(ctx); abortErr != nil {
			err = fmt.Errorf("%w; %w", err, abortErr)
		}
	}()
	if err := u.send(ctx, first, r, hint); err != nil {
		return "", err
	}
	etag, err = u.complete(ctx)
	if err != nil {
		return "", u.bucket.explain("upload", u.name, marked(err, u.condition.mark))
	}
	return etag, nil
}

// send reads part by part and has partsAtOnce of them under way. After an error the
// others come to their end: a server may keep a part that is broken off, and with it
// the upload, behind an abort that overtakes it.
func (u *upload) send(ctx context.Context, part []byte, r io.Reader, hint int64) error {
	g, working := errgroup.WithContext(ctx)
	var readErr error
	for n := int32(1); len(part) > 0 && working.Err() == nil; n++ {
		if n > maxParts {
			readErr = fmt.Errorf("upload %s: longer than %d parts of %d bytes: raise part_size", u.name, maxParts, len(part))
			break
		}
		select {
		case u.bucket.sending <- struct{}{}:
		case <-working.Done():
			continue
		}
		sending := part
		g.Go(func() error {
			defer func() { <-u.bucket.sending }()
			return u.part(ctx, n, sending)
		})
		if part, readErr = fill(u.bucket.memory(u.bucket.partSize(hint, int(n))), 0, contextReader{ctx, r}); readErr != nil {
			readErr = fmt.Errorf("upload %s: read the content: %w", u.name, readErr)
			break
		}
	}
	err := g.Wait()
	switch {
	case readErr != nil:
		return readErr
	case err == nil && ctx.Err() != nil:
		return fmt.Errorf("upload %s: %w", u.name, ctx.Err())
	}
	return err
}

func (u *upload) create(ctx context.Context) error {
	b, e := u.bucket, u.bucket.encryption
	client, err := b.api(ctx)
	if err != nil {
		return err
	}
	out, err := client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: &b.conf.Bucket, Key: &u.name, ContentType: u.contentType, Metadata: b.metadata.user,
		ServerSideEncryption: e.serverSide, SSEKMSKeyId: e.kmsKey, SSEKMSEncryptionContext: e.kmsContext,
		SSECustomerAlgorithm: e.algorithm, SSECustomerKey: e.key, SSECustomerKeyMD5: e.digest,
	}, b.metadata.headers)
	if err != nil {
		return err //nolint:wrapcheck // the caller explains it
	}
	u.id = out.UploadId
	return nil
}

func (u *upload) part(ctx context.Context, n int32, content []byte) error {
	b, e := u.bucket, u.bucket.encryption
	client, err := b.api(ctx)
	if err != nil {
		return b.explain("upload", u.name, err)
	}
	var out *s3.UploadPartOutput
	body := bytes.NewReader(content)
	err = b.digested(body, func(digest *string) (err error) {
		out, err = client.UploadPart(ctx, &s3.UploadPartInput{
			Bucket: &b.conf.Bucket, Key: &u.name, UploadId: u.id, PartNumber: &n, Body: body, ContentMD5: digest,
			SSECustomerAlgorithm: e.algorithm, SSECustomerKey: e.key, SSECustomerKeyMD5: e.digest,
		}, b.payload)
		return err //nolint:wrapcheck // it is explained below
	})
	if err != nil {
		return b.explain("upload", u.name, fmt.Errorf("part %d: %w", n, err))
	}
	if tries, ok := retry.GetAttemptResults(out.ResultMetadata); ok && len(tries.Results) == 1 {
		b.spare.Put(content) //nolint:staticcheck // a slice header is nothing beside a part. An attempt that was given up may still read its part.
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.parts = append(u.parts, types.CompletedPart{ETag: out.ETag, PartNumber: &n})
	return nil
}

func (u *upload) complete(ctx context.Context) (string, error) {
	b, e := u.bucket, u.bucket.encryption
	client, err := b.api(ctx)
	if err != nil {
		return "", err
	}
	slices.SortFunc(u.parts, func(x, y types.CompletedPart) int { return int(*x.PartNumber - *y.PartNumber) })
	out, err := client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &b.conf.Bucket, Key: &u.name, UploadId: u.id, MultipartUpload: &types.CompletedMultipartUpload{Parts: u.parts},
		IfNoneMatch: u.condition.ifNoneMatch, IfMatch: u.condition.ifMatch,
		SSECustomerAlgorithm: e.algorithm, SSECustomerKey: e.key, SSECustomerKeyMD5: e.digest,
	})
	if err != nil {
		return "", err //nolint:wrapcheck // the caller explains it
	}
	return unquote(out.ETag), nil
}

// abort frees the parts of an upload that ends early, also when its context ended.
func (u *upload) abort(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTime)
	defer cancel()
	b := u.bucket
	client, err := b.api(ctx)
	if err != nil {
		return b.explain("abort the upload of", u.name, err)
	}
	_, err = client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &b.conf.Bucket, Key: &u.name, UploadId: u.id}, fewAttempts)
	if r := responseOf(err); r != nil && r.StatusCode == http.StatusNotFound {
		return nil // it is gone already
	}
	return b.explain("abort the upload of", u.name, err)
}

// payload says how the signature covers content. Over plain HTTP it includes the
// SHA-256, by which the store notices what was changed on the way. TLS does that
// already, and the digest would cost more than the encryption; Thanos leaves it out, too.
func (b *Bucket) payload(o *s3.Options) {
	if !b.conf.Insecure {
		o.APIOptions = append(o.APIOptions, v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware)
	}
}

// digested puts content, together with its Content-MD5 if that is to be sent: where the
// operator or the store wants it, and over TLS, where the signature leaves content out. One
// digest is enough.
func (b *Bucket) digested(content io.ReadSeeker, put func(digest *string) error) error {
	start, err := content.Seek(0, io.SeekCurrent)
	if err != nil {
		return err //nolint:wrapcheck // the caller says what was attempted
	}
	if wanted := b.conf.SendContentMD5; wanted != nil && !*wanted || wanted == nil && b.conf.Insecure && !b.wantsMD5.Load() {
		if err = put(nil); wanted != nil || !demandsMD5(err) {
			return err
		}
		b.wantsMD5.Store(true)
		if _, err := content.Seek(start, io.SeekStart); err != nil {
			return err //nolint:wrapcheck // the caller says what was attempted
		}
	}
	h := md5.New() //nolint:gosec // the protocol's own digest
	_, err = io.Copy(h, content)
	if _, back := content.Seek(start, io.SeekStart); err == nil {
		err = back
	}
	if err != nil {
		return err
	}
	return put(aws.String(base64.StdEncoding.EncodeToString(h.Sum(nil))))
}

// demandsMD5 reports whether a store refuses content without Content-MD5, as for buckets with object lock.
func demandsMD5(err error) bool {
	code, message := apiCode(err)
	return code == "MissingContentMD5" || code == "InvalidRequest" && strings.Contains(strings.ToLower(message), "content-md5")
}
