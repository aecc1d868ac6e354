package blockio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/bucket"
)

// ReadMeta reads the meta.json of a block in the bucket. The error is
// bucket.ErrNotFound for a block that is not complete, block.ErrCorrupt for a
// meta.json that cannot be used or belongs to another block.
func ReadMeta(ctx context.Context, bkt bucket.Reader, id ulid.ULID) (*block.Meta, error) {
	data, err := readAll(ctx, bkt, block.MetaName(id))
	if err != nil {
		return nil, err
	}
	m, err := block.ParseMeta(data)
	if err != nil {
		return nil, fmt.Errorf("block %s: %w", id, err)
	}
	if m.ULID != id {
		return nil, fmt.Errorf("block %s: its %s says that it is %s: %w", id, block.MetaFile, m.ULID, block.ErrCorrupt)
	}
	return m, nil
}

// maxSmall is the largest meta.json that is read. A meta.json of a
// block merged from a hundred thousand others has 8 MiB.
const maxSmall = 64 << 20

func readAll(ctx context.Context, bkt bucket.Reader, name string) (data []byte, err error) {
	r, err := bkt.Get(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	data, err = io.ReadAll(io.LimitReader(r, maxSmall+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > maxSmall {
		return nil, fmt.Errorf("read %s: more than %d bytes: %w", name, maxSmall, block.ErrCorrupt)
	}
	return data, nil
}

// Download brings a complete block into the local directory dir, which becomes
// the block's own: index and chunks first, meta.json last. Files that are there
// in their right size are not read again. A file that the block's meta.json
// lists and the bucket does not have in that size is block.ErrCorrupt.
func Download(ctx context.Context, bkt bucket.Reader, id ulid.ULID, dir string) (*block.Meta, error) {
	meta, err := download(ctx, bkt, id, dir)
	if err != nil {
		return nil, fmt.Errorf("download block %s to %s: %w", id, dir, err)
	}
	return meta, nil
}

func download(ctx context.Context, bkt bucket.Reader, id ulid.ULID, dir string) (*block.Meta, error) {
	meta, err := ReadMeta(ctx, bkt, id)
	if err != nil {
		return nil, err
	}
	sizes, err := Objects(ctx, bkt, id)
	if err != nil {
		return nil, err
	}
	if err := checkFiles(meta, sizes); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, block.ChunksDir), 0o750); err != nil {
		return nil, err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelFiles)
	for rel, size := range sizes {
		if isData(rel) {
			g.Go(func() error {
				return fetch(gctx, bkt, block.ObjectName(id, rel), filepath.Join(dir, filepath.FromSlash(rel)), size)
			})
		}
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	data, err := meta.Encode()
	if err != nil {
		return nil, err
	}
	return meta, os.WriteFile(filepath.Join(dir, block.MetaFile), data, 0o600)
}

// checkFiles compares what meta.json promises with what the listing found.
func checkFiles(meta *block.Meta, sizes map[string]int64) error {
	if _, ok := sizes[block.IndexFile]; !ok {
		return fmt.Errorf("the bucket has no %s: %w", block.IndexFile, block.ErrCorrupt)
	}
	for _, f := range meta.Thanos.Files {
		if !isData(f.RelPath) {
			continue
		}
		size, ok := sizes[f.RelPath]
		if !ok {
			return fmt.Errorf("the bucket has no %s: %w", f.RelPath, block.ErrCorrupt)
		}
		if f.SizeBytes != 0 && size != f.SizeBytes {
			return fmt.Errorf("%s has %d bytes, %s says %d: %w", f.RelPath, size, block.MetaFile, f.SizeBytes, block.ErrCorrupt)
		}
	}
	return nil
}

// fetch copies an object of known size into a file.
func fetch(ctx context.Context, bkt bucket.Reader, name, file string, size int64) (err error) {
	if info, err := os.Stat(file); err == nil && info.Size() == size {
		return nil
	}
	r, err := bkt.Get(ctx, name)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	n, err := io.Copy(f, r)
	if err != nil {
		return fmt.Errorf("copy %s to %s: %w", name, file, err)
	}
	if n != size {
		return fmt.Errorf("copy %s to %s: got %d bytes, the listing says %d", name, file, n, size)
	}
	return nil
}
