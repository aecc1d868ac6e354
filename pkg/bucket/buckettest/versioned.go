package buckettest

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/bucket"
)

// runVersioned checks conditional writes, on the buckets that have them.
func runVersioned(t *testing.T, open func(t *testing.T) objstore.Bucket) {
	for _, c := range []struct {
		name  string
		check func(t *testing.T, b objstore.Bucket, v bucket.Versioned)
	}{
		{"a version is read, matched and replaced", checkVersions},
		{"a name is taken once", checkPutIfAbsent},
		{"a large stream takes a name once", checkLargeIfAbsent},
		{"one of many racing creators wins", checkRacingCreators},
		{"racing increments lose none", checkRacingIncrements},
		{"listing and reading agree on the version", checkListedVersion},
		{"parts are read of one version", checkReadsOfVersions},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := open(t)
			v, ok := b.(bucket.Versioned)
			if !ok {
				t.Skipf("a bucket of type %s has no conditional writes", b.Provider())
			}
			c.check(t, b, v)
		})
	}
}

func checkVersions(t *testing.T, b objstore.Bucket, v bucket.Versioned) {
	if _, _, err := v.GetVersion(t.Context(), "x"); !errors.Is(err, bucket.ErrNotFound) {
		t.Errorf("version of an absent object: got %v, want ErrNotFound", err)
	}
	for what, etag := range map[string]string{"an ETag": "0123456789abcdef0123456789abcdef", "no ETag": ""} {
		if _, err := v.PutIfMatch(t.Context(), "x", []byte("0"), etag); !errors.Is(err, bucket.ErrChanged) {
			t.Errorf("replace an absent object by %s: got %v, want ErrChanged", what, err)
		}
	}
	first, err := v.PutIfAbsent(t.Context(), "x", strings.NewReader("1"))
	if err != nil || first == "" {
		t.Fatalf("create: got ETag %q, %v", first, err)
	}
	content, etag, err := v.GetVersion(t.Context(), "x")
	if err != nil || string(content) != "1" || etag != first {
		t.Errorf("version: got %q, %q, %v, want %q, %q", content, etag, err, "1", first)
	}
	second, err := v.PutIfMatch(t.Context(), "x", []byte("2"), first)
	if err != nil || second == first {
		t.Fatalf("replace: got ETag %q, %v, want another than %q", second, err, first)
	}
	if _, err := v.PutIfMatch(t.Context(), "x", []byte("3"), first); !errors.Is(err, bucket.ErrChanged) {
		t.Errorf("replace the first version again: got %v, want ErrChanged", err)
	}
	upload(t, b, "x", "4")
	if _, err := v.PutIfMatch(t.Context(), "x", []byte("5"), second); !errors.Is(err, bucket.ErrChanged) {
		t.Errorf("replace a version that an upload replaced: got %v, want ErrChanged", err)
	}
	if got := download(t, b, "x"); got != "4" {
		t.Errorf("content at the end: got %q, want %q", got, "4")
	}
}

// checkReadsOfVersions reads ranges of versions that the listing showed.
func checkReadsOfVersions(t *testing.T, b objstore.Bucket, _ bucket.Versioned) {
	listed := func() (o bucket.Object) {
		t.Helper()
		err := bucket.List(t.Context(), b, "x", "", func(each bucket.Object) error {
			o = each
			return nil
		})
		if err != nil || o.ETag == "" {
			t.Fatalf("list: got %+v, %v, want an object with an ETag", o, err)
		}
		return o
	}
	read := func(o bucket.Object, off, length int64) (string, error) {
		r, err := bucket.GetRangeIfMatch(t.Context(), b, o, off, length)
		if err != nil {
			return "", err
		}
		content, err := io.ReadAll(r)
		return string(content), errors.Join(err, r.Close())
	}
	upload(t, b, "x", "0123456789")
	first := listed()
	upload(t, b, "x", "abcdefghij")
	for _, tc := range []struct {
		o           bucket.Object
		off, length int64
		want        string
		err         error
	}{
		{listed(), 2, 3, "cde", nil},
		{listed(), 0, -1, "abcdefghij", nil},
		{bucket.Object{Name: "x"}, 2, 3, "cde", nil},
		{first, 2, 3, "", bucket.ErrChanged},
		{first, 0, -1, "", bucket.ErrChanged},
		{bucket.Object{Name: "absent", ETag: first.ETag}, 2, 3, "", bucket.ErrNotFound},
	} {
		if got, err := read(tc.o, tc.off, tc.length); got != tc.want || !errors.Is(err, tc.err) {
			t.Errorf("%d bytes at %d of %+v: got %q, %v, want %q, %v", tc.length, tc.off, tc.o, got, err, tc.want, tc.err)
		}
	}
}

