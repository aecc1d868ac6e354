package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/bucket/internal/contract"
)

// Reader is all that a component which must not write gets to see of a bucket.
type Reader = objstore.BucketReader

// Object is one entry of a flat listing.
type Object = contract.Object

// Lister is a bucket that lists flat, from a given name on.
type Lister = contract.Lister

// Versioned is a bucket with conditional writes.
type Versioned = contract.Versioned

// PendingUpload is an upload in parts that was begun and is neither complete nor given up.
type PendingUpload = contract.PendingUpload

// The error marks; ask with errors.Is.
var (
	// ErrNotFound says that no object has this name.
	ErrNotFound = contract.ErrNotFound
	// ErrAccessDenied says that the store knows us not, or does not let us do this.
	ErrAccessDenied = contract.ErrAccessDenied
	// ErrExists says that a put that must create its object found one.
	ErrExists = contract.ErrExists
	// ErrChanged says that a put that must replace a known version, or a read of it, found another.
	ErrChanged = contract.ErrChanged
	// ErrTransient says that the same call may succeed later by itself.
	ErrTransient = contract.ErrTransient
	// ErrThrottled says that the store asks for fewer requests; it is transient.
	ErrThrottled = contract.ErrThrottled
)

// WithThrottled has fn called for each request of calls under the context that the store
// refused because of its rate and that the bucket's own client (that of S3) makes again: who
// makes many calls hears at once that they are too many. What the client gives up is an
// error, ErrThrottled. A call does not return before fn did.
func WithThrottled(ctx context.Context, fn func()) context.Context {
	return contract.WithThrottled(ctx, fn)
}

// List lists b flat as Lister does. A bucket that is no Lister is iterated and
// asked for the attributes of every object, one request each, and has no ETags.
func List(ctx context.Context, b Reader, prefix, after string, fn func(Object) error) error {
	if l, ok := b.(Lister); ok {
		return l.List(ctx, prefix, after, fn)
	}
	dir := prefix[:strings.LastIndex(prefix, objstore.DirDelim)+1]
	return b.Iter(ctx, dir, func(name string) error {
		if !strings.HasPrefix(name, prefix) || name <= after {
			return nil
		}
		attrs, err := b.Attributes(ctx, name)
		if errors.Is(err, ErrNotFound) || (err != nil && b.IsObjNotFoundErr(err)) {
			return nil // deleted since it was listed
		}
		if err != nil {
			return fmt.Errorf("attributes of %s: %w", name, err)
		}
		return fn(Object{Name: name, Size: attrs.Size, LastModified: attrs.LastModified})
	}, objstore.WithRecursiveIter())
}

// GetRangeIfMatch reads a part of an object in the version of o.ETag, or returns ErrChanged.
// Where b has no versions, or the ETag is empty, it is GetRange.
func GetRangeIfMatch(ctx context.Context, b Reader, o Object, off, length int64) (io.ReadCloser, error) {
	if v, ok := b.(contract.VersionReader); ok && o.ETag != "" {
		return v.GetRangeIfMatch(ctx, o.Name, o.ETag, off, length)
	}
	return b.GetRange(ctx, o.Name, off, length)
}

// UploadIfAbsent uploads a stream under a name that must be free, or returns
// ErrExists. On a bucket that is not Versioned it looks first and then uploads,
// which is right only as long as nobody else writes this name.
func UploadIfAbsent(ctx context.Context, b objstore.Bucket, name string, r io.Reader) error {
	if v, ok := b.(Versioned); ok {
		_, err := v.PutIfAbsent(ctx, name, r)
		return err
	}
	found, err := b.Exists(ctx, name)
	if err != nil {
		return fmt.Errorf("look for %s: %w", name, err)
	}
	if found {
		return contract.Mark(fmt.Errorf("upload %s: an object of that name exists", name), ErrExists)
	}
	return b.Upload(ctx, name, r)
}

// DeleteAll deletes objects, with few requests where the store can. Absent ones
// are no error. The order is not defined unless b deletes one by one; who needs an
// order calls Delete.
func DeleteAll(ctx context.Context, b objstore.Bucket, names []string) error {
	if d, ok := b.(contract.BatchDeleter); ok {
		return d.DeleteBatch(ctx, names)
	}
	for _, name := range names {
		if err := b.Delete(ctx, name); err != nil && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("delete %s: %w", name, err)
		}
	}
	return nil
}

// PendingUploads calls fn for every upload of an object whose name begins with
// prefix that was begun and is neither complete nor given up. Where the store, or
// its client, does not show them the error is errors.ErrUnsupported; there the
// store's own lifecycle rules have to remove what dead processes left.
func PendingUploads(ctx context.Context, b Reader, prefix string, fn func(PendingUpload) error) error {
	if s, ok := b.(contract.UploadSweeper); ok {
		return s.PendingUploads(ctx, prefix, fn)
	}
	return fmt.Errorf("list the uploads of %s: %w", prefix, errors.ErrUnsupported)
}

// AbortUpload gives up an upload that PendingUploads showed. One that is complete or
// given up by now is no error.
func AbortUpload(ctx context.Context, b objstore.Bucket, u PendingUpload) error {
	if s, ok := b.(contract.UploadSweeper); ok {
		return s.AbortUpload(ctx, u)
	}
	return fmt.Errorf("abort the upload of %s: %w", u.Name, errors.ErrUnsupported)
}

// Check looks whether the bucket can be listed and says, in one error, what to
// change when it cannot. It gives up within seconds.
func Check(ctx context.Context, b Reader) error { return checkDir(ctx, b, "") }

func checkDir(ctx context.Context, b Reader, dir string) error {
	if c, ok := b.(contract.Checker); ok {
		return c.Check(ctx, dir)
	}
	errOne := errors.New("one entry is enough")
	err := b.Iter(ctx, dir, func(string) error { return errOne })
	if err != nil && !errors.Is(err, errOne) {
		return fmt.Errorf("list the bucket: %w", err)
	}
	return nil
}
