package buckettest

import (
	"context"
	"errors"
	"io"

	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/bucket"
)

var (
	_ objstore.Bucket  = (*Log)(nil)
	_ bucket.Lister    = (*Log)(nil)
	_ bucket.Versioned = (*Log)(nil)
	_ objstore.Bucket  = (*Faulty)(nil)
	_ bucket.Lister    = (*Faulty)(nil)
	_ bucket.Versioned = (*Faulty)(nil)
)

// Kind is what an operation on a bucket does.
type Kind string

// The kinds of operations. Create is PutIfAbsent, Replace is PutIfMatch.
const (
	Upload     Kind = "upload"
	Create     Kind = "create"
	Replace    Kind = "replace"
	Delete     Kind = "delete"
	Iter       Kind = "iter"
	List       Kind = "list"
	Get        Kind = "get"
	GetRange   Kind = "get_range"
	GetVersion Kind = "get_version"
	Exists     Kind = "exists"
	Attributes Kind = "attributes"
)

// Op is one operation: its kind, and the object or, of a listing, the prefix.
type Op struct {
	Kind Kind
	Name string
}

// String returns "upload a/b".
func (o Op) String() string { return string(o.Kind) + " " + o.Name }

// Writes reports whether the operation changes the bucket.
func (o Op) Writes() bool {
	switch o.Kind {
	case Upload, Create, Replace, Delete:
		return true
	case Iter, List, Get, GetRange, GetVersion, Exists, Attributes:
	}
	return false
}

// intercept puts a function around every operation on a bucket. It has every
// capability but batch deletion, so that every deletion is an operation; on a bucket
// that is not Versioned the conditional ones end in an error.
type intercept struct {
	objstore.Bucket
	around func(op Op, do func() error) error
}

var errNotVersioned = errors.New("the bucket has no conditional writes")

func (b intercept) Iter(ctx context.Context, dir string, f func(string) error, options ...objstore.IterOption) error {
	return b.around(Op{Iter, dir}, func() error { return b.Bucket.Iter(ctx, dir, f, options...) })
}

func (b intercept) IterWithAttributes(ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error, options ...objstore.IterOption) error {
	return b.around(Op{Iter, dir}, func() error { return b.Bucket.IterWithAttributes(ctx, dir, f, options...) })
}

// List lists flat, as bucket.Lister.
func (b intercept) List(ctx context.Context, prefix, after string, fn func(bucket.Object) error) error {
	return b.around(Op{List, prefix}, func() error { return bucket.List(ctx, b.Bucket, prefix, after, fn) })
}

func (b intercept) Get(ctx context.Context, name string) (rc io.ReadCloser, err error) {
	err = b.around(Op{Get, name}, func() (err error) {
		rc, err = b.Bucket.Get(ctx, name)
		return err
	})
	return rc, err
}

func (b intercept) GetRange(ctx context.Context, name string, off, length int64) (rc io.ReadCloser, err error) {
	err = b.around(Op{GetRange, name}, func() (err error) {
		rc, err = b.Bucket.GetRange(ctx, name, off, length)
		return err
	})
	return rc, err
}

func (b intercept) Exists(ctx context.Context, name string) (ok bool, err error) {
	err = b.around(Op{Exists, name}, func() (err error) {
		ok, err = b.Bucket.Exists(ctx, name)
		return err
	})
	return ok, err
}

func (b intercept) Attributes(ctx context.Context, name string) (a objstore.ObjectAttributes, err error) {
	err = b.around(Op{Attributes, name}, func() (err error) {
		a, err = b.Bucket.Attributes(ctx, name)
		return err
	})
	return a, err
}

func (b intercept) Upload(ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption) error {
	return b.around(Op{Upload, name}, func() error { return b.Bucket.Upload(ctx, name, r, opts...) })
}

func (b intercept) Delete(ctx context.Context, name string) error {
	return b.around(Op{Delete, name}, func() error { return b.Bucket.Delete(ctx, name) })
}

// GetVersion reads an object and its ETag, as bucket.Versioned.
func (b intercept) GetVersion(ctx context.Context, name string) (content []byte, etag string, err error) {
	err = b.versioned(Op{GetVersion, name}, func(v bucket.Versioned) (err error) {
		content, etag, err = v.GetVersion(ctx, name)
		return err
	})
	return content, etag, err
}

// PutIfAbsent creates an object, as bucket.Versioned.
func (b intercept) PutIfAbsent(ctx context.Context, name string, r io.Reader) (etag string, err error) {
	err = b.versioned(Op{Create, name}, func(v bucket.Versioned) (err error) {
		etag, err = v.PutIfAbsent(ctx, name, r)
		return err
	})
	return etag, err
}

// PutIfMatch replaces an object, as bucket.Versioned.
func (b intercept) PutIfMatch(ctx context.Context, name string, content []byte, etag string) (newETag string, err error) {
	err = b.versioned(Op{Replace, name}, func(v bucket.Versioned) (err error) {
		newETag, err = v.PutIfMatch(ctx, name, content, etag)
		return err
	})
	return newETag, err
}

func (b intercept) versioned(op Op, do func(bucket.Versioned) error) error {
	return b.around(op, func() error {
		v, ok := b.Bucket.(bucket.Versioned)
		if !ok {
			return errNotVersioned
		}
		return do(v)
	})
}
