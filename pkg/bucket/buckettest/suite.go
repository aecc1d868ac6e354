package buckettest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/bucket"
)

// Run checks that the buckets which open returns, each empty, keep the contract of
// package bucket. Those that are Versioned are held to that, too.
func Run(t *testing.T, open func(t *testing.T) objstore.Bucket) {
	for _, c := range []struct {
		name  string
		check func(t *testing.T, b objstore.Bucket)
	}{
		{"an object comes back as it was uploaded", checkRoundTrip},
		{"odd names are names like others", checkOddNames},
		{"a range is cut at the end and empty past it", checkRanges},
		{"an absent object is marked as such", checkAbsent},
		{"an upload replaces what was there, whole", checkOverwrite},
		{"a stream that breaks leaves what was there", checkBrokenStream},
		{"deleting is done once, twice and in batches", checkDelete},
		{"iteration shows one directory or all below it, sorted", checkIter},
		{"a listing is flat, sorted and starts after a name", checkList},
		{"listings stop when told and hand the reason on", checkStop},
		{"a listing of many pages is complete", checkPages},
		{"attributes tell size and time", checkAttributes},
		{"a large object of unknown length passes in parts", checkLarge},
		{"a cancelled context ends every operation", checkCancel},
	} {
		t.Run(c.name, func(t *testing.T) { c.check(t, open(t)) })
	}
	runVersioned(t, open)
}

// oddNames is in byte order.
var oddNames = []string{
	"UPPER and lower",
	"a",
	"a b/c  d",
	"a+b=c&d?e#f",
	"a-/x",
	"b",
	"d.ot/..dots../...",
	"e/1",
	"e/10",
	"e/2",
	"e0",
	"per%20cent/%2F%",
	"quote'\"`<tag>/&amp;",
	"star*/(paren)/[bracket]/{brace}",
	"tilde~/$dollar/@at/!bang/comma,/semi;colon:",
	"unicode/äöü/日本/😀",
}

func checkRoundTrip(t *testing.T, b objstore.Bucket) {
	for name, content := range map[string]string{"empty": "", "dir/one": "x", "dir/more": strings.Repeat("varve ", 1000)} {
		upload(t, b, name, content)
		if got := download(t, b, name); got != content {
			t.Errorf("content of %s: got %d bytes, want %d", name, len(got), len(content))
		}
		rc, err := b.Get(t.Context(), name)
		if err != nil {
			t.Fatalf("get %s: %v", name, err)
		}
		size, err := objstore.TryToGetSize(rc)
		if err != nil || size != int64(len(content)) {
			t.Errorf("size told by the reader of %s: got %d, %v, want %d", name, size, err, len(content))
		}
		if err := rc.Close(); err != nil {
			t.Errorf("close %s: %v", name, err)
		}
	}
}

func checkOddNames(t *testing.T, b objstore.Bucket) {
	for _, name := range oddNames {
		upload(t, b, name, "content of "+name)
	}
	for _, name := range oddNames {
		if got, want := download(t, b, name), "content of "+name; got != want {
			t.Errorf("content of %q: got %q, want %q", name, got, want)
		}
		if ok, err := b.Exists(t.Context(), name); err != nil || !ok {
			t.Errorf("exists %q: got %v, %v, want true", name, ok, err)
		}
	}
	wantNames(t, "recursive iteration", iterate(t, b, "", objstore.WithRecursiveIter()), oddNames)
	wantNames(t, "listing", list(t, b, "", ""), oddNames)
	if err := bucket.DeleteAll(t.Context(), b, oddNames); err != nil {
		t.Fatalf("delete all: %v", err)
	}
	wantNames(t, "listing after the deletion", list(t, b, "", ""), nil)
}

func checkRanges(t *testing.T, b objstore.Bucket) {
	const content = "0123456789"
	upload(t, b, "digits", content)
	upload(t, b, "empty", "")
	for _, c := range []struct {
		name        string
		off, length int64
		want        string
	}{
		{"digits", 0, -1, content},
		{"digits", 0, 10, content},
		{"digits", 0, 1, "0"},
		{"digits", 3, 4, "3456"},
		{"digits", 9, 1, "9"},
		{"digits", 4, -1, "456789"},
		{"digits", 8, 100, "89"},
		{"digits", 0, 1 << 40, content},
		{"digits", 10, 1, ""},
		{"digits", 10, -1, ""},
		{"digits", 1000, 5, ""},
		{"digits", 1000, -1, ""},
		{"empty", 0, -1, ""},
		{"empty", 0, 5, ""},
		{"empty", 3, -1, ""},
	} {
		what := fmt.Sprintf("%d bytes of %s from %d", c.length, c.name, c.off)
		rc, err := b.GetRange(t.Context(), c.name, c.off, c.length)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		size, sizeErr := objstore.TryToGetSize(rc)
		got, err := io.ReadAll(rc)
		if err = errors.Join(err, rc.Close()); err != nil || string(got) != c.want {
			t.Errorf("%s: got %q, %v, want %q", what, got, err, c.want)
		}
		if sizeErr != nil || size != int64(len(c.want)) {
			t.Errorf("%s: the reader says its size is %d, %v, want %d", what, size, sizeErr, len(c.want))
		}
	}
	for _, c := range [][2]int64{{-1, 5}, {0, 0}, {5, 0}, {0, -2}} {
		if rc, err := b.GetRange(t.Context(), "digits", c[0], c[1]); err == nil {
			_ = rc.Close()
			t.Errorf("%d bytes from %d: got no error", c[1], c[0])
		}
	}
}

