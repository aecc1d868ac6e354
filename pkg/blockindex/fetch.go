package blockindex

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"
)

// ranges is the part of a bucket that Fetch needs.
type ranges interface {
	GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error)
}

const (
	// fetchPart is how much of an index one request fetches.
	fetchPart = 8 << 20
	// fetchParallel is how many requests fetch one index.
	fetchParallel = 4
)

// Fetch copies an index of size bytes from a bucket to path, which appears
// complete or not at all. An object of another size is ErrCorrupt.
func Fetch(ctx context.Context, bkt ranges, object string, size int64, path string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".index-*")
	if err != nil {
		return fmt.Errorf("fetch %s: %w", object, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(fetchParallel)
	for off := int64(0); off < size; off += fetchPart {
		g.Go(func() error {
			return fetchRange(gctx, bkt, object, io.NewOffsetWriter(f, off), section{off, min(off+fetchPart, size)})
		})
	}
	if err := errors.Join(g.Wait(), f.Close()); err != nil {
		return fmt.Errorf("fetch %s: %w", object, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("fetch %s: %w", object, err)
	}
	return nil
}

// fetchRange writes one part of an object to w.
func fetchRange(ctx context.Context, bkt ranges, object string, w io.Writer, part section) (err error) {
	length := part.end - part.begin
	rc, err := bkt.GetRange(ctx, object, part.begin, length)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	n, err := io.Copy(w, rc)
	switch {
	case err != nil:
		return fmt.Errorf("read %d bytes at %d: %w", length, part.begin, err)
	case n != length:
		return corruptf("%d bytes at %d where the listing promises %d", n, part.begin, length)
	}
	return nil
}
