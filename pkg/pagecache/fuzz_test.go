package pagecache

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// sampleRecord is a record of two extents of the second page of an object.
func sampleRecord() []byte {
	k := pageKey{Object{Name: "block/index", Size: 3 * pageSize, Version: "v"}, 1}
	b, _ := encodeRecord(nil, k, []extent{{pageSize + 3, []byte("hello")}, {2*pageSize - 1, []byte("x")}})
	return b
}

func TestRecordsAreReadAsWritten(t *testing.T) {
	k, x, err := decodeRecord(sampleRecord())
	if err != nil {
		t.Fatal(err)
	}
	if k.n != 1 || k.object != (Object{Name: "block/index", Size: 3 * pageSize, Version: "v"}) ||
		len(x) != 2 || x[0].off != pageSize+3 || string(x[0].data) != "hello" || x[1].off != 2*pageSize-1 || string(x[1].data) != "x" {
		t.Errorf("a record is read as %+v %+v", k, x)
	}
	if p, err := decodeHeader(sampleRecord()); err != nil || p.touched != 1|1<<63 || p.key != k.diskKey() {
		t.Errorf("its place is %+v (%v)", p, err)
	}
}

func FuzzRecord(f *testing.F) {
	f.Add(sampleRecord())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		k, x, err := decodeRecord(b)
		if err != nil {
			if !errors.Is(err, errCorrupt) {
				t.Errorf("error is %v, want %v", err, errCorrupt)
			}
			return
		}
		again, _ := encodeRecord(nil, k, x)
		if k2, x2, err := decodeRecord(again); err != nil || k2 != k || len(x2) != len(x) {
			t.Errorf("a record of %+v becomes %+v (%v)", k, k2, err)
		}
	})
}

// A directory with any file in it gives a cache that answers rightly.
func FuzzSegment(f *testing.F) {
	fake := newFake(3 * pageSize)
	dir := f.TempDir()
	c := newCache(f, fake, diskOptions(dir))
	mustRead(f, c, fake, 10, 1000)
	mustRead(f, c, fake, pageSize-5, 3000)
	c.disk.flush()
	open, err := os.ReadFile(segmentFiles(f, dir)[0])
	if err != nil {
		f.Fatal(err)
	}
	c.mustClose(f)
	sealed, err := os.ReadFile(segmentFiles(f, dir)[0])
	if err != nil {
		f.Fatal(err)
	}
	for _, b := range [][]byte{nil, open, sealed, sealed[:len(sealed)-1], open[:len(open)/2], bytes.Repeat(sealed, 2)} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "00000001.fresh"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := New(fake, diskOptions(dir), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		mustRead(t, c, fake, 10, 1000)
		mustRead(t, c, fake, 0, fake.object().Size)
		c.mustClose(t)
	})
}
