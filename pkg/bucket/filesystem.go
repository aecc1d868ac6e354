package bucket

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/bucket/internal/contract"
)

var (
	_ objstore.Bucket = (*filesystem)(nil)
	_ Lister          = (*filesystem)(nil)
	_ Versioned       = (*filesystem)(nil)
)

const (
	// ownDir holds what is ours and no object: uploads under way and the lock.
	ownDir = ".varve"
	// staleUpload is the age from which an upload under way has lost its process.
	staleUpload = 24 * time.Hour
)

// filesystemConfig is the config section of type FILESYSTEM.
type filesystemConfig struct {
	Directory string `yaml:"directory"`
}

// filesystem is a bucket of plain files, laid out as objstore's provider does, so
// that both can share a directory. An object is written beside the tree and
// renamed into it under a lock that all Varve processes share; its ETag is made of
// its modification time, which rises with every write, and its size.
type filesystem struct {
	root string

	// mu orders the writers of this process, the file lock those of others.
	mu    sync.Mutex
	swept bool // uploads that other processes left behind have been looked for
}

func newFilesystem(c filesystemConfig) (*filesystem, error) {
	if c.Directory == "" {
		return nil, errors.New("directory is missing: name the directory that holds the objects")
	}
	root, err := filepath.Abs(c.Directory)
	if err != nil {
		return nil, fmt.Errorf("directory %s: %w", c.Directory, err)
	}
	if info, err := os.Stat(root); err == nil && !info.IsDir() {
		return nil, fmt.Errorf("directory %s is a file", root)
	}
	return &filesystem{root: root}, nil
}

// Provider returns objstore.FILESYSTEM.
func (b *filesystem) Provider() objstore.ObjProvider { return objstore.FILESYSTEM }

// Name returns the directory.
func (b *filesystem) Name() string { return b.root }

// Close does nothing.
func (b *filesystem) Close() error { return nil }

// Get returns a reader of an object.
func (b *filesystem) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return b.GetRange(ctx, name, 0, -1)
}

// GetRange returns a reader of a part of an object.
func (b *filesystem) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	return b.GetRangeIfMatch(ctx, name, "", off, length)
}

// GetRangeIfMatch is GetRange of an object that must have the given ETag, if one is given.
func (b *filesystem) GetRangeIfMatch(ctx context.Context, name, etag string, off, length int64) (io.ReadCloser, error) {
	if err := contract.CheckRange(name, off, length); err != nil {
		return nil, err
	}
	f, info, err := b.open(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if etag != "" && etag != fileETag(info) {
		err := contract.Mark(fmt.Errorf("read %s: it is not the version %s any more", name, etag), ErrChanged)
		return nil, errors.Join(err, f.Close())
	}
	rest := max(0, info.Size()-off)
	if length >= 0 {
		rest = min(rest, length)
	}
	part := io.NewSectionReader(f, off, rest)
	return sized(struct {
		io.Reader
		io.Closer
	}{contextReader{ctx, part}, f}, rest), nil
}

// GetVersion returns an object and its ETag.
func (b *filesystem) GetVersion(ctx context.Context, name string) (content []byte, etag string, err error) {
	f, info, err := b.open(ctx, name)
	if err != nil {
		return nil, "", fmt.Errorf("read %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if content, err = io.ReadAll(contextReader{ctx, f}); err != nil {
		return nil, "", fmt.Errorf("read %s: %w", name, err)
	}
	return content, fileETag(info), nil
}

// Exists reports whether there is an object of that name.
func (b *filesystem) Exists(ctx context.Context, name string) (bool, error) {
	_, err := b.stat(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for %s: %w", name, err)
	}
	return true, nil
}

// Attributes returns size and time of an object.
func (b *filesystem) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	info, err := b.stat(ctx, name)
	if err != nil {
		return objstore.ObjectAttributes{}, fmt.Errorf("look at %s: %w", name, err)
	}
	return objstore.ObjectAttributes{Size: info.Size(), LastModified: info.ModTime()}, nil
}

// Upload stores an object, replacing one of the same name.
func (b *filesystem) Upload(ctx context.Context, name string, r io.Reader, _ ...objstore.ObjectUploadOption) error {
	_, err := b.put(ctx, name, r, func(string) error { return nil })
	return err
}

// PutIfAbsent stores an object whose name must be free.
func (b *filesystem) PutIfAbsent(ctx context.Context, name string, r io.Reader) (string, error) {
	return b.put(ctx, name, r, mustBeAbsent)
}

// PutIfMatch replaces an object that must still have the given ETag.
func (b *filesystem) PutIfMatch(ctx context.Context, name string, content []byte, etag string) (string, error) {
	return b.put(ctx, name, bytes.NewReader(content), mustMatch(etag))
}

// Delete removes an object, if it is there, and the directories it leaves empty.
func (b *filesystem) Delete(ctx context.Context, name string) error {
	file, err := b.path(ctx, name)
	if err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	if err := b.locked(func() error { return b.remove(file) }); err != nil {
		return fmt.Errorf("delete %s: %w", name, fileError(err))
	}
	return nil
}

// remove removes a file, if it is there, and the directories it leaves empty. A
// directory is no object.
func (b *filesystem) remove(file string) error {
	if info, err := os.Lstat(file); err == nil && info.IsDir() {
		return nil
	}
	if err := os.Remove(file); err != nil && !isAbsent(err) {
		return err
	}
	for dir := filepath.Dir(file); dir != b.root; dir = filepath.Dir(dir) {
		if os.Remove(dir) != nil {
			break // not empty
		}
	}
	return nil //nolint:nilerr // an absent file is a removed one
}

// IsObjNotFoundErr reports whether err carries ErrNotFound.
func (b *filesystem) IsObjNotFoundErr(err error) bool { return errors.Is(err, ErrNotFound) }

// IsAccessDeniedErr reports whether err carries ErrAccessDenied.
func (b *filesystem) IsAccessDeniedErr(err error) bool { return errors.Is(err, ErrAccessDenied) }

// put stores what r holds if admit lets it, given the ETag of the version that is
// there, or "". It asks before the work and again, under the lock, before the
// rename.
func (b *filesystem) put(ctx context.Context, name string, r io.Reader, admit func(etag string) error) (etag string, err error) {
	file, err := b.path(ctx, name)
	if err != nil {
		return "", fmt.Errorf("upload %s: %w", name, err)
	}
	if _, err := b.admitted(file, admit); err != nil {
		return "", fmt.Errorf("upload %s: %w", name, err)
	}
	temp, err := b.spool(ctx, r)
	if err != nil {
		return "", fmt.Errorf("upload %s: %w", name, err)
	}
	defer os.Remove(temp)
	err = b.locked(func() error {
		etag, err = b.commit(temp, file, admit)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("upload %s: %w", name, err)
	}
	return etag, nil
}

// commit renames temp to file and returns its ETag. The caller holds the lock.
func (b *filesystem) commit(temp, file string, admit func(etag string) error) (string, error) {
	before, err := b.admitted(file, admit)
	if err != nil {
		return "", err
	}
	// The time must rise, or two versions of equal size could have the same ETag.
	modified := time.Now()
	if before != nil && !modified.After(before.ModTime()) {
		modified = before.ModTime().Add(time.Microsecond)
	}
	if err := os.Chtimes(temp, modified, modified); err != nil {
		return "", fileError(err)
	}
	info, err := os.Stat(temp)
	if err != nil {
		return "", fileError(err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
		return "", fileError(err)
	}
	if err := os.Rename(temp, file); err != nil {
		return "", fileError(err)
	}
	return fileETag(info), nil
}

// admitted asks admit about the version that is there and returns it, or nil.
func (b *filesystem) admitted(file string, admit func(etag string) error) (fs.FileInfo, error) {
	info, err := os.Stat(file)
	switch {
	case isAbsent(err):
		return nil, admit("")
	case err != nil:
		return nil, fileError(err)
	case info.IsDir():
		return nil, fmt.Errorf("%s is a directory: an object cannot stand where others have their prefix", file)
	}
	return info, admit(fileETag(info))
}

// spool writes r to a file of its own, synced, and returns its path.
func (b *filesystem) spool(ctx context.Context, r io.Reader) (path string, err error) {
	own := filepath.Join(b.root, ownDir)
	if err := os.MkdirAll(own, 0o777); err != nil {
		return "", fileError(err)
	}
	b.sweep(own)
	path = filepath.Join(own, "upload-"+rand.Text())
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return "", fileError(err)
	}
	_, err = io.Copy(f, contextReader{ctx, r})
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(path))
	}
	return path, nil
}

