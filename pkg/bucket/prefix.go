package bucket

import (
	"context"
	"io"
	"strings"

	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/bucket/internal/contract"
)

var (
	_ objstore.Bucket        = prefixed{}
	_ Lister                 = prefixed{}
	_ contract.BatchDeleter  = prefixed{}
	_ contract.Checker       = prefixed{}
	_ contract.UploadSweeper = prefixed{}
	_ contract.VersionReader = prefixed{}
	_ Versioned              = prefixedVersioned{}
)

// WithPrefix returns the part of b below a directory, which is part of no name.
// Slashes around the prefix mean nothing; an empty one leaves b as it is. The part
// has the capabilities of b, and is a Lister in any case.
func WithPrefix(b objstore.Bucket, prefix string) objstore.Bucket {
	prefix = strings.Trim(prefix, objstore.DirDelim)
	if prefix == "" {
		return b
	}
	p := prefixed{Bucket: b, prefix: prefix + objstore.DirDelim}
	if v, ok := b.(Versioned); ok {
		return prefixedVersioned{p, v}
	}
	return p
}

type prefixed struct {
	objstore.Bucket
	prefix string // ends in a slash
}

func (p prefixed) Iter(ctx context.Context, dir string, f func(string) error, options ...objstore.IterOption) error {
	return p.Bucket.Iter(ctx, p.prefix+dir, func(name string) error {
		return f(strings.TrimPrefix(name, p.prefix))
	}, options...)
}

func (p prefixed) IterWithAttributes(ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error, options ...objstore.IterOption) error {
	return p.Bucket.IterWithAttributes(ctx, p.prefix+dir, func(a objstore.IterObjectAttributes) error {
		a.Name = strings.TrimPrefix(a.Name, p.prefix)
		return f(a)
	}, options...)
}

func (p prefixed) List(ctx context.Context, prefix, after string, fn func(Object) error) error {
	if after != "" {
		after = p.prefix + after
	}
	return List(ctx, p.Bucket, p.prefix+prefix, after, func(o Object) error {
		o.Name = strings.TrimPrefix(o.Name, p.prefix)
		return fn(o)
	})
}

func (p prefixed) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return p.Bucket.Get(ctx, p.prefix+name)
}

func (p prefixed) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	return p.Bucket.GetRange(ctx, p.prefix+name, off, length)
}

func (p prefixed) GetRangeIfMatch(ctx context.Context, name, etag string, off, length int64) (io.ReadCloser, error) {
	return GetRangeIfMatch(ctx, p.Bucket, Object{Name: p.prefix + name, ETag: etag}, off, length)
}

func (p prefixed) Exists(ctx context.Context, name string) (bool, error) {
	return p.Bucket.Exists(ctx, p.prefix+name)
}

func (p prefixed) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	return p.Bucket.Attributes(ctx, p.prefix+name)
}

func (p prefixed) Upload(ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption) error {
	return p.Bucket.Upload(ctx, p.prefix+name, r, opts...)
}

func (p prefixed) Delete(ctx context.Context, name string) error {
	return p.Bucket.Delete(ctx, p.prefix+name)
}

func (p prefixed) DeleteBatch(ctx context.Context, names []string) error {
	whole := make([]string, len(names))
	for i, name := range names {
		whole[i] = p.prefix + name
	}
	return DeleteAll(ctx, p.Bucket, whole)
}

func (p prefixed) PendingUploads(ctx context.Context, prefix string, fn func(PendingUpload) error) error {
	return PendingUploads(ctx, p.Bucket, p.prefix+prefix, func(u PendingUpload) error {
		u.Name = strings.TrimPrefix(u.Name, p.prefix)
		return fn(u)
	})
}

func (p prefixed) AbortUpload(ctx context.Context, u PendingUpload) error {
	u.Name = p.prefix + u.Name
	return AbortUpload(ctx, p.Bucket, u)
}

func (p prefixed) Check(ctx context.Context, dir string) error {
	return checkDir(ctx, p.Bucket, p.prefix+dir)
}

// prefixedVersioned is a prefixed bucket with conditional writes.
type prefixedVersioned struct {
	prefixed
	versioned Versioned
}

func (p prefixedVersioned) GetVersion(ctx context.Context, name string) ([]byte, string, error) {
	return p.versioned.GetVersion(ctx, p.prefix+name)
}

func (p prefixedVersioned) PutIfAbsent(ctx context.Context, name string, r io.Reader) (string, error) {
	return p.versioned.PutIfAbsent(ctx, p.prefix+name, r)
}

func (p prefixedVersioned) PutIfMatch(ctx context.Context, name string, content []byte, etag string) (string, error) {
	return p.versioned.PutIfMatch(ctx, p.prefix+name, content, etag)
}
