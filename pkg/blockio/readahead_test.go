package blockio_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/blockio"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/bucket/buckettest"
)

// remoteIndex is a block with an index of n random bytes, opened with little memory.
func remoteIndex(t *testing.T, bkt *bucket.Memory, wrap func(bucket.Reader) bucket.Reader, n int) (*blockio.Object, []byte) {
	t.Helper()
	return remoteIndexBy(t, bkt, wrap, n, blockio.NewReadAhead(1, 1, 2))
}

func remoteIndexBy(t *testing.T, bkt *bucket.Memory, wrap func(bucket.Reader) bucket.Reader, n int, ahead *blockio.ReadAhead) (*blockio.Object, []byte) {
	t.Helper()
	dir, meta := blocktest.Dir(t, blocktest.Spec{Load: "load 30s\n\tup 0+1x20", Labels: map[string]string{"cluster": "eu"}})
	blocktest.Upload(t, bkt, dir)
	want := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(want)
	if err := bkt.Upload(t.Context(), block.IndexName(meta.ULID), bytes.NewReader(want)); err != nil {
		t.Fatal(err)
	}
	meta.Thanos.Files = nil
	remote, err := blockio.Open(t.Context(), wrap(bkt), meta, ahead, ahead)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remote.Close)
	if len(remote.Segments) != 1 || remote.Index.Size() != int64(n) {
		t.Fatalf("got %d segments and an index of %d bytes, want 1 and %d", len(remote.Segments), remote.Index.Size(), n)
	}
	return remote.Index, want
}

func plain(b bucket.Reader) bucket.Reader { return b }

// TestObjectsAreReadInAnyOrder reads mostly forwards, in steps around the size of
// a window, and sometimes anywhere.
func TestObjectsAreReadInAnyOrder(t *testing.T) {
	index, want := remoteIndex(t, bucket.NewMemory(), plain, 900_001)
	r := rand.New(rand.NewPCG(1, 2))
	size := int64(len(want))
	off := int64(0)
	for range 3000 {
		n := r.Int64N(3000)
		switch r.IntN(30) {
		case 0:
			off = r.Int64N(size)
		case 1:
			n = r.Int64N(300_000)
		case 2:
			index.Expect(t.Context(), r.Int64N(size+10))
		}
		n = min(n, size-off)
		got, err := index.At(t.Context(), off, n)
		if err != nil || !bytes.Equal(got, want[off:off+n]) {
			t.Fatalf("%d bytes at %d: %d other ones (%v)", n, off, len(got), err)
		}
		if off += n; off == size {
			off = 0
		}
	}
}

// TestASmallObjectIsReadAtOnce begins at the end, as readers of an index do.
func TestASmallObjectIsReadAtOnce(t *testing.T) {
	bkt := bucket.NewMemory()
	log := buckettest.NewLog(bkt)
	index, want := remoteIndex(t, bkt, func(bucket.Reader) bucket.Reader { return log }, 60_000)
	for _, at := range []int64{59_900, 0, 30_000, 59_999} {
		n := min(50, index.Size()-at)
		if got, err := index.At(t.Context(), at, n); err != nil || !bytes.Equal(got, want[at:at+n]) {
			t.Errorf("%d bytes at %d: %d other ones (%v)", n, at, len(got), err)
		}
	}
	if got := log.Count(buckettest.GetRange); got != 1 {
		t.Errorf("got %d requests, want 1", got)
	}
}

func TestSparseReadingAsksForNothingMore(t *testing.T) {
	bkt := bucket.NewMemory()
	log := buckettest.NewLog(bkt)
	index, want := remoteIndexBy(t, bkt, func(bucket.Reader) bucket.Reader { return log }, 900_001, blockio.Sparse(2))
	for _, off := range []int64{0, 500_000, 500_100, 300_000} {
		got, err := index.At(t.Context(), off, 1000)
		if err != nil || !bytes.Equal(got, want[off:off+1000]) {
			t.Fatalf("at %d: %d bytes, %v", off, len(got), err)
		}
	}
	if n := log.Count(buckettest.GetRange); n != 3 {
		t.Errorf("got %d requests, want 3", n)
	}
}

func TestWhatWasReadStaysValid(t *testing.T) {
	index, want := remoteIndex(t, bucket.NewMemory(), plain, 500_000)
	var all []byte
	var parts [][]byte
	for off := 0; off < len(want); off += 1000 {
		part, err := index.At(t.Context(), int64(off), 1000)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, part)
	}
	index.Close()
	for _, p := range parts {
		all = append(all, p...)
	}
	if !bytes.Equal(all, want) {
		t.Error("the parts are not the whole")
	}
}

func TestBytesThatAnObjectLacksAreDamage(t *testing.T) {
	index, want := remoteIndex(t, bucket.NewMemory(), plain, 1000)
	for _, at := range [][2]int64{{-1, 1}, {0, 1001}, {1000, 1}, {1001, 0}, {5, -1}, {1, 1 << 62}} {
		if _, err := index.At(t.Context(), at[0], at[1]); !errors.Is(err, block.ErrCorrupt) {
			t.Errorf("%d bytes at %d of %d: got error %v, want %v", at[1], at[0], len(want), err, block.ErrCorrupt)
		}
	}
	if got, err := index.At(t.Context(), 1000, 0); err != nil || len(got) != 0 {
		t.Errorf("nothing at the end: got %d bytes and %v", len(got), err)
	}
}

// fickle is a bucket whose objects end early while broken.
type fickle struct {
	bucket.Reader

	broken *atomic.Bool
}

func (f fickle) GetRange(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	r, err := f.Reader.GetRange(ctx, name, off, n)
	if err == nil && f.broken.Load() {
		r = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(r, n/2), r}
	}
	return r, err
}

func TestABrokenAnswerIsAnErrorAndNotDamage(t *testing.T) {
	var broken atomic.Bool
	index, want := remoteIndex(t, bucket.NewMemory(), func(b bucket.Reader) bucket.Reader { return fickle{b, &broken} }, 500_000)
	broken.Store(true)
	if _, err := index.At(t.Context(), 0, 100); !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, block.ErrCorrupt) {
		t.Errorf("got error %v, want %v and no damage", err, io.ErrUnexpectedEOF)
	}
	broken.Store(false)
	if got, err := index.At(t.Context(), 0, 100); err != nil || !bytes.Equal(got, want[:100]) {
		t.Errorf("afterwards: got error %v, want the bytes", err)
	}
}

func TestReadingEndsWithItsContext(t *testing.T) {
	index, _ := remoteIndex(t, bucket.NewMemory(), plain, 500_000)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := index.At(ctx, 0, 100); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want %v", err, context.Canceled)
	}
}

func TestOpenNoticesWhatIsMissing(t *testing.T) {
	bkt := bucket.NewMemory()
	dir, _ := fixture(t)
	meta := blocktest.Upload(t, bkt, dir)
	meta.Thanos.Files = []block.File{{RelPath: "chunks/000009", SizeBytes: 4}}
	ahead := blockio.NewReadAhead(1, 1, 1)
	if _, err := blockio.Open(t.Context(), bkt, meta, ahead, ahead); !errors.Is(err, block.ErrCorrupt) {
		t.Errorf("got error %v, want %v", err, block.ErrCorrupt)
	}
}
