package blockio

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/bucket"
)

// parallelFiles is how many objects of one block travel at a time. A block has
// one index and a segment for each 512 MiB of chunks; the bucket itself splits
// a large object into parallel parts.
const parallelFiles = 4

// isData reports whether an object, named relative to its block's directory,
// holds index or chunks: all that is uploaded and downloaded besides meta.json.
func isData(rel string) bool {
	if rel == block.IndexFile {
		return true
	}
	dir, base := path.Split(rel)
	return dir == block.ChunksDir+"/" && base != "" && !strings.HasPrefix(base, ".")
}

// dataFiles gives the data files of a local block, sorted by name, with their sizes.
func dataFiles(dir string) ([]block.File, error) {
	segments, err := os.ReadDir(filepath.Join(dir, block.ChunksDir))
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(segments)+1)
	for _, s := range segments { // sorted, and before "index"
		names = append(names, path.Join(block.ChunksDir, s.Name()))
	}
	var files []block.File
	for _, rel := range append(names, block.IndexFile) {
		if !isData(rel) {
			continue
		}
		info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(rel)))
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%s is not a regular file", filepath.Join(dir, rel))
		}
		files = append(files, block.File{RelPath: rel, SizeBytes: info.Size()})
	}
	return files, nil
}

// described gives a copy of the meta that lists the files as meta.json in a bucket does.
func described(meta *block.Meta, files []block.File) *block.Meta {
	m := *meta
	m.Thanos.Version = 1
	m.Thanos.SegmentFiles = nil
	m.Thanos.Files = append(slices.Clip(files), block.File{RelPath: block.MetaFile})
	for _, f := range files {
		if dir, base := path.Split(f.RelPath); dir != "" {
			m.Thanos.SegmentFiles = append(m.Thanos.SegmentFiles, base)
		}
	}
	return &m
}

// Objects gives the sizes of a block's objects in the bucket by relative name, directory markers included.
func Objects(ctx context.Context, bkt bucket.Reader, id ulid.ULID) (map[string]int64, error) {
	sizes := map[string]int64{}
	err := bucket.List(ctx, bkt, block.ObjectName(id, ""), "", func(o bucket.Object) error {
		if _, rel, ok := block.ParseName(o.Name); ok {
			sizes[rel] = o.Size
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list objects of block %s: %w", id, err)
	}
	return sizes, nil
}
