package blockio

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/bucket"
)

// ErrConflict says that the bucket holds other content under a name that was to
// be written once. The block cannot be completed; its job starts over with
// another block.Output.Attempt.
var ErrConflict = errors.New("the bucket holds other content under this name")

// Upload puts a local block into the bucket: chunks and index, then, when the
// bucket has them in their right sizes, meta.json made from meta with the files
// and their sizes. meta.Thanos.UploadTime must be set and be the present time;
// meta itself stays as it is. Objects that an earlier attempt left in their
// right size are not sent again, and a block that is complete is left alone.
//
// It is for blocks that have one author, whose files never change under their
// ULID: those that a Prometheus cut.
func Upload(ctx context.Context, bkt objstore.Bucket, dir string, meta *block.Meta) error {
	u := upload{bkt: bkt, dir: dir}
	u.put = func(ctx context.Context, name string, r io.Reader) error { return bkt.Upload(ctx, name, r) }
	u.found = func(context.Context, string, string) error { return nil }
	if err := u.run(ctx, meta); err != nil {
		return fmt.Errorf("upload block %s: %w", meta.ULID, err)
	}
	return nil
}

// UploadOnce is Upload for blocks that several compactors may write at the same
// time under one deterministic ULID: every object is put only if it is absent,
// and one that is there must have the very same content, else the error is ErrConflict.
func UploadOnce(ctx context.Context, bkt objstore.Bucket, dir string, meta *block.Meta) error {
	u := upload{bkt: bkt, dir: dir}
	u.put = func(ctx context.Context, name string, r io.Reader) error {
		return bucket.UploadIfAbsent(ctx, bkt, name, r)
	}
	u.found = func(ctx context.Context, name, file string) error { return sameContent(ctx, bkt, name, file) }
	if err := u.run(ctx, meta); err != nil {
		return fmt.Errorf("upload block %s: %w", meta.ULID, err)
	}
	return nil
}

// upload is one way to bring a local block into a bucket.
type upload struct {
	bkt objstore.Bucket
	dir string
	// put writes an object; with bucket.ErrExists somebody else has.
	put func(ctx context.Context, name string, r io.Reader) error
	// found judges an object of the right size that is there already, beside the local file.
	found func(ctx context.Context, name, file string) error
}

func (u upload) run(ctx context.Context, meta *block.Meta) error {
	if err := uploadable(meta); err != nil {
		return err
	}
	files, err := dataFiles(u.dir)
	if err != nil {
		return fmt.Errorf("look at local files: %w", err)
	}
	full := described(meta, files)

	present, err := Objects(ctx, u.bkt, meta.ULID)
	if err != nil {
		return err
	}
	if _, complete := present[block.MetaFile]; complete {
		return u.agree(ctx, full)
	}
	if err := u.data(ctx, full, files, present); err != nil {
		return err
	}
	if err := u.verify(ctx, full, files); err != nil {
		return err
	}
	return u.commit(ctx, full)
}

// uploadable says why a block must not reach a bucket.
func uploadable(meta *block.Meta) error {
	if meta.Labels().IsEmpty() {
		return errors.New("it has no external labels, by which blocks of different producers are told apart; set global.external_labels in Prometheus")
	}
	if meta.Thanos.UploadTime.IsZero() {
		return errors.New("its upload time is not set")
	}
	return nil
}

// data puts all files but meta.json.
func (u upload) data(ctx context.Context, meta *block.Meta, files []block.File, present map[string]int64) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelFiles)
	for _, f := range files {
		g.Go(func() error {
			name, file := block.ObjectName(meta.ULID, f.RelPath), filepath.Join(u.dir, filepath.FromSlash(f.RelPath))
			if size, ok := present[f.RelPath]; ok && size == f.SizeBytes {
				return u.found(ctx, name, file)
			}
			err := u.file(ctx, name, file)
			if errors.Is(err, bucket.ErrExists) {
				return u.found(ctx, name, file)
			}
			return err
		})
	}
	return g.Wait()
}

