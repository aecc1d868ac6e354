package bucket_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/bucket/buckettest"
)

func pending(t *testing.T, b objstore.Bucket, prefix string) (names []string, all []bucket.PendingUpload) {
	t.Helper()
	err := bucket.PendingUploads(t.Context(), b, prefix, func(u bucket.PendingUpload) error {
		names, all = append(names, u.Name), append(all, u)
		if u.ID == "" || time.Since(u.Begun).Abs() > time.Hour {
			return fmt.Errorf("got %+v", u)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names, all
}

func TestUploadsThatWereLeftAreShownAndAborted(t *testing.T) {
	endpoint, _, _ := buckettest.StartS3(t)
	yaml := buckettest.CreateBucket(t, endpoint, "pending")
	for _, name := range []string{"a/index", "a/chunks/000001", "deep/b/index"} {
		buckettest.LeaveUpload(t, endpoint, "pending", name)
	}
	whole, part := open(t, yaml), open(t, yaml+"prefix: deep\n")
	if got, _ := pending(t, part, ""); !slices.Equal(got, []string{"b/index"}) {
		t.Errorf("below the prefix: got %v", got)
	}
	if got, _ := pending(t, whole, "a/"); !slices.Equal(got, []string{"a/chunks/000001", "a/index"}) {
		t.Errorf("below a: got %v", got)
	}
	_, all := pending(t, part, "b/")
	for range 2 { // the second time there is nothing to abort
		if err := bucket.AbortUpload(t.Context(), part, all[0]); err != nil {
			t.Fatal(err)
		}
	}
	if got, _ := pending(t, whole, ""); len(got) != 2 {
		t.Errorf("after one was aborted: got %v", got)
	}
	if err := whole.Upload(t.Context(), "c/index", strings.NewReader("whole")); err != nil {
		t.Fatal(err)
	}
	if got, _ := pending(t, whole, "c/"); len(got) != 0 {
		t.Errorf("of an upload that is complete: got %v", got)
	}
}

func TestAStoreThatShowsNoUploadsSaysSo(t *testing.T) {
	for name, b := range map[string]objstore.Bucket{
		"memory":         bucket.NewMemory(),
		"below a prefix": bucket.WithPrefix(bucket.NewMemory(), "deep"),
		"file system":    open(t, "type: filesystem\nconfig:\n  directory: "+t.TempDir()+"\n"),
	} {
		t.Run(name, func(t *testing.T) {
			err := bucket.PendingUploads(t.Context(), b, "", func(bucket.PendingUpload) error { return nil })
			if !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("got %v, want %v", err, errors.ErrUnsupported)
			}
			if err := bucket.AbortUpload(t.Context(), b, bucket.PendingUpload{Name: "a"}); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("got %v, want %v", err, errors.ErrUnsupported)
			}
		})
	}
}
