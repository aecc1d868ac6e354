package buckettest_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/bucket/buckettest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheLogTellsWritesInOrder(t *testing.T) {
	l := buckettest.NewLog(bucket.NewMemory())
	ctx := t.Context()
	if err := l.Upload(ctx, "x/index", strings.NewReader("i")); err != nil {
		t.Fatal(err)
	}
	etag, err := l.PutIfAbsent(ctx, "x/meta.json", strings.NewReader("m"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.PutIfAbsent(ctx, "x/meta.json", strings.NewReader("m")); !errors.Is(err, bucket.ErrExists) {
		t.Fatalf("create again: got %v", err)
	}
	if _, err := l.PutIfMatch(ctx, "x/meta.json", []byte("n"), etag); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Exists(ctx, "x/index"); err != nil {
		t.Fatal(err)
	}
	if err := bucket.DeleteAll(ctx, l, []string{"x/meta.json", "x/index"}); err != nil {
		t.Fatal(err)
	}
	want := []string{"upload x/index", "create x/meta.json", "replace x/meta.json", "delete x/meta.json", "delete x/index"}
	if got := l.Writes(); !slices.Equal(got, want) {
		t.Errorf("writes:\n got %q\nwant %q", got, want)
	}
	if got := len(l.All()); got != 7 || l.Count(buckettest.Exists) != 1 {
		t.Errorf("operations: got %d of which %d exists, want 7 and 1", got, l.Count(buckettest.Exists))
	}
	l.Reset()
	if got := l.All(); len(got) != 0 {
		t.Errorf("operations after the reset: got %q", got)
	}
}

func TestACrashEndsEverythingAtOneWrite(t *testing.T) {
	for name, tc := range map[string]struct {
		when buckettest.Moment
		want []string
	}{
		"before its effect": {buckettest.Before, []string{"upload a"}},
		"after its effect":  {buckettest.After, []string{"upload a", "upload b"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := buckettest.NewLog(bucket.NewMemory())
			b := buckettest.CrashAt(l, 2, tc.when)
			if err := b.Upload(t.Context(), "a", strings.NewReader("")); err != nil {
				t.Fatalf("first write: %v", err)
			}
			if _, err := b.Exists(t.Context(), "a"); err != nil || b.Crashed() {
				t.Fatalf("read before the crash: %v", err)
			}
			for _, name := range []string{"b", "c"} {
				if err := b.Upload(t.Context(), name, strings.NewReader("")); !errors.Is(err, buckettest.ErrCrashed) {
					t.Errorf("upload %s: got %v, want ErrCrashed", name, err)
				}
			}
			if _, err := b.Exists(t.Context(), "a"); !errors.Is(err, buckettest.ErrCrashed) || !b.Crashed() {
				t.Errorf("read after the crash: got %v, want ErrCrashed", err)
			}
			if got := l.Writes(); !slices.Equal(got, tc.want) {
				t.Errorf("writes: got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestAFaultStrikesOneOperation(t *testing.T) {
	fault := errors.New("struck")
	l := buckettest.NewLog(bucket.NewMemory())
	b := buckettest.FailAt(l, buckettest.Create, 2, buckettest.After, fault)
	for i, want := range []error{nil, fault, nil} {
		name := string(rune('a' + i))
		if _, err := b.PutIfAbsent(t.Context(), name, strings.NewReader("")); !errors.Is(err, want) {
			t.Errorf("create %s: got %v, want %v", name, err, want)
		}
	}
	if got, want := l.Writes(), []string{"create a", "create b", "create c"}; !slices.Equal(got, want) {
		t.Errorf("writes: got %q, want %q", got, want)
	}
}