func checkAbsent(t *testing.T, b objstore.Bucket) {
	upload(t, b, "here/too", "x")
	for _, name := range []string{"gone", "here/gone", "here", "here/too/deep"} {
		_, getErr := b.Get(t.Context(), name)
		_, rangeErr := b.GetRange(t.Context(), name, 5, 5)
		_, attributesErr := b.Attributes(t.Context(), name)
		for what, err := range map[string]error{"get": getErr, "get range": rangeErr, "attributes": attributesErr} {
			if !errors.Is(err, bucket.ErrNotFound) || !b.IsObjNotFoundErr(err) || b.IsAccessDeniedErr(err) {
				t.Errorf("%s of absent %s: got %v, want ErrNotFound", what, name, err)
			}
		}
		if ok, err := b.Exists(t.Context(), name); ok || err != nil {
			t.Errorf("exists %s: got %v, %v, want false", name, ok, err)
		}
	}
	wantNames(t, "iteration of an absent directory", iterate(t, b, "gone"), nil)
	wantNames(t, "listing of an absent prefix", list(t, b, "gone", ""), nil)
}

func checkOverwrite(t *testing.T, b objstore.Bucket) {
	upload(t, b, "x", "a longer first version")
	before, err := b.Get(t.Context(), "x")
	if err != nil {
		t.Fatalf("get: %v", err)
	}
	upload(t, b, "x", "second")
	if got := download(t, b, "x"); got != "second" {
		t.Errorf("after the second upload: got %q, want %q", got, "second")
	}
	// A reader from before may see its version or break off, but mixes nothing.
	got, err := io.ReadAll(before)
	if err == nil && string(got) != "a longer first version" {
		t.Errorf("a reader of the first version: got %q", got)
	}
	if err := before.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

var errBroken = errors.New("the stream broke")

func checkBrokenStream(t *testing.T, b objstore.Bucket) {
	upload(t, b, "x", "first")
	for _, size := range []int64{100, 9 << 20} {
		broken := io.MultiReader(io.LimitReader(endless{}, size), errReader{errBroken})
		if err := b.Upload(t.Context(), "x", broken); !errors.Is(err, errBroken) {
			t.Errorf("upload of a stream that breaks after %d bytes: got %v, want its error", size, err)
		}
	}
	if got := download(t, b, "x"); got != "first" {
		t.Errorf("after the broken uploads: got %d bytes, want the first version", len(got))
	}
	wantNames(t, "listing after the broken uploads", list(t, b, "", ""), []string{"x"})
}

func checkDelete(t *testing.T, b objstore.Bucket) {
	for _, name := range []string{"a/1", "a/2", "b/1", "c"} {
		upload(t, b, name, "x")
	}
	for range 2 {
		if err := b.Delete(t.Context(), "a/1"); err != nil {
			t.Errorf("delete a/1: %v", err)
		}
	}
	if err := b.Delete(t.Context(), "a"); err != nil {
		t.Errorf("delete a, which is no object: %v", err)
	}
	wantNames(t, "listing", list(t, b, "", ""), []string{"a/2", "b/1", "c"})
	if err := bucket.DeleteAll(t.Context(), b, []string{"a/2", "gone", "b/1"}); err != nil {
		t.Errorf("delete a batch: %v", err)
	}
	wantNames(t, "iteration", iterate(t, b, ""), []string{"c"})
	if err := bucket.DeleteAll(t.Context(), b, nil); err != nil {
		t.Errorf("delete an empty batch: %v", err)
	}
}

func checkIter(t *testing.T, b objstore.Bucket) {
	for _, name := range []string{"d/x", "d/y/1", "d/y/2", "d/z/deep/er", "d-1", "d0", "top"} {
		upload(t, b, name, name)
	}
	for _, c := range []struct {
		dir       string
		recursive bool
		want      []string
	}{
		{"", false, []string{"d-1", "d/", "d0", "top"}},
		{"d", false, []string{"d/x", "d/y/", "d/z/"}},
		{"d/", false, []string{"d/x", "d/y/", "d/z/"}},
		{"d/z", false, []string{"d/z/deep/"}},
		{"d/x", false, nil},
		{"", true, []string{"d-1", "d/x", "d/y/1", "d/y/2", "d/z/deep/er", "d0", "top"}},
		{"d/y", true, []string{"d/y/1", "d/y/2"}},
		{"d", true, []string{"d/x", "d/y/1", "d/y/2", "d/z/deep/er"}},
	} {
		var options []objstore.IterOption
		if c.recursive {
			options = append(options, objstore.WithRecursiveIter())
		}
		wantNames(t, fmt.Sprintf("iteration of %q, recursive %v", c.dir, c.recursive), iterate(t, b, c.dir, options...), c.want)
	}
	if !slices.Contains(b.SupportedIterOptions(), objstore.UpdatedAt) {
		return
	}
	err := b.IterWithAttributes(t.Context(), "d", func(a objstore.IterObjectAttributes) error {
		at, ok := a.LastModified()
		if dir := strings.HasSuffix(a.Name, "/"); ok == dir || (ok && time.Since(at).Abs() > time.Hour) {
			t.Errorf("last modified of %s: got %v, %v", a.Name, at, ok)
		}
		return nil
	}, objstore.WithUpdatedAt())
	if err != nil {
		t.Errorf("iterate with attributes: %v", err)
	}
}

func checkList(t *testing.T, b objstore.Bucket) {
	names := []string{"d-1", "d/x", "d/y/1", "d/y/2", "d/z/deep/er", "d0", "top"}
	for _, name := range names {
		upload(t, b, name, name)
	}
	for _, c := range []struct {
		prefix, after string
		want          []string
	}{
		{"", "", names},
		{"", "d/", names[1:]},
		{"", "d/x", names[2:]},
		{"", "d/y/15", names[3:]},
		{"", "d/y0", names[4:]},
		{"", "top", nil},
		{"d/", "", names[1:5]},
		{"d/", "d/y/1", names[3:5]},
		{"d/", "a", names[1:5]},
		{"d/", "e", nil},
		{"d", "", names[:6]},
		{"d/y/", "", names[2:4]},
		{"d/z/de", "", names[4:5]},
		{"to", "", names[6:]},
		{"x", "", nil},
	} {
		wantNames(t, fmt.Sprintf("listing of %q after %q", c.prefix, c.after), list(t, b, c.prefix, c.after), c.want)
	}
	err := bucket.List(t.Context(), b, "", "", func(o bucket.Object) error {
		if o.Size != int64(len(o.Name)) || time.Since(o.LastModified).Abs() > time.Hour {
			t.Errorf("entry of %s: got %+v, want size %d and a time of today", o.Name, o, len(o.Name))
		}
		return nil
	})
	if err != nil {
		t.Errorf("list: %v", err)
	}
}

func checkStop(t *testing.T, b objstore.Bucket) {
	upload(t, b, "a/1", "x")
	upload(t, b, "b", "x")
	calls, errEnough := 0, errors.New("enough")
	for what, err := range map[string]error{
		"iteration":           b.Iter(t.Context(), "", func(string) error { calls++; return errEnough }),
		"recursive iteration": b.Iter(t.Context(), "", func(string) error { calls++; return errEnough }, objstore.WithRecursiveIter()),
		"listing":             bucket.List(t.Context(), b, "", "", func(bucket.Object) error { calls++; return errEnough }),
	} {
		if !errors.Is(err, errEnough) {
			t.Errorf("%s: got %v, want the error of the function", what, err)
		}
	}
	if calls != 3 {
		t.Errorf("calls after the error: got %d in all, want one a listing", calls)
	}
}

func checkPages(t *testing.T, b objstore.Bucket) {
	const n = 1100 // a page of S3 has 1000
	names := make([]string, n)
	var g sync.WaitGroup
	for w := range 8 {
		g.Go(func() {
			for i := w; i < n; i += 8 {
				names[i] = fmt.Sprintf("block-%02d/%04d", i/50, i)
				if err := b.Upload(t.Context(), names[i], strings.NewReader("")); err != nil {
					t.Errorf("upload %s: %v", names[i], err)
				}
			}
		})
	}
	g.Wait()
	wantNames(t, "listing", list(t, b, "", ""), names)
	wantNames(t, "listing from the middle", list(t, b, "", names[40]), names[41:])
	wantNames(t, "recursive iteration", iterate(t, b, "", objstore.WithRecursiveIter()), names)
	if got := len(iterate(t, b, "")); got != n/50 {
		t.Errorf("directories: got %d, want %d", got, n/50)
	}
	if err := bucket.DeleteAll(t.Context(), b, names); err != nil {
		t.Errorf("delete all: %v", err)
	}
	wantNames(t, "listing after the deletion", list(t, b, "", ""), nil)
}

func checkAttributes(t *testing.T, b objstore.Bucket) {
	upload(t, b, "x", "12345")
	a, err := b.Attributes(t.Context(), "x")
	if err != nil || a.Size != 5 || time.Since(a.LastModified).Abs() > time.Hour {
		t.Errorf("attributes: got %+v, %v, want size 5 and a time of today", a, err)
	}
}

func checkLarge(t *testing.T, b objstore.Bucket) {
	const size = 21<<20 + 17
	content := make([]byte, size)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(content) // it never ends
	// Hide everything but Read: the length must not be known.
	if err := b.Upload(t.Context(), "large", struct{ io.Reader }{bytes.NewReader(content)}); err != nil {
		t.Fatalf("upload: %v", err)
	}
	rc, err := b.Get(t.Context(), "large")
	if err != nil {
		t.Fatalf("get: %v", err)
	}
	got, err := io.ReadAll(rc)
	if err = errors.Join(err, rc.Close()); err != nil || !bytes.Equal(got, content) {
		t.Errorf("content: got %d bytes, %v, want the %d that were uploaded", len(got), err, size)
	}
	const off, length = 8<<20 - 5, 10
	part, err := b.GetRange(t.Context(), "large", off, length)
	if err != nil {
		t.Fatalf("get range: %v", err)
	}
	got, err = io.ReadAll(part)
	if err = errors.Join(err, part.Close()); err != nil || !bytes.Equal(got, content[off:off+length]) {
		t.Errorf("range across two parts: got %x, %v, want %x", got, err, content[off:off+length])
	}
}

func checkCancel(t *testing.T, b objstore.Bucket) {
	upload(t, b, "x", "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, getErr := b.Get(ctx, "x")
	_, existsErr := b.Exists(ctx, "x")
	_, attributesErr := b.Attributes(ctx, "x")
	for what, err := range map[string]error{
		"get":        getErr,
		"exists":     existsErr,
		"attributes": attributesErr,
		"upload":     b.Upload(ctx, "y", strings.NewReader("y")),
		"delete":     b.Delete(ctx, "x"),
		"iter":       b.Iter(ctx, "", func(string) error { return nil }),
		"list":       bucket.List(ctx, b, "", "", func(bucket.Object) error { return nil }),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want context.Canceled", what, err)
		}
	}
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	endsMidway := io.MultiReader(io.LimitReader(endless{}, 9<<20), readerFunc(func([]byte) (int, error) {
		cancel()
		return 1, nil
	}))
	if err := b.Upload(ctx, "y", endsMidway); !errors.Is(err, context.Canceled) {
		t.Errorf("upload cancelled midway: got %v, want context.Canceled", err)
	}
	wantNames(t, "listing", list(t, b, "", ""), []string{"x"})
}

func upload(t *testing.T, b objstore.Bucket, name, content string) {
	t.Helper()
	if err := b.Upload(t.Context(), name, strings.NewReader(content)); err != nil {
		t.Fatalf("upload %s: %v", name, err)
	}
}

func download(t *testing.T, b objstore.Bucket, name string) string {
	t.Helper()
	rc, err := b.Get(t.Context(), name)
	if err != nil {
		t.Fatalf("get %s: %v", name, err)
	}
	content, err := io.ReadAll(rc)
	if err = errors.Join(err, rc.Close()); err != nil {
		t.Fatalf("read %s: %v", name, err)
	}
	return string(content)
}

func iterate(t *testing.T, b objstore.Bucket, dir string, options ...objstore.IterOption) []string {
	t.Helper()
	var names []string
	if err := b.Iter(t.Context(), dir, func(name string) error { names = append(names, name); return nil }, options...); err != nil {
		t.Fatalf("iterate %q: %v", dir, err)
	}
	return names
}

func list(t *testing.T, b objstore.Bucket, prefix, after string) []string {
	t.Helper()
	var names []string
	err := bucket.List(t.Context(), b, prefix, after, func(o bucket.Object) error { names = append(names, o.Name); return nil })
	if err != nil {
		t.Fatalf("list %q after %q: %v", prefix, after, err)
	}
	return names
}

func wantNames(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

// endless reads as zeros.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
