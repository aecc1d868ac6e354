package blockio_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockio"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/bucket/buckettest"
)

// stream writes the files of a local block into the bucket in turns, some bytes of each at a time.
func stream(ctx context.Context, bkt objstore.Bucket, dir string, meta *block.Meta) error {
	w, err := blockio.Begin(ctx, bkt, meta.ULID)
	if err != nil {
		return err
	}
	left := map[*blockio.WrittenFile][]byte{}
	for _, rel := range []string{"index", "chunks/000001", "chunks/000002", "chunks/000003"} {
		data, err := os.ReadFile(filepath.Join(dir, rel))
		if err != nil {
			return err
		}
		left[w.Create(ctx, rel)] = data
	}
	for len(left) > 0 {
		for f, data := range left {
			n, err := f.Write(data[:min(100, len(data))])
			if err == nil && n == len(data) {
				delete(left, f)
				err = f.Close()
			}
			if err != nil {
				for f := range left {
					f.Abort()
				}
				return err
			}
			if n < len(data) {
				left[f] = data[n:]
			}
		}
	}
	return w.Commit(ctx, meta)
}

func TestAStreamedBlockIsTheUploadedOne(t *testing.T) {
	dir, meta := fixture(t)
	whole, streamed := bucket.NewMemory(), bucket.NewMemory()
	if err := blockio.UploadOnce(t.Context(), whole, dir, meta); err != nil {
		t.Fatal(err)
	}
	log := buckettest.NewLog(streamed)
	if err := stream(t.Context(), log, dir, meta); err != nil {
		t.Fatal(err)
	}
	if got, want := content(t, streamed), content(t, whole); !reflect.DeepEqual(got, want) {
		t.Errorf("got %d objects, want %d with the same content", len(got), len(want))
	}
	if writes := log.Writes(); !strings.HasSuffix(writes[len(writes)-1], "/meta.json") {
		t.Errorf("the last object written is %s, want meta.json", writes[len(writes)-1])
	}
	log.Reset()
	if err := stream(t.Context(), log, dir, meta); err != nil {
		t.Errorf("the same block again: %v", err)
	}
	for _, w := range log.Writes() {
		if !strings.HasSuffix(w, "/meta.json") { // which says that it is there
			t.Errorf("a complete block was touched again: %s", w)
		}
	}
}

func TestStreamingSurvivesACrashAtEveryWrite(t *testing.T) {
	dir, meta := fixture(t)
	whole := bucket.NewMemory()
	if err := blockio.UploadOnce(t.Context(), whole, dir, meta); err != nil {
		t.Fatal(err)
	}
	want := content(t, whole)
	for n := 1; n <= len(want); n++ {
		for _, when := range []buckettest.Moment{buckettest.Before, buckettest.After} {
			bkt := bucket.NewMemory()
			if err := stream(t.Context(), buckettest.CrashAt(bkt, n, when), dir, meta); err == nil {
				t.Fatalf("crash at write %d: got no error", n)
			}
			if _, complete := content(t, bkt)[block.MetaName(meta.ULID)]; complete && (n < len(want) || when == buckettest.Before) {
				t.Fatalf("crash at write %d: the block has its meta.json already", n)
			}
			if err := stream(t.Context(), bkt, dir, meta); err != nil {
				t.Fatalf("repeated after a crash at write %d: %v", n, err)
			}
			if got := content(t, bkt); !reflect.DeepEqual(got, want) {
				t.Errorf("repeated after a crash at write %d: got %d objects, want %d with the same content", n, len(got), len(want))
			}
		}
	}
}

func TestStreamingOverOtherContentIsAConflict(t *testing.T) {
	for name, spoil := range map[string]func(string) string{
		"another byte":  func(s string) string { return strings.Replace(s, "h", "j", 1) },
		"a byte more":   func(s string) string { return s + "!" },
		"a byte less":   func(s string) string { return s[:len(s)-1] },
		"nothing there": func(string) string { return "" },
	} {
		t.Run(name, func(t *testing.T) {
			dir, meta := fixture(t)
			bkt := bucket.NewMemory()
			object := block.ObjectName(meta.ULID, "chunks/000003")
			if err := bkt.Upload(t.Context(), object, strings.NewReader(spoil("the third"))); err != nil {
				t.Fatal(err)
			}
			if err := stream(t.Context(), bkt, dir, meta); !errors.Is(err, blockio.ErrConflict) {
				t.Errorf("got error %v, want %v", err, blockio.ErrConflict)
			}
			if _, complete := content(t, bkt)[block.MetaName(meta.ULID)]; complete {
				t.Error("the block has its meta.json")
			}
		})
	}
	t.Run("a file too many", func(t *testing.T) {
		dir, meta := fixture(t)
		bkt := bucket.NewMemory()
		if err := bkt.Upload(t.Context(), block.ObjectName(meta.ULID, "chunks/000009"), strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
		if err := stream(t.Context(), bkt, dir, meta); !errors.Is(err, blockio.ErrConflict) {
			t.Errorf("got error %v, want %v", err, blockio.ErrConflict)
		}
	})
}

func TestAnObjectThatAppearsMeanwhileIsARace(t *testing.T) {
	bkt := bucket.NewMemory()
	_, meta := fixture(t)
	w, err := blockio.Begin(t.Context(), bkt, meta.ULID)
	if err != nil {
		t.Fatal(err)
	}
	f := w.Create(t.Context(), "index")
	if _, err := io.WriteString(f, "the same"); err != nil {
		t.Fatal(err)
	}
	if err := bkt.Upload(t.Context(), block.IndexName(meta.ULID), strings.NewReader("the same")); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); !errors.Is(err, blockio.ErrRaced) {
		t.Errorf("got error %v, want %v", err, blockio.ErrRaced)
	}
}

func TestAnAbortedFileIsNotThere(t *testing.T) {
	bkt := bucket.NewMemory()
	_, meta := fixture(t)
	w, err := blockio.Begin(t.Context(), bkt, meta.ULID)
	if err != nil {
		t.Fatal(err)
	}
	f := w.Create(t.Context(), "index")
	if _, err := io.WriteString(f, "half of what"); err != nil {
		t.Fatal(err)
	}
	f.Abort()
	if got := content(t, bkt); len(got) > 0 {
		t.Errorf("the bucket holds %v", got)
	}
	if _, err := f.Write([]byte("more")); err == nil {
		t.Error("writing goes on after the end")
	}
}
