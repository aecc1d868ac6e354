package blockio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/bucket"
)

// ErrRaced says that somebody else completed an object while it was being
// written here. Whoever writes the block again finds out whether both meant the same.
var ErrRaced = errors.New("somebody else wrote this object meanwhile")

// Writing is a block on its way into a bucket while it is made. As with
// UploadOnce, every object is put only if it is absent, and one that is there must
// have the very same content: it is read and compared as its counterpart is made,
// else the error is ErrConflict. Its files are created by one goroutine and written side by side.
type Writing struct {
	bkt     objstore.Bucket
	id      ulid.ULID
	present map[string]int64
	files   []*WrittenFile
}

// Begin looks at what the bucket has of a block that is to be written.
func Begin(ctx context.Context, bkt objstore.Bucket, id ulid.ULID) (*Writing, error) {
	present, err := Objects(ctx, bkt, id)
	if err != nil {
		return nil, fmt.Errorf("begin block %s: %w", id, err)
	}
	return &Writing{bkt: bkt, id: id, present: present}, nil
}

// Create starts a file of the block, which is written from front to end. Its
// upload ends with ctx.
func (w *Writing) Create(ctx context.Context, rel string) *WrittenFile {
	name := block.ObjectName(w.id, rel)
	r, pipe := io.Pipe()
	ctx, cancel := context.WithCancel(ctx)
	f := &WrittenFile{rel: rel, pipe: pipe, cancel: cancel, done: make(chan struct{})}
	take := w.put
	if _, ok := w.present[rel]; ok {
		take = w.compare
	}
	go func() {
		defer close(f.done)
		f.err = take(ctx, name, r)
		r.CloseWithError(f.err) // which the next Write returns
	}()
	w.files = append(w.files, f)
	return f
}

func (w *Writing) put(ctx context.Context, name string, r io.Reader) error {
	err := bucket.UploadIfAbsent(ctx, w.bkt, name, r)
	if errors.Is(err, bucket.ErrExists) {
		return fmt.Errorf("put %s: %w", name, ErrRaced)
	}
	if err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	return nil
}

func (w *Writing) compare(ctx context.Context, name string, r io.Reader) (err error) {
	there, err := w.bkt.Get(ctx, name)
	if err != nil {
		return fmt.Errorf("compare %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, there.Close()) }()
	equal, err := sameBytes(there, r)
	if err != nil {
		return fmt.Errorf("compare %s: %w", name, err)
	}
	if !equal {
		return fmt.Errorf("compare %s: %w", name, ErrConflict)
	}
	return nil
}

// WrittenFile is an object that is being written.
type WrittenFile struct {
	rel    string
	size   int64
	pipe   *io.PipeWriter
	cancel context.CancelFunc
	done   chan struct{}
	err    error // of the other end, when it is done
}

// Write hands bytes on to the bucket.
func (f *WrittenFile) Write(b []byte) (int, error) {
	n, err := f.pipe.Write(b)
	f.size += int64(n)
	return n, err //nolint:wrapcheck // it is that of the upload, which names the object
}

// Close completes the object and waits for the bucket to have it.
func (f *WrittenFile) Close() error {
	_ = f.pipe.Close()
	<-f.done
	f.cancel()
	return f.err
}

// errAborted is what an upload reads that was given up.
var errAborted = errors.New("the writer gave up")

// Abort gives the object up and waits for its upload to end. An object that was complete stays.
func (f *WrittenFile) Abort() {
	f.pipe.CloseWithError(errAborted)
	f.cancel()
	<-f.done
}

// Commit makes the block complete when all its files are: it asks the bucket what
// it has, then puts meta.json made from meta with the files and their sizes.
func (w *Writing) Commit(ctx context.Context, meta *block.Meta) error {
	if err := w.commit(ctx, meta); err != nil {
		return fmt.Errorf("complete block %s: %w", w.id, err)
	}
	return nil
}

func (w *Writing) commit(ctx context.Context, meta *block.Meta) error {
	if err := uploadable(meta); err != nil {
		return err
	}
	files := w.Files()
	u := upload{bkt: w.bkt}
	u.put = func(ctx context.Context, name string, r io.Reader) error {
		return bucket.UploadIfAbsent(ctx, w.bkt, name, r)
	}
	if err := u.verify(ctx, meta, files); err != nil {
		return err
	}
	return u.commit(ctx, described(meta, files))
}

// Files are the files written so far, sorted by name, with their sizes.
func (w *Writing) Files() []block.File {
	files := make([]block.File, 0, len(w.files))
	for _, f := range w.files {
		files = append(files, block.File{RelPath: f.rel, SizeBytes: f.size})
	}
	slices.SortFunc(files, func(a, b block.File) int { return strings.Compare(a.RelPath, b.RelPath) })
	return files
}
