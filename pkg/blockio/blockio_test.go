package blockio_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
	"go.uber.org/goleak"

	"github.com/varve-io/varve/internal/golden"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/blockio"
	"github.com/varve-io/varve/pkg/bucket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errCrash = errors.New("the process is dead")

// mortal is a bucket that logs every change and lets only the first few through,
// as if the process had been killed after the last of them.
type mortal struct {
	*bucket.Memory

	mu   sync.Mutex
	log  []string
	left int // changes until the crash; negative means none
}

func (b *mortal) change(op string, do func() error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left == 0 {
		return errCrash
	}
	b.left--
	b.log = append(b.log, op)
	return do()
}

func (b *mortal) Upload(ctx context.Context, name string, r io.Reader, o ...objstore.ObjectUploadOption) error {
	return b.change("upload "+name, func() error { return b.Memory.Upload(ctx, name, r, o...) })
}

func (b *mortal) PutIfAbsent(ctx context.Context, name string, r io.Reader) (etag string, err error) {
	err = b.change("put if absent "+name, func() error {
		etag, err = b.Memory.PutIfAbsent(ctx, name, r)
		return err
	})
	return etag, err
}

func (b *mortal) Delete(ctx context.Context, name string) error {
	return b.change("delete "+name, func() error { return b.Memory.Delete(ctx, name) })
}

// story is the log as text; what may happen in any order is sorted.
func (b *mortal) story() string {
	lines := slices.Clone(b.log)
	isData := func(l string) bool {
		return !strings.HasSuffix(l, "/meta.json") && !strings.HasSuffix(l, "/deletion-mark.json") && !strings.HasSuffix(l, "/")
	}
	for from := 0; from < len(lines); from++ {
		to := from
		for to < len(lines) && isData(lines[to]) {
			to++
		}
		slices.Sort(lines[from:to])
		from = to
	}
	return strings.Join(lines, "\n") + "\n"
}

// content is all that the bucket holds, by name.
func content(t *testing.T, b bucket.Reader) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := bucket.List(t.Context(), b, "", "", func(o bucket.Object) error {
		r, err := b.Get(t.Context(), o.Name)
		if err != nil {
			return err
		}
		data, err := io.ReadAll(r)
		all[o.Name] = string(data)
		return errors.Join(err, r.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// fixture is a real block with two more segments, so that there is something to
// send in parallel, and a file of tombstones, which must stay at home.
func fixture(t *testing.T) (string, *block.Meta) {
	t.Helper()
	dir, meta := blocktest.Dir(t, blocktest.Spec{Load: "load 30s\n\tup 0+1x200", Labels: map[string]string{"cluster": "eu"}})
	for name, data := range map[string]string{"chunks/000002": "second", "chunks/000003": "the third", "tombstones": "none", "chunks/.tmp": "?"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	meta.Thanos.UploadTime = time.Date(2024, 10, 3, 0, 5, 0, 0, time.UTC)
	return dir, meta
}

// ways are the two ways to upload.
func ways() map[string]func(context.Context, objstore.Bucket, string, *block.Meta) error {
	return map[string]func(context.Context, objstore.Bucket, string, *block.Meta) error{
		"upload": blockio.Upload, "upload-once": blockio.UploadOnce,
	}
}

func TestUploadPutsMetaLast(t *testing.T) {
	for name, upload := range ways() {
		t.Run(name, func(t *testing.T) {
			dir, meta := fixture(t)
			b := &mortal{Memory: bucket.NewMemory(), left: -1}
			if err := upload(t.Context(), b, dir, meta); err != nil {
				t.Fatal(err)
			}
			golden.Check(t, "testdata/"+name+".log", b.story())
			golden.Check(t, "testdata/meta.json", content(t, b)[block.MetaName(meta.ULID)])

			before := len(b.log)
			if err := upload(t.Context(), b, dir, meta); err != nil {
				t.Fatal(err)
			}
			if again := b.log[before:]; len(again) > 0 {
				t.Errorf("a complete block was touched again: %v", again)
			}
		})
	}
}

func TestUploadSurvivesACrashAfterEveryOperation(t *testing.T) {
	for name, upload := range ways() {
		t.Run(name, func(t *testing.T) {
			dir, meta := fixture(t)
			whole := bucket.NewMemory()
			if err := upload(t.Context(), whole, dir, meta); err != nil {
				t.Fatal(err)
			}
			want := content(t, whole)
			for left := range len(want) {
				b := &mortal{Memory: bucket.NewMemory(), left: left}
				if err := upload(t.Context(), b, dir, meta); !errors.Is(err, errCrash) {
					t.Fatalf("killed after %d changes: got error %v, want %v", left, err, errCrash)
				}
				if _, complete := content(t, b)[block.MetaName(meta.ULID)]; complete {
					t.Fatalf("killed after %d changes: the block has its meta.json already", left)
				}
				b.left = -1
				if err := upload(t.Context(), b, dir, meta); err != nil {
					t.Fatalf("repeated after %d changes: %v", left, err)
				}
				if got := content(t, b); !reflect.DeepEqual(got, want) {
					t.Errorf("repeated after %d changes: got %d objects, want %d with the same content", left, len(got), len(want))
				}
				if len(b.log) != len(want) {
					t.Errorf("repeated after %d changes: %d changes in all, want %d: what is there is not sent again\n%s", left, len(b.log), len(want), b.story())
				}
			}
		})
	}
}

func TestUploadRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(dir string, m *block.Meta) error
		want  string
	}{
		"a block without external labels": {func(_ string, m *block.Meta) error { m.Thanos.Labels = nil; return nil }, "external_labels"},
		"a block without an upload time":  {func(_ string, m *block.Meta) error { m.Thanos.UploadTime = time.Time{}; return nil }, "upload time"},
		"a block without an index":        {func(dir string, _ *block.Meta) error { return os.Remove(filepath.Join(dir, "index")) }, "index"},
		"a block without chunks":          {func(dir string, _ *block.Meta) error { return os.RemoveAll(filepath.Join(dir, "chunks")) }, "chunks"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, meta := fixture(t)
			if err := tc.spoil(dir, meta); err != nil {
				t.Fatal(err)
			}
			b := bucket.NewMemory()
			err := blockio.Upload(t.Context(), b, dir, meta)
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), meta.ULID.String()) {
				t.Errorf("got error %v, want one that names the block and %q", err, tc.want)
			}
			if got := content(t, b); len(got) > 0 {
				t.Errorf("%d objects were written", len(got))
			}
		})
	}
}