func (u upload) file(ctx context.Context, name, file string) (err error) {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := u.put(ctx, name, f); err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	return nil
}

// verify asks the bucket what it has before meta.json vouches for it.
func (u upload) verify(ctx context.Context, meta *block.Meta, files []block.File) error {
	present, err := Objects(ctx, u.bkt, meta.ULID)
	if err != nil {
		return err
	}
	for _, f := range files {
		if size, ok := present[f.RelPath]; !ok || size != f.SizeBytes {
			return fmt.Errorf("verify %s: the bucket has %d bytes (present: %t), the local file %d: %w", f.RelPath, size, ok, f.SizeBytes, ErrConflict)
		}
		delete(present, f.RelPath)
	}
	for rel := range present {
		if isData(rel) {
			return fmt.Errorf("verify %s: the block has no such file: %w", rel, ErrConflict)
		}
	}
	return nil
}

// commit puts meta.json. Whoever comes second must have meant the same.
func (u upload) commit(ctx context.Context, meta *block.Meta) error {
	data, err := meta.Encode()
	if err != nil {
		return err
	}
	err = u.put(ctx, block.MetaName(meta.ULID), bytes.NewReader(data))
	if errors.Is(err, bucket.ErrExists) {
		return u.agree(ctx, meta)
	}
	if err != nil {
		return fmt.Errorf("put %s: %w", block.MetaFile, err)
	}
	return nil
}

// agree reports whether the meta.json in the bucket stands for the same files.
// The time of its upload may be another.
func (u upload) agree(ctx context.Context, meta *block.Meta) error {
	there, err := ReadMeta(ctx, u.bkt, meta.ULID)
	if err != nil {
		return err
	}
	sameFile := func(a, b block.File) bool { return a.RelPath == b.RelPath && a.SizeBytes == b.SizeBytes }
	// Writers other than this program may have listed nothing, or more.
	if len(there.Thanos.Files) > 0 && !slices.EqualFunc(there.Thanos.Files, meta.Thanos.Files, sameFile) {
		return fmt.Errorf("it is complete with other files (%v, here %v): %w", there.Thanos.Files, meta.Thanos.Files, ErrConflict)
	}
	return nil
}

// sameContent compares an object with a local file byte by byte. It is asked
// only where an earlier or a parallel attempt wrote the object, which is rare
// enough to pay one read for certainty.
func sameContent(ctx context.Context, bkt bucket.Reader, name, file string) (err error) {
	remote, err := bkt.Get(ctx, name)
	if err != nil {
		return fmt.Errorf("compare %s with %s: %w", name, file, err)
	}
	defer func() { err = errors.Join(err, remote.Close()) }()
	local, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("compare %s with %s: %w", name, file, err)
	}
	defer func() { err = errors.Join(err, local.Close()) }()

	equal, err := sameBytes(remote, local)
	if err != nil {
		return fmt.Errorf("compare %s with %s: %w", name, file, err)
	}
	if !equal {
		return fmt.Errorf("compare %s with %s: %w", name, file, ErrConflict)
	}
	return nil
}

func sameBytes(a, b io.Reader) (bool, error) {
	const size = 64 << 10
	bufA, bufB := make([]byte, size), make([]byte, size)
	for {
		n, errA := io.ReadFull(a, bufA)
		m, errB := io.ReadFull(b, bufB)
		if !bytes.Equal(bufA[:n], bufB[:m]) {
			return false, errors.Join(beyondEnd(errA), beyondEnd(errB))
		}
		if errA != nil || errB != nil { // at the end of both, if neither is broken
			return true, errors.Join(beyondEnd(errA), beyondEnd(errB))
		}
	}
}

// beyondEnd drops the errors with which io.ReadFull says that a stream ended.
func beyondEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}
