package sidecar

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/block"
)

// stagingDir, below Prometheus' data directory, holds hard links to the block
// that is being uploaded, so that Prometheus can delete its own meanwhile.
const stagingDir = "thanos/upload"

// localBlock is a finished block on disk.
type localBlock struct {
	dir  string
	meta *block.Meta
}

// localBlocks lists the blocks in a directory by their ULIDs, oldest first. One
// whose meta.json cannot be read is an error of its own, and the others go on.
func localBlocks(dir string) (blocks []localBlock, ids []ulid.ULID, errs []error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, []error{fmt.Errorf("list local blocks: %w", err)}
	}
	for _, e := range entries { // sorted by name, which is by time
		id, err := ulid.ParseStrict(e.Name())
		if err != nil || !e.IsDir() {
			continue
		}
		ids = append(ids, id)
		b, err := openLocal(filepath.Join(dir, e.Name()), id)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		blocks = append(blocks, b)
	}
	return blocks, ids, errs
}

func openLocal(dir string, id ulid.ULID) (localBlock, error) {
	data, err := os.ReadFile(filepath.Join(dir, block.MetaFile))
	if err != nil {
		return localBlock{}, fmt.Errorf("read local block %s: %w", id, err)
	}
	meta, err := block.ParseMeta(data)
	if err != nil {
		return localBlock{}, fmt.Errorf("read local block %s: %w", id, err)
	}
	if meta.ULID != id {
		return localBlock{}, fmt.Errorf("read local block %s: its meta.json says that it is %s: %w", id, meta.ULID, block.ErrCorrupt)
	}
	return localBlock{dir: dir, meta: meta}, nil
}

// stage links a block's data files into the staging directory and writes its
// meta.json there last, with the external labels of now. It can be repeated, and
// a block that is staged already keeps its links.
func stage(b localBlock, staging string, external labels.Labels, now time.Time) (localBlock, error) {
	staged := localBlock{dir: filepath.Join(staging, b.meta.ULID.String()), meta: augmented(b.meta, external, now)}
	if staged.dir != b.dir {
		if err := linkBlock(b.dir, staged.dir); err != nil {
			return localBlock{}, fmt.Errorf("link block %s for upload: %w; --tsdb.path must be writable", b.meta.ULID, err)
		}
	}
	data, err := staged.meta.Encode()
	if err != nil {
		return localBlock{}, fmt.Errorf("stage block %s: %w", b.meta.ULID, err)
	}
	if err := replaceFile(filepath.Join(staged.dir, block.MetaFile), data); err != nil {
		return localBlock{}, fmt.Errorf("stage block %s: %w", b.meta.ULID, err)
	}
	return staged, nil
}

// augmented is Prometheus' meta with what tells blocks of many producers apart.
func augmented(m *block.Meta, external labels.Labels, now time.Time) *block.Meta {
	out := *m
	out.Compaction.Sources = slices.Clone(m.Compaction.Sources)
	out.Thanos = block.Thanos{
		Version:    1,
		Labels:     external.Map(),
		Downsample: block.Downsample{Resolution: block.Raw},
		Source:     block.SourceSidecar,
		Extensions: m.Thanos.Extensions,
		UploadTime: now.UTC(),
	}
	return &out
}

// linkBlock links index and chunks of a block into a directory of their own.
// What a crash left there goes first: links may be missing.
func linkBlock(from, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(to, block.ChunksDir), 0o777); err != nil {
		return err
	}
	segments, err := os.ReadDir(filepath.Join(from, block.ChunksDir))
	if err != nil {
		return err
	}
	names := []string{block.IndexFile}
	for _, s := range segments {
		if !strings.HasSuffix(s.Name(), ".tmp") {
			names = append(names, filepath.Join(block.ChunksDir, s.Name()))
		}
	}
	for _, name := range names {
		if err := os.Link(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
			return err
		}
	}
	return nil
}