func TestUploadOnceFindsOtherContent(t *testing.T) {
	for name, tc := range map[string]struct {
		object func(*block.Meta) string
		change func(string) string
	}{
		"an index of the same size":   {func(m *block.Meta) string { return block.IndexName(m.ULID) }, func(s string) string { return "X" + s[1:] }},
		"a segment of another size":   {func(m *block.Meta) string { return block.SegmentName(m.ULID, 2) }, func(s string) string { return s + "X" }},
		"a segment that nobody wrote": {func(m *block.Meta) string { return block.SegmentName(m.ULID, 4) }, func(string) string { return "X" }},
	} {
		t.Run(name, func(t *testing.T) {
			dir, meta := fixture(t)
			b := &mortal{Memory: bucket.NewMemory(), left: -1}
			if err := blockio.UploadOnce(t.Context(), b, dir, meta); err != nil {
				t.Fatal(err)
			}
			object := tc.object(meta)
			changed := tc.change(content(t, b)[object])
			if err := b.Upload(t.Context(), object, strings.NewReader(changed)); err != nil {
				t.Fatal(err)
			}
			if err := b.Delete(t.Context(), block.MetaName(meta.ULID)); err != nil {
				t.Fatal(err)
			}
			if err := blockio.UploadOnce(t.Context(), b, dir, meta); !errors.Is(err, blockio.ErrConflict) {
				t.Errorf("got error %v, want %v", err, blockio.ErrConflict)
			}
			after := content(t, b)
			if _, complete := after[block.MetaName(meta.ULID)]; complete || after[object] != changed {
				t.Error("the object was replaced or the block completed")
			}
		})
	}
}

func TestTwoWritersOfOneOutputEndInOneBlock(t *testing.T) {
	dir, meta := fixture(t)
	b := bucket.NewMemory()
	later := *meta
	later.Thanos.UploadTime = meta.Thanos.UploadTime.Add(time.Minute)
	errs := make(chan error)
	for _, m := range []*block.Meta{meta, &later} {
		go func() { errs <- blockio.UploadOnce(context.Background(), b, dir, m) }()
	}
	for range 2 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if _, err := blockio.Download(t.Context(), b, meta.ULID, t.TempDir()); err != nil {
		t.Error(err)
	}
}

