package compact

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/bucket"
)

// conditional tries whether the store obeys the conditions of conditional
// writes: some that speak S3's protocol ignore them.
func conditional(ctx context.Context, bkt objstore.Bucket, holder string) (ok bool, err error) {
	v, ok := bkt.(bucket.Versioned)
	if !ok {
		return false, nil
	}
	name := leaseDir + "probe-" + holder
	defer func() {
		if delErr := bkt.Delete(context.WithoutCancel(ctx), name); delErr != nil && !errors.Is(delErr, bucket.ErrNotFound) {
			err = errors.Join(err, fmt.Errorf("delete %s: %w", name, delErr))
		}
	}()
	// The first may be repeated underneath, and then find itself.
	if _, err := v.PutIfAbsent(ctx, name, strings.NewReader("1")); err != nil && !errors.Is(err, bucket.ErrExists) {
		return false, fmt.Errorf("try a conditional write: %w", err)
	}
	_, err = v.PutIfAbsent(ctx, name, strings.NewReader("2"))
	if err == nil {
		return false, nil
	}
	if !errors.Is(err, bucket.ErrExists) {
		return false, fmt.Errorf("try a conditional write: %w", err)
	}
	_, err = v.PutIfMatch(ctx, name, []byte("3"), "d41d8cd98f00b204e9800998ecf8427e") // that of nothing
	if err == nil {
		return false, nil
	}
	if !errors.Is(err, bucket.ErrChanged) {
		return false, fmt.Errorf("try a conditional write: %w", err)
	}
	return true, nil
}

// advisory makes conditional writes of plain ones, with a look ahead of each. Of
// two writes at the same instant both may win; the later one stays.
type advisory struct{ bkt objstore.Bucket }

// GetVersion takes the content's hash for its version.
func (a advisory) GetVersion(ctx context.Context, name string) (content []byte, etag string, err error) {
	r, err := a.bkt.Get(ctx, name)
	if err != nil {
		if a.bkt.IsObjNotFoundErr(err) {
			err = errors.Join(bucket.ErrNotFound, err)
		}
		return nil, "", err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	content, err = io.ReadAll(r)
	return content, version(content), err
}

// PutIfAbsent looks first.
func (a advisory) PutIfAbsent(ctx context.Context, name string, r io.Reader) (string, error) {
	content, err := io.ReadAll(r)
	if err != nil {
		return "", fmt.Errorf("put %s: %w", name, err)
	}
	return a.put(ctx, name, content, "", bucket.ErrExists)
}

// PutIfMatch looks first.
func (a advisory) PutIfMatch(ctx context.Context, name string, content []byte, etag string) (string, error) {
	return a.put(ctx, name, content, etag, bucket.ErrChanged)
}

func (a advisory) put(ctx context.Context, name string, content []byte, etag string, otherwise error) (string, error) {
	_, now, err := a.GetVersion(ctx, name)
	if err != nil && !errors.Is(err, bucket.ErrNotFound) {
		return "", err
	}
	if now != etag {
		return "", fmt.Errorf("put %s: %w", name, otherwise)
	}
	return version(content), a.bkt.Upload(ctx, name, bytes.NewReader(content))
}

func version(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
