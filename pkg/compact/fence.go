package compact

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/bucket"
)

var (
	_ objstore.Bucket  = fenced{}
	_ bucket.Lister    = fenced{}
	_ bucket.Versioned = fencedVersioned{}
)

// fence gives the bucket as a job sees it that works under a lease: what makes a
// block appear, change or go is written only while the lease is held. New data need
// no fence, their names and bytes follow from the job; their deletion does, or one
// that comes late would meet a block of the same name that was made since.
func fence(b objstore.Bucket, l *lease) objstore.Bucket {
	f := fenced{b, l}
	if v, ok := b.(bucket.Versioned); ok {
		return fencedVersioned{f, v}
	}
	return f
}

type fenced struct {
	objstore.Bucket
	lease *lease
}

// put does the upload of an object, under guard if it decides something.
func (f fenced) put(ctx context.Context, name string, write func(context.Context) error) error {
	if !decides(name) {
		return write(ctx)
	}
	return f.guard(ctx, write)
}

// guard does a write if the lease is held, and gives it up when the lease ends.
func (f fenced) guard(ctx context.Context, write func(context.Context) error) error {
	until, err := f.lease.check(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithDeadlineCause(ctx, until, errLeaseLost)
	defer cancel()
	err = write(ctx)
	if err != nil && !errors.Is(err, bucket.ErrExists) && !errors.Is(err, bucket.ErrNotFound) && !errors.Is(err, bucket.ErrAccessDenied) {
		f.lease.doubt()
	}
	return err
}

// decides reports whether an object decides what its block is.
func decides(name string) bool {
	_, rel, ok := block.ParseName(name)
	return ok && (rel == block.MetaFile || slices.Contains(block.MarkKinds(), block.MarkKind(rel)))
}

func (f fenced) List(ctx context.Context, prefix, after string, fn func(bucket.Object) error) error {
	return bucket.List(ctx, f.Bucket, prefix, after, fn)
}

func (f fenced) Upload(ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption) error {
	return f.put(ctx, name, func(ctx context.Context) error { return f.Bucket.Upload(ctx, name, r, opts...) })
}

func (f fenced) Delete(ctx context.Context, name string) error {
	return f.guard(ctx, func(ctx context.Context) error { return f.Bucket.Delete(ctx, name) })
}

// DeleteBatch deletes with few requests where the bucket can; see bucket.DeleteAll.
func (f fenced) DeleteBatch(ctx context.Context, names []string) error {
	return f.guard(ctx, func(ctx context.Context) error { return bucket.DeleteAll(ctx, f.Bucket, names) })
}

type fencedVersioned struct {
	fenced
	versioned bucket.Versioned
}

func (f fencedVersioned) GetVersion(ctx context.Context, name string) (content []byte, etag string, err error) {
	return f.versioned.GetVersion(ctx, name)
}

func (f fencedVersioned) PutIfAbsent(ctx context.Context, name string, r io.Reader) (etag string, err error) {
	err = f.put(ctx, name, func(ctx context.Context) (err error) {
		etag, err = f.versioned.PutIfAbsent(ctx, name, r)
		return err
	})
	return etag, err
}

func (f fencedVersioned) PutIfMatch(ctx context.Context, name string, content []byte, etag string) (next string, err error) {
	err = f.put(ctx, name, func(ctx context.Context) (err error) {
		next, err = f.versioned.PutIfMatch(ctx, name, content, etag)
		return err
	})
	return next, err
}
