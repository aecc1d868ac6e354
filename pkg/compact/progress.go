package compact

import (
	"context"
	"io"
	"sync/atomic"

	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/bucket"
)

// progress counts the bytes that a job moves.
type progress struct{ read, written atomic.Int64 }

type progressKey struct{}

// withProgress makes the bucket count what is moved under the context.
func withProgress(ctx context.Context, p *progress) context.Context {
	return context.WithValue(ctx, progressKey{}, p)
}

// watch gives a bucket that counts for the job, if any, that a call is made for.
func watch(b objstore.Bucket) objstore.Bucket {
	w := watched{b}
	if v, ok := b.(bucket.Versioned); ok {
		return watchedVersioned{w, v}
	}
	return w
}

var (
	_ bucket.Lister    = watched{}
	_ bucket.Versioned = watchedVersioned{}
)

type watched struct{ objstore.Bucket }

func (w watched) List(ctx context.Context, prefix, after string, fn func(bucket.Object) error) error {
	return bucket.List(ctx, w.Bucket, prefix, after, fn)
}

func (w watched) DeleteBatch(ctx context.Context, names []string) error {
	return bucket.DeleteAll(ctx, w.Bucket, names)
}

func (w watched) PendingUploads(ctx context.Context, prefix string, fn func(bucket.PendingUpload) error) error {
	return bucket.PendingUploads(ctx, w.Bucket, prefix, fn)
}

func (w watched) AbortUpload(ctx context.Context, u bucket.PendingUpload) error {
	return bucket.AbortUpload(ctx, w.Bucket, u)
}

func (w watched) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	r, err := w.Bucket.GetRange(ctx, name, off, length)
	p, ok := ctx.Value(progressKey{}).(*progress)
	if err != nil || !ok {
		return r, err //nolint:wrapcheck // it is the bucket's own, which names the object
	}
	return struct {
		io.Reader
		io.Closer
	}{counted{r, &p.read}, r}, nil
}

// counted counts what is read.
type counted struct {
	io.Reader

	n *atomic.Int64
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n.Add(int64(n))
	return n, err //nolint:wrapcheck // io.EOF must stay io.EOF
}

type watchedVersioned struct {
	watched
	versioned bucket.Versioned
}

func (w watchedVersioned) GetVersion(ctx context.Context, name string) ([]byte, string, error) {
	return w.versioned.GetVersion(ctx, name)
}

// PutIfAbsent counts what is read of r. A reader that knows its length is small and stays what it is.
func (w watchedVersioned) PutIfAbsent(ctx context.Context, name string, r io.Reader) (string, error) {
	_, sized := r.(interface{ Len() int })
	if p, ok := ctx.Value(progressKey{}).(*progress); ok && !sized {
		r = counted{r, &p.written}
	}
	return w.versioned.PutIfAbsent(ctx, name, r)
}

func (w watchedVersioned) PutIfMatch(ctx context.Context, name string, content []byte, etag string) (string, error) {
	return w.versioned.PutIfMatch(ctx, name, content, etag)
}