// sweep removes, once, the uploads that ended with their process. What it cannot
// remove takes space and does no other harm.
func (b *filesystem) sweep(own string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.swept {
		return
	}
	b.swept = true
	left, _ := filepath.Glob(filepath.Join(own, "upload-*")) // the pattern is well-formed
	for _, path := range left {
		if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) > staleUpload {
			_ = os.Remove(path)
		}
	}
}

// locked runs change while no other writer, in any process, is in the tree.
func (b *filesystem) locked(change func() error) (err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	own := filepath.Join(b.root, ownDir)
	if err := os.MkdirAll(own, 0o777); err != nil {
		return fileError(err)
	}
	f, err := os.OpenFile(filepath.Join(own, "lock"), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return fileError(err)
	}
	defer func() { err = errors.Join(err, f.Close()) }() // closing releases the lock
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return change()
}

// open opens an object for reading. What it opened stays readable when another
// version takes its place.
func (b *filesystem) open(ctx context.Context, name string) (*os.File, fs.FileInfo, error) {
	path, err := b.path(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fileError(err)
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = contract.Mark(fmt.Errorf("%s is a directory", path), ErrNotFound)
	}
	if err != nil {
		return nil, nil, errors.Join(fileError(err), f.Close())
	}
	return f, info, nil
}

func (b *filesystem) stat(ctx context.Context, name string) (fs.FileInfo, error) {
	path, err := b.path(ctx, name)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fileError(err)
	}
	if info.IsDir() {
		return nil, contract.Mark(fmt.Errorf("%s is a directory", path), ErrNotFound)
	}
	return info, nil
}

// path returns the file of an object. Names that a file tree cannot hold as they
// are, or that lead out of it, are refused.
func (b *filesystem) path(ctx context.Context, name string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if name == "." || !fs.ValidPath(name) || strings.ContainsAny(name, "\x00") || firstPart(name) == ownDir {
		return "", fmt.Errorf("%q cannot be a file below %s", name, b.root)
	}
	return filepath.Join(b.root, filepath.FromSlash(name)), nil
}

func firstPart(name string) string {
	first, _, _ := strings.Cut(name, objstore.DirDelim)
	return first
}

func fileETag(info fs.FileInfo) string {
	return strconv.FormatInt(info.ModTime().UnixNano(), 36) + "-" + strconv.FormatInt(info.Size(), 36)
}

// fileError marks an error of the operating system.
func fileError(err error) error {
	switch {
	case isAbsent(err):
		return contract.Mark(err, ErrNotFound)
	case errors.Is(err, fs.ErrPermission):
		return contract.Mark(err, ErrAccessDenied)
	}
	return err
}

// isAbsent also knows a path that leads through a file.
func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}
