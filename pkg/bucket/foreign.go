package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/thanos-io/objstore"
	"google.golang.org/api/googleapi"

	"github.com/varve-io/varve/pkg/bucket/internal/contract"
)

// foreign makes a provider of objstore keep this package's contract: it marks
// errors and gives ranges and deletions one meaning.
type foreign struct{ objstore.Bucket }

func (b foreign) Iter(ctx context.Context, dir string, f func(string) error, options ...objstore.IterOption) error {
	var callback error
	err := b.Bucket.Iter(ctx, dir, func(name string) error { callback = f(name); return callback }, options...)
	if callback != nil {
		return callback // it may be the caller's, and no error of the store
	}
	return b.mark("list", dir, err)
}

func (b foreign) IterWithAttributes(ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error, options ...objstore.IterOption) error {
	var callback error
	err := b.Bucket.IterWithAttributes(ctx, dir, func(a objstore.IterObjectAttributes) error { callback = f(a); return callback }, options...)
	if callback != nil {
		return callback
	}
	return b.mark("list", dir, err)
}

func (b foreign) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	rc, err := b.Bucket.Get(ctx, name)
	if err != nil {
		return nil, b.mark("read", name, err)
	}
	return rc, nil
}

func (b foreign) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	if err := contract.CheckRange(name, off, length); err != nil {
		return nil, err
	}
	rc, err := b.Bucket.GetRange(ctx, name, off, length)
	if statusOf(err) == http.StatusRequestedRangeNotSatisfiable {
		return sized(io.NopCloser(strings.NewReader("")), 0), nil
	}
	if err != nil {
		return nil, b.mark("read", name, err)
	}
	return rc, nil
}

func (b foreign) Exists(ctx context.Context, name string) (bool, error) {
	ok, err := b.Bucket.Exists(ctx, name)
	return ok, b.mark("look for", name, err)
}

func (b foreign) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	a, err := b.Bucket.Attributes(ctx, name)
	return a, b.mark("look at", name, err)
}

func (b foreign) Upload(ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption) error {
	return b.mark("upload", name, b.Bucket.Upload(ctx, name, r, opts...))
}

func (b foreign) Delete(ctx context.Context, name string) error {
	err := b.mark("delete", name, b.Bucket.Delete(ctx, name))
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

func (b foreign) IsObjNotFoundErr(err error) bool { return errors.Is(err, ErrNotFound) }

func (b foreign) IsAccessDeniedErr(err error) bool { return errors.Is(err, ErrAccessDenied) }

// mark says what was attempted and lets the provider judge its own error.
func (b foreign) mark(verb, name string, err error) error {
	if err == nil {
		return nil
	}
	said := fmt.Errorf("%s %s: %w", verb, name, err)
	status := statusOf(err)
	var network net.Error
	switch {
	case b.Bucket.IsObjNotFoundErr(err):
		return contract.Mark(said, ErrNotFound)
	case b.Bucket.IsAccessDeniedErr(err), status == http.StatusForbidden, status == http.StatusUnauthorized:
		return contract.Mark(said, ErrAccessDenied)
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		return contract.Mark(said, ErrThrottled)
	case status >= http.StatusInternalServerError, errors.As(err, &network) && !errors.Is(err, context.DeadlineExceeded):
		return contract.Mark(said, ErrTransient)
	}
	return said
}

// statusOf returns the HTTP status behind an error of GCS or Azure, or 0.
func statusOf(err error) int {
	if google, ok := errors.AsType[*googleapi.Error](err); ok {
		return google.Code
	}
	if azure, ok := errors.AsType[*azcore.ResponseError](err); ok {
		return azure.StatusCode
	}
	return 0
}
