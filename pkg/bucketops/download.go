package bucketops

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"golang.org/x/sync/errgroup"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/bucket"
)

// parallelFiles is how many objects of one block travel at a time.
const parallelFiles = 4

// isData reports whether an object of a block holds index or chunks.
func isData(rel string) bool {
	n, err := strconv.Atoi(path.Base(rel))
	return rel == block.IndexFile || err == nil && rel == block.SegmentFile(n)
}

// size is how many bytes of index and chunks a block has.
func size(e *block.Entry) (n int64) {
	for rel, bytes := range e.Objects {
		if isData(rel) {
			n += bytes
		}
	}
	return n
}

// download brings what there is of a block's index and chunks into a directory.
// It is no error that something is not there: whoever reads the block finds that.
func (o *Operator) download(ctx context.Context, e *block.Entry, dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, block.ChunksDir), 0o755); err != nil {
		return err
	}
	meter := newMeter(o.progress, "download "+e.Meta.ULID.String(), size(e))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelFiles)
	for rel := range e.Objects {
		if isData(rel) {
			g.Go(func() error {
				err := fetchFile(ctx, o.bkt, block.ObjectName(e.Meta.ULID, rel), filepath.Join(dir, filepath.FromSlash(rel)), meter)
				if errors.Is(err, bucket.ErrNotFound) {
					return nil
				}
				return err
			})
		}
	}
	return g.Wait()
}

func fetchFile(ctx context.Context, bkt bucket.Reader, name, file string, meter io.Writer) (err error) {
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
	if _, err := io.Copy(f, io.TeeReader(r, meter)); err != nil {
		return fmt.Errorf("copy %s to %s: %w", name, file, err)
	}
	return nil
}