func TestDownloadBringsWhatWasUploaded(t *testing.T) {
	dir, meta := blocktest.Dir(t, blocktest.Spec{Load: "load 30s\n\tup 0+1x200", Labels: map[string]string{"cluster": "eu"}})
	meta.Thanos.UploadTime = time.Unix(1727913900, 0).UTC()
	b := bucket.NewMemory()
	if err := blockio.Upload(t.Context(), b, dir, meta); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), meta.ULID.String())
	for range 2 { // the second time finds everything there
		got, err := blockio.Download(t.Context(), b, meta.ULID, to)
		if err != nil {
			t.Fatal(err)
		}
		if got.ULID != meta.ULID || len(got.Thanos.Files) != 3 {
			t.Errorf("got meta %+v, want that of %s with three files", got, meta.ULID)
		}
		if got, want := blocktest.Read(t, to), blocktest.Read(t, dir); !reflect.DeepEqual(got, want) {
			t.Errorf("got series %v, want %v", got, want)
		}
	}
}

func TestDownloadNamesWhatIsWrong(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(ctx context.Context, b *bucket.Memory, m *block.Meta) error
		want  error
	}{
		"no meta.json": {func(ctx context.Context, b *bucket.Memory, m *block.Meta) error {
			return b.Delete(ctx, block.MetaName(m.ULID))
		}, bucket.ErrNotFound},
		"a meta.json cut short": {func(ctx context.Context, b *bucket.Memory, m *block.Meta) error {
			return b.Upload(ctx, block.MetaName(m.ULID), strings.NewReader(`{"ulid":`))
		}, block.ErrCorrupt},
		"a segment is missing": {func(ctx context.Context, b *bucket.Memory, m *block.Meta) error {
			return b.Delete(ctx, block.SegmentName(m.ULID, 2))
		}, block.ErrCorrupt},
		"the index is missing": {func(ctx context.Context, b *bucket.Memory, m *block.Meta) error {
			return b.Delete(ctx, block.IndexName(m.ULID))
		}, block.ErrCorrupt},
		"a segment is too short": {func(ctx context.Context, b *bucket.Memory, m *block.Meta) error {
			return b.Upload(ctx, block.SegmentName(m.ULID, 2), strings.NewReader("sec"))
		}, block.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			dir, meta := fixture(t)
			b := bucket.NewMemory()
			if err := blockio.Upload(t.Context(), b, dir, meta); err != nil {
				t.Fatal(err)
			}
			if err := tc.spoil(t.Context(), b, meta); err != nil {
				t.Fatal(err)
			}
			to := t.TempDir()
			if _, err := blockio.Download(t.Context(), b, meta.ULID, to); !errors.Is(err, tc.want) {
				t.Errorf("got error %v, want %v", err, tc.want)
			}
			if _, err := os.Stat(filepath.Join(to, block.MetaFile)); err == nil {
				t.Error("the local block has a meta.json")
			}
		})
	}
}

func TestMarksAreWrittenOnce(t *testing.T) {
	_, meta := blocktest.Dir(t, blocktest.Spec{Load: "load 30s\n\tup 1"})
	b := bucket.NewMemory()
	first := block.Mark{Kind: block.DeletionMark, ID: meta.ULID, Details: "first", Time: 100}
	second := first
	second.Details, second.Time = "second", 200
	for _, m := range []block.Mark{first, second} {
		if err := blockio.Mark(t.Context(), b, m); err != nil {
			t.Fatal(err)
		}
	}
	got, err := block.ParseMark(block.DeletionMark, []byte(content(t, b)[block.MarkName(meta.ULID, block.DeletionMark)]))
	if err != nil {
		t.Fatal(err)
	}
	if *got != first {
		t.Errorf("got %+v, want %+v", *got, first)
	}
	for range 2 {
		if err := blockio.Unmark(t.Context(), b, meta.ULID, block.DeletionMark); err != nil {
			t.Fatal(err)
		}
	}
	if left := content(t, b); len(left) > 0 {
		t.Errorf("left in the bucket: %v", left)
	}
}

