package bucket

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/thanos-io/objstore"
)

// Iter calls f for every name in dir, sorted.
func (b *filesystem) Iter(ctx context.Context, dir string, f func(string) error, options ...objstore.IterOption) error {
	return b.IterWithAttributes(ctx, dir, func(a objstore.IterObjectAttributes) error { return f(a.Name) }, options...)
}

// IterWithAttributes calls f for every name in dir, sorted, with the time of the
// last write when asked for; directories have none.
func (b *filesystem) IterWithAttributes(ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error, options ...objstore.IterOption) error {
	if err := objstore.ValidateIterOptions(b.SupportedIterOptions(), options...); err != nil {
		return fmt.Errorf("iterate %s: %w", dir, err)
	}
	params := objstore.ApplyIterOptions(options...)
	yield := func(name string, info fs.FileInfo) error {
		attrs := objstore.IterObjectAttributes{Name: name}
		if params.LastModified && info != nil {
			attrs.SetLastModified(info.ModTime())
		}
		return f(attrs)
	}
	dir = asDir(dir)
	if params.Recursive {
		return b.walk(ctx, dir, func(string) bool { return true }, yield)
	}
	names, err := b.readDir(ctx, dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, objstore.DirDelim) {
			if inside, err := b.readDir(ctx, name); err != nil || len(inside) == 0 {
				continue // emptied meanwhile: no object has this prefix
			}
			if err := yield(name, nil); err != nil {
				return err
			}
			continue
		}
		if err := b.yieldFile(name, yield); err != nil {
			return err
		}
	}
	return nil
}

// SupportedIterOptions returns all options there are.
func (b *filesystem) SupportedIterOptions() []objstore.IterOptionType {
	return []objstore.IterOptionType{objstore.Recursive, objstore.UpdatedAt}
}

// List walks the tree, leaving out the directories that cannot hold a name wanted.
func (b *filesystem) List(ctx context.Context, prefix, after string, fn func(Object) error) error {
	wanted := func(name string) bool {
		if strings.HasSuffix(name, objstore.DirDelim) { // some name below it may be wanted
			return (strings.HasPrefix(name, prefix) || strings.HasPrefix(prefix, name)) &&
				(name > after || strings.HasPrefix(after, name))
		}
		return strings.HasPrefix(name, prefix) && name > after
	}
	dir := prefix[:strings.LastIndex(prefix, objstore.DirDelim)+1]
	return b.walk(ctx, dir, wanted, func(name string, info fs.FileInfo) error {
		return fn(Object{Name: name, Size: info.Size(), LastModified: info.ModTime(), ETag: fileETag(info)})
	})
}

// walk yields the wanted objects below dir in byte order of their names.
func (b *filesystem) walk(ctx context.Context, dir string, wanted func(string) bool, yield func(string, fs.FileInfo) error) error {
	names, err := b.readDir(ctx, dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		switch {
		case !wanted(name):
			continue
		case strings.HasSuffix(name, objstore.DirDelim):
			err = b.walk(ctx, name, wanted, yield)
		default:
			err = b.yieldFile(name, yield)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readDir returns the names in a directory, those of directories ending in a
// slash, in the order in which a store lists them: "a-b" comes before "a/". An
// absent directory is empty.
func (b *filesystem) readDir(ctx context.Context, dir string) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	if dir != "" && !fs.ValidPath(strings.TrimSuffix(dir, objstore.DirDelim)) {
		return nil, nil // no object has such a prefix
	}
	entries, err := os.ReadDir(filepath.Join(b.root, filepath.FromSlash(dir)))
	if err != nil && !isAbsent(err) {
		return nil, fmt.Errorf("list %s: %w", dir, fileError(err))
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		switch {
		case dir == "" && e.Name() == ownDir:
		case e.IsDir():
			names = append(names, dir+e.Name()+objstore.DirDelim)
		default:
			names = append(names, dir+e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// yieldFile yields a file unless it was deleted since it was listed.
func (b *filesystem) yieldFile(name string, yield func(string, fs.FileInfo) error) error {
	info, err := os.Stat(filepath.Join(b.root, filepath.FromSlash(name)))
	if isAbsent(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", name, fileError(err))
	}
	return yield(name, info)
}
