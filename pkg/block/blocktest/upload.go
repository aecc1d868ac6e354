package blocktest

import (
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockio"
)

// Upload brings a block's directory into a bucket as the sidecar does. The
// upload time is the one in the directory's meta.json, else the block's end,
// so that the same block gives the same objects.
func Upload(t testing.TB, bkt objstore.Bucket, dir string) *block.Meta {
	t.Helper()
	m := readMeta(t, dir)
	if m.Thanos.UploadTime.IsZero() {
		m.Thanos.UploadTime = time.UnixMilli(m.MaxTime).UTC()
	}
	check(t, blockio.Upload(t.Context(), bkt, dir, m))
	full, err := blockio.ReadMeta(t.Context(), bkt, m.ULID)
	check(t, err)
	return full
}

// InBucket writes a block and uploads it.
func InBucket(t testing.TB, bkt objstore.Bucket, s Spec) *block.Meta {
	t.Helper()
	dir, _ := Dir(t, s)
	return Upload(t, bkt, dir)
}

// Download brings a block of a bucket into a directory that ends with the test, for Read.
func Download(t testing.TB, bkt objstore.BucketReader, id ulid.ULID) string {
	t.Helper()
	dir := t.TempDir()
	_, err := blockio.Download(t.Context(), bkt, id, dir)
	check(t, err)
	return dir
}
