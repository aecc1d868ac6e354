package fetcher

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/oklog/ulid/v2"
)

// copies are meta.json files and marks on local disk, as they came. Each is named
// by its block and the version of its object, so that a name alone says whether it
// is good. They are a convenience: whatever goes wrong with them is logged and the
// bucket is read instead. The zero value keeps none.
type copies struct {
	dir   string
	names map[string]bool // of the files, as the last prune left them; nil before load
}

// copyName is the name of the copy of one version of an object.
func copyName(id ulid.ULID, c *content) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %d %d", c.rel, c.version.etag, c.version.size, c.version.modified))
	return fmt.Sprintf("%s-%x.json", id, sum[:8])
}

// load looks once at what an earlier process left.
func (c *copies) load() error {
	if c.dir == "" || c.names != nil {
		return nil
	}
	c.names = map[string]bool{}
	entries, err := os.ReadDir(c.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		c.names[e.Name()] = true
	}
	return nil
}

// ids are the blocks of which there is a copy, in no order.
func (c *copies) ids() []ulid.ULID {
	var ids []ulid.ULID
	for name := range c.names {
		if id, ok := ownerOf(name); ok {
			ids = append(ids, id)
		}
	}
	return ids
}

// ownerOf tells the block from the name of a copy.
func ownerOf(name string) (ulid.ULID, bool) {
	id, rest, _ := strings.Cut(name, "-")
	parsed, err := ulid.ParseStrict(id)
	return parsed, err == nil && filepath.Ext(rest) == ".json"
}

// read gives a copy, or nil if there is none.
func (c *copies) read(name string) ([]byte, error) {
	if !c.names[name] {
		return nil, nil
	}
	return os.ReadFile(filepath.Join(c.dir, name))
}

// write keeps a copy for the next start: it is whole or not there.
func (c *copies) write(name string, data []byte) error {
	if c.dir == "" {
		return nil
	}
	if err := os.MkdirAll(c.dir, 0o750); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(c.dir, tmpPrefix)
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // a no-op after the rename
	_, err = tmp.Write(data)
	if err := errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), filepath.Join(c.dir, name))
}

// tmpPrefix is that of files that a crash can leave behind.
const tmpPrefix = ".meta-"

// prune removes the copies of what the bucket no longer has, and nothing that is not ours.
func (c *copies) prune(dirs map[ulid.ULID]*directory) error {
	if c.dir == "" {
		return nil
	}
	wanted := make(map[string]bool, len(dirs))
	for id, dir := range dirs {
		for i := range dir.small {
			wanted[copyName(id, &dir.small[i])] = true
		}
	}
	var errs []error
	for name := range c.names {
		if _, ours := ownerOf(name); wanted[name] || !ours && !strings.HasPrefix(name, tmpPrefix) {
			continue
		}
		if err := os.Remove(filepath.Join(c.dir, name)); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	c.names = wanted
	return errors.Join(errs...)
}

// fromDisk gives the copy of what a block's directory lists, or nil.
func (f *Fetcher) fromDisk(id ulid.ULID, c *content) *content {
	data, err := f.copies.read(copyName(id, c))
	if data == nil && err == nil {
		return nil
	}
	var parsed content
	if err == nil {
		parsed = f.parse(id, c, data)
		err = parsed.err
	}
	if err != nil { // a crash of the machine can leave an empty file
		f.log.Warn("local copy ignored", "block", id, "object", c.rel, "err", err)
		return nil
	}
	return &parsed
}

// toDisk keeps a copy for the next start.
func (f *Fetcher) toDisk(id ulid.ULID, c *content, data []byte) {
	if err := f.copies.write(copyName(id, c), data); err != nil {
		f.log.Warn("no local copy kept", "block", id, "object", c.rel, "err", err)
	}
}
