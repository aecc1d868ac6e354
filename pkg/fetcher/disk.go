package fetcher

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/bucket"
)

// The copies on disk are meta.json files as they came, each named by its block
// and the version of the object, so that a name alone says whether it is good.
// They are a convenience: whatever goes wrong with them is logged and the
// bucket is read instead.

// cacheName is the name of the copy of one version of a block's meta.json.
func cacheName(id ulid.ULID, o bucket.Object) string {
	sum := sha256.Sum256([]byte(version(o)))
	return fmt.Sprintf("%s-%x.json", id, sum[:8])
}

// fromDisk gives the meta of which there is a copy, or nil.
func (f *Fetcher) fromDisk(id ulid.ULID, o bucket.Object) *block.Meta {
	if f.opts.CacheDir == "" {
		return nil
	}
	data, err := os.ReadFile(filepath.Join(f.opts.CacheDir, cacheName(id, o)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var meta *block.Meta
	if err == nil {
		meta, err = parseMeta(id, data)
	}
	if err != nil { // a crash of the machine can leave an empty file
		f.log.Warn("copy of a meta.json ignored", "block", id, "err", err)
		return nil
	}
	return meta
}

// toDisk keeps a copy for the next start.
func (f *Fetcher) toDisk(id ulid.ULID, o bucket.Object, data []byte) {
	if f.opts.CacheDir == "" {
		return
	}
	if err := writeFile(f.opts.CacheDir, cacheName(id, o), data); err != nil {
		f.log.Warn("no copy of a meta.json kept", "block", id, "err", err)
	}
}

// writeFile writes a file that is whole or not there.
func writeFile(dir, name string, data []byte) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".meta-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // a no-op after the rename
	_, err = tmp.Write(data)
	if err := errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), filepath.Join(dir, name))
}

// prune removes the copies of what the bucket no longer has.
func (f *Fetcher) prune(dirs map[ulid.ULID]*directory) {
	if f.opts.CacheDir == "" {
		return
	}
	entries, err := os.ReadDir(f.opts.CacheDir)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	for _, e := range entries {
		name := e.Name()
		if len(name) <= ulid.EncodedSize || filepath.Ext(name) != ".json" {
			continue
		}
		id, parseErr := ulid.ParseStrict(name[:ulid.EncodedSize])
		if parseErr != nil {
			continue // not ours
		}
		dir := dirs[id]
		if dir != nil {
			if o, ok := dir.small[block.MetaFile]; ok && cacheName(id, o) == name {
				continue
			}
		}
		err = errors.Join(err, os.Remove(filepath.Join(f.opts.CacheDir, name)))
	}
	if err != nil {
		f.log.Warn("old copies of meta.json not removed", "dir", f.opts.CacheDir, "err", err)
	}
}