func checkPutIfAbsent(t *testing.T, b objstore.Bucket, v bucket.Versioned) {
	if err := bucket.UploadIfAbsent(t.Context(), b, "dir/x", strings.NewReader("first")); err != nil {
		t.Fatalf("upload: %v", err)
	}
	if err := bucket.UploadIfAbsent(t.Context(), b, "dir/x", strings.NewReader("second")); !errors.Is(err, bucket.ErrExists) {
		t.Errorf("upload again: got %v, want ErrExists", err)
	}
	if got := download(t, b, "dir/x"); got != "first" {
		t.Errorf("content: got %q, want %q", got, "first")
	}
	if err := b.Delete(t.Context(), "dir/x"); err != nil {
		t.Fatalf("delete: %v", err)
	}
	if _, err := v.PutIfAbsent(t.Context(), "dir/x", strings.NewReader("third")); err != nil {
		t.Errorf("create after the deletion: %v", err)
	}
}

func checkLargeIfAbsent(t *testing.T, b objstore.Bucket, _ bucket.Versioned) {
	const size = 8<<20 + 1
	zeros := func() io.Reader { return io.LimitReader(endless{}, size) }
	if err := bucket.UploadIfAbsent(t.Context(), b, "x", zeros()); err != nil {
		t.Fatalf("upload: %v", err)
	}
	if err := bucket.UploadIfAbsent(t.Context(), b, "x", zeros()); !errors.Is(err, bucket.ErrExists) {
		t.Errorf("upload again: got %v, want ErrExists", err)
	}
	// The name is taken while the stream is on its way.
	late := io.MultiReader(zeros(), readerFunc(func([]byte) (int, error) {
		upload(t, b, "y", "taken")
		return 0, io.EOF
	}))
	if err := bucket.UploadIfAbsent(t.Context(), b, "y", late); !errors.Is(err, bucket.ErrExists) {
		t.Errorf("upload under a name taken meanwhile: got %v, want ErrExists", err)
	}
	if got := download(t, b, "y"); got != "taken" {
		t.Errorf("content: got %d bytes, want those of the other writer", len(got))
	}
}

func checkRacingCreators(t *testing.T, b objstore.Bucket, v bucket.Versioned) {
	const writers = 16
	var won atomic.Int32
	var winner atomic.Value
	var g sync.WaitGroup
	for w := range writers {
		g.Go(func() {
			me := fmt.Sprint("writer ", w)
			_, err := v.PutIfAbsent(t.Context(), "lease", strings.NewReader(me))
			switch {
			case err == nil:
				won.Add(1)
				winner.Store(me)
			case !errors.Is(err, bucket.ErrExists):
				t.Errorf("%s: got %v, want ErrExists", me, err)
			}
		})
	}
	g.Wait()
	if won.Load() != 1 {
		t.Fatalf("winners: got %d, want 1", won.Load())
	}
	if got := download(t, b, "lease"); got != winner.Load() {
		t.Errorf("content: got that of %s, want that of %s", got, winner.Load())
	}
}

func checkRacingIncrements(t *testing.T, b objstore.Bucket, v bucket.Versioned) {
	const writers, each = 4, 10
	upload(t, b, "counter", "1000")
	var g sync.WaitGroup
	for range writers {
		g.Go(func() {
			for range each {
				for {
					err := increment(t, v)
					if err == nil {
						break
					}
					if !errors.Is(err, bucket.ErrChanged) {
						t.Errorf("increment: %v", err)
						return
					}
				}
			}
		})
	}
	g.Wait()
	if got, want := download(t, b, "counter"), strconv.Itoa(1000+writers*each); got != want {
		t.Errorf("counter: got %s, want %s", got, want)
	}
}

func increment(t *testing.T, v bucket.Versioned) error {
	content, etag, err := v.GetVersion(t.Context(), "counter")
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(string(content))
	if err != nil {
		return err
	}
	_, err = v.PutIfMatch(t.Context(), "counter", []byte(strconv.Itoa(n+1)), etag)
	return err
}

func checkListedVersion(t *testing.T, b objstore.Bucket, v bucket.Versioned) {
	upload(t, b, "x", "1")
	_, etag, err := v.GetVersion(t.Context(), "x")
	if err != nil {
		t.Fatalf("version: %v", err)
	}
	err = bucket.List(t.Context(), b, "x", "", func(o bucket.Object) error {
		if o.ETag != etag {
			t.Errorf("ETag: the listing says %q, the reading %q", o.ETag, etag)
		}
		return nil
	})
	if err != nil {
		t.Errorf("list: %v", err)
	}
}