// marked is a bucket with a block that carries all marks, and directory markers
// as some tools leave them, beside another block's object.
func marked(t *testing.T, meta *block.Meta, dir string) *bucket.Memory {
	t.Helper()
	b := bucket.NewMemory()
	if err := blockio.Upload(t.Context(), b, dir, meta); err != nil {
		t.Fatal(err)
	}
	for _, kind := range block.MarkKinds() {
		if err := blockio.Mark(t.Context(), b, block.Mark{Kind: kind, ID: meta.ULID, Reason: "manual"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{block.ObjectName(meta.ULID, ""), block.ObjectName(meta.ULID, "chunks/"), neighbour} {
		if err := b.Upload(t.Context(), name, strings.NewReader("")); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

const neighbour = "01J8XPPZ6EZJ7QYJ4ZQJ0V4R5T/index"

func TestCleaningUpLeavesABlockThatIsCompleteByNow(t *testing.T) {
	dir, meta := fixture(t)
	b := marked(t, meta, dir)
	before := len(content(t, b))
	if err := blockio.Clean(t.Context(), b, meta.ULID); err != nil {
		t.Fatal(err)
	}
	if got := len(content(t, b)); got != before {
		t.Errorf("of a complete block %d objects are left, want all %d", got, before)
	}
	if err := b.Delete(t.Context(), block.MetaName(meta.ULID)); err != nil {
		t.Fatal(err)
	}
	if err := blockio.Clean(t.Context(), b, meta.ULID); err != nil {
		t.Fatal(err)
	}
	if got := content(t, b); len(got) != 1 {
		t.Errorf("of an unfinished one %d objects are left, want that of the neighbour alone", len(got))
	}
}

func TestDeleteTakesMetaFirstAndTheMarkLast(t *testing.T) {
	dir, meta := fixture(t)
	b := &mortal{Memory: marked(t, meta, dir), left: -1}
	if err := blockio.Delete(t.Context(), b, meta.ULID); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "testdata/delete.log", b.story())
	changes := len(b.log)

	for left := range changes {
		b := &mortal{Memory: marked(t, meta, dir), left: left}
		if err := blockio.Delete(t.Context(), b, meta.ULID); !errors.Is(err, errCrash) {
			t.Fatalf("killed after %d changes: got error %v, want %v", left, err, errCrash)
		}
		got := content(t, b)
		_, complete := got[block.MetaName(meta.ULID)]
		_, mark := got[block.MarkName(meta.ULID, block.DeletionMark)]
		_, index := got[block.IndexName(meta.ULID)]
		if complete && left > 0 || !mark && index {
			t.Errorf("killed after %d changes: meta.json present: %t, mark: %t, index: %t", left, complete, mark, index)
		}
		b.left = -1
		if err := blockio.Delete(t.Context(), b, meta.ULID); err != nil {
			t.Fatalf("repeated after %d changes: %v", left, err)
		}
		if got := content(t, b); len(got) != 1 {
			t.Errorf("repeated after %d changes: left are %d objects, want that of the neighbour alone", left, len(got))
		}
	}
}

// TestDeletingTogetherIsDeletingEach kills the deletion of two blocks between any two changes.
func TestDeletingTogetherIsDeletingEach(t *testing.T) {
	dir, meta := fixture(t)
	other := meta.ULID
	other[15] ^= 1
	both := []ulid.ULID{meta.ULID, other}
	fill := func(left int) *mortal {
		b := &mortal{Memory: marked(t, meta, dir), left: left}
		for name, data := range content(t, b) {
			if rel, ok := strings.CutPrefix(name, meta.ULID.String()); ok {
				if err := b.Memory.Upload(t.Context(), other.String()+rel, strings.NewReader(data)); err != nil {
					t.Fatal(err)
				}
			}
		}
		return b
	}
	b := fill(-1)
	if err := blockio.DeleteAll(t.Context(), b, both); err != nil {
		t.Fatal(err)
	}
	if got := content(t, b); len(got) != 1 {
		t.Errorf("left are %d objects, want that of the neighbour alone", len(got))
	}
	for left := range len(b.log) {
		b := fill(left)
		if err := blockio.DeleteAll(t.Context(), b, both); !errors.Is(err, errCrash) {
			t.Fatalf("killed after %d changes: got error %v, want %v", left, err, errCrash)
		}
		got := content(t, b)
		for _, id := range both {
			_, complete := got[block.MetaName(id)]
			_, mark := got[block.MarkName(id, block.DeletionMark)]
			_, index := got[block.IndexName(id)]
			if complete && !index || !mark && index {
				t.Errorf("killed after %d changes, block %s: meta.json present: %t, mark: %t, index: %t", left, id, complete, mark, index)
			}
		}
	}
}
