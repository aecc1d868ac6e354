package store

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"

	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/pagecache"
)

// versions reads objects of the bucket in the version that was listed. One that was
// written anew since gives bucket.ErrChanged, and never its bytes for those of the other.
type versions struct {
	bkt bucket.Reader
	log *slog.Logger
	// blind is set when the bucket turned out to list other ETags than it answers with.
	blind atomic.Bool
}

// versionText is what the page cache calls a version: the ETag in quotes, as HTTP has
// it, or where there is none what tells the versions of the block apart.
func versionText(etag, block string) string {
	if etag == "" {
		return block
	}
	return `"` + etag + `"`
}

// GetRange returns a reader of a part of an object.
func (v *versions) GetRange(ctx context.Context, o pagecache.Object, off, length int64) (io.ReadCloser, error) {
	etag, quoted := strings.CutPrefix(o.Version, `"`)
	if !quoted || v.blind.Load() {
		return bucket.GetRangeIfMatch(ctx, v.bkt, bucket.Object{Name: o.Name}, off, length)
	}
	listed := bucket.Object{Name: o.Name, ETag: strings.TrimSuffix(etag, `"`)}
	r, err := bucket.GetRangeIfMatch(ctx, v.bkt, listed, off, length)
	if errors.Is(err, bucket.ErrChanged) && v.stillListed(ctx, listed) {
		if !v.blind.Swap(true) {
			v.log.Warn("the bucket lists other ETags than it answers with; objects that are written anew while they are read will not be noticed before the next look at the bucket", "object", o.Name, "err", err)
		}
		return bucket.GetRangeIfMatch(ctx, v.bkt, bucket.Object{Name: o.Name}, off, length)
	}
	return r, err
}

// gone reports whether an error says that a block is not there any more, or not as it was.
func (g *Gateway) gone(err error) bool {
	return errors.Is(err, bucket.ErrNotFound) || errors.Is(err, bucket.ErrChanged) || g.bkt.IsObjNotFoundErr(err)
}

// stillListed reports whether the listing goes on to show this version.
func (v *versions) stillListed(ctx context.Context, o bucket.Object) (still bool) {
	errEnd := errors.New("the name was passed")
	_ = bucket.List(ctx, v.bkt, o.Name, "", func(now bucket.Object) error { // without an answer nothing is known
		still = now.Name == o.Name && now.ETag == o.ETag
		return errEnd
	})
	return still
}
