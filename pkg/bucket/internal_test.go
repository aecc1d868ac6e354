package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-kit/log/level" //nolint:depguard // what the adapter adapts
	"github.com/thanos-io/objstore"
	"google.golang.org/api/googleapi"
)

// strange is a provider whose reads and deletions end in one error.
type strange struct {
	*objstore.InMemBucket
	err error
}

func (s strange) GetRange(context.Context, string, int64, int64) (io.ReadCloser, error) {
	return nil, s.err
}
func (s strange) Delete(context.Context, string) error { return s.err }
func (s strange) IsObjNotFoundErr(err error) bool      { return errors.Is(err, errStrangeAbsent) }
func (s strange) IsAccessDeniedErr(err error) bool     { return errors.Is(err, errStrangeDenied) }

var errStrangeAbsent, errStrangeDenied = errors.New("absent"), errors.New("denied")

func TestErrorsOfForeignProvidersAreMarked(t *testing.T) {
	for name, tc := range map[string]struct{ err, want error }{
		"what the provider calls absent":  {fmt.Errorf("get: %w", errStrangeAbsent), ErrNotFound},
		"what the provider calls denied":  {errStrangeDenied, ErrAccessDenied},
		"status 403":                      {&googleapi.Error{Code: 403}, ErrAccessDenied},
		"status 429":                      {&googleapi.Error{Code: 429}, ErrThrottled},
		"status 500":                      {&googleapi.Error{Code: 500}, ErrTransient},
		"anything else, which stays bare": {io.ErrNoProgress, nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := foreign{strange{err: tc.err}}.GetRange(t.Context(), "x", 0, 1)
			if !errors.Is(err, tc.err) {
				t.Errorf("error: got %v, want %v inside", err, tc.err)
			}
			for _, mark := range []error{ErrNotFound, ErrAccessDenied, ErrThrottled, ErrTransient, ErrExists, ErrChanged} {
				want := errors.Is(tc.want, mark) // throttled is transient, too
				if errors.Is(err, mark) != want {
					t.Errorf("marked as %v: got %v, want %v", mark, !want, want)
				}
			}
		})
	}
	b := foreign{strange{err: errStrangeAbsent}}
	if err := b.Delete(t.Context(), "x"); err != nil {
		t.Errorf("delete of an absent object: %v", err)
	}
	b = foreign{strange{err: &googleapi.Error{Code: 416}}}
	rc, err := b.GetRange(t.Context(), "x", 10, 1)
	if err != nil {
		t.Fatalf("range past the end: %v", err)
	}
	if got, err := io.ReadAll(rc); len(got) != 0 || err != nil {
		t.Errorf("range past the end: got %q, %v, want nothing", got, err)
	}
	if _, err := b.GetRange(t.Context(), "x", 0, 0); err == nil {
		t.Error("range of no length: got no error")
	}
}

func TestProvidersLogThroughSlog(t *testing.T) {
	var out strings.Builder
	l := goKit(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})))
	_ = level.Warn(l).Log("msg", "something", "size", 5)
	_ = level.Debug(l).Log("msg", "not shown")
	_ = level.Error(l).Log("err", io.EOF)
	want := "level=WARN msg=something size=5\nlevel=ERROR msg=\"object storage\" err=EOF\n"
	if out.String() != want {
		t.Errorf("log:\n got %s\nwant %s", out.String(), want)
	}
}

func TestProcessesThatShareADirectoryLoseNoIncrement(t *testing.T) {
	dir := t.TempDir()
	first := newFS(t, dir)
	if err := first.Upload(t.Context(), "n", strings.NewReader("1000")); err != nil {
		t.Fatal(err)
	}
	const processes, each = 4, 25
	var g sync.WaitGroup
	for range processes {
		b := newFS(t, dir) // nothing but the lock file between them
		g.Go(func() {
			for range each {
				for {
					content, etag, err := b.GetVersion(t.Context(), "n")
					n, convErr := strconv.Atoi(string(content))
					if err = errors.Join(err, convErr); err == nil {
						_, err = b.PutIfMatch(t.Context(), "n", []byte(strconv.Itoa(n+1)), etag)
					}
					if err == nil {
						break
					}
					if !errors.Is(err, ErrChanged) {
						t.Errorf("increment: %v", err)
						return
					}
				}
			}
		})
	}
	g.Wait()
	got, _, err := first.GetVersion(t.Context(), "n")
	if want := strconv.Itoa(1000 + processes*each); err != nil || string(got) != want {
		t.Errorf("count: got %s, %v, want %s", got, err, want)
	}
}

func TestADirectoryHoldsObjectsAndNothingOfOurs(t *testing.T) {
	dir := t.TempDir()
	own := filepath.Join(dir, ownDir)
	if err := os.MkdirAll(own, 0o777); err != nil {
		t.Fatal(err)
	}
	stale, fresh := filepath.Join(own, "upload-stale"), filepath.Join(own, "upload-fresh")
	for _, path := range []string{stale, fresh} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-2 * staleUpload)
	if err := os.Chtimes(stale, old, old); err != nil {
		t.Fatal(err)
	}
	b := newFS(t, dir)
	for _, name := range []string{"a/b/c", "a/d"} {
		if err := b.Upload(t.Context(), name, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Errorf("an upload of a process long gone: got %v, want it removed", err)
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Errorf("an upload that may be under way: %v", err)
	}
	if err := b.Iter(t.Context(), "", func(name string) error {
		if name != "a/" {
			t.Errorf("the root shows %s, want a/ alone", name)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"", ".", "../x", "/x", "a//b", "a/", "a/../b", ownDir + "/lock", "nul\x00"} {
		if err := b.Upload(t.Context(), name, strings.NewReader("x")); err == nil {
			t.Errorf("upload of %q: got no error", name)
		}
		if err := b.Delete(t.Context(), name); err == nil {
			t.Errorf("delete of %q: got no error", name)
		}
	}
	for _, name := range []string{"a", "a/d/e"} {
		if err := b.Upload(t.Context(), name, strings.NewReader("x")); err == nil {
			t.Errorf("upload of %s, where a tree has something else: got no error", name)
		}
	}
	if err := b.Delete(t.Context(), "a/b/c"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "a", "b")); !os.IsNotExist(err) {
		t.Errorf("the directory left empty: got %v, want it removed", err)
	}
	info, err := os.Stat(filepath.Join(dir, "a", "d"))
	if err != nil || info.Mode().Perm()&0o044 == 0 {
		t.Errorf("mode of an object: got %v, %v, want what the umask leaves of 0666", info.Mode(), err)
	}
}

func newFS(t *testing.T, dir string) *filesystem {
	t.Helper()
	b, err := newFilesystem(filesystemConfig{Directory: dir})
	if err != nil {
		t.Fatal(err)
	}
	return b
}
