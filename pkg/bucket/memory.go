package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/bucket/internal/contract"
)

var (
	_ objstore.Bucket = (*Memory)(nil)
	_ Lister          = (*Memory)(nil)
	_ Versioned       = (*Memory)(nil)
)

// Memory is a bucket in memory, with every capability. It is safe for concurrent
// use; its content ends with it.
type Memory struct {
	mu      sync.RWMutex
	objects map[string]memoryObject
	version int64
}

// memoryObject is never changed, only replaced: readers keep its content.
type memoryObject struct {
	content  []byte
	etag     string
	modified time.Time
}

// NewMemory returns an empty bucket in memory.
func NewMemory() *Memory { return &Memory{objects: map[string]memoryObject{}} }

// SetLastModified changes the time at which an object seems to be written last,
// and reports whether there is one of that name.
func (m *Memory) SetLastModified(name string, at time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	o, ok := m.objects[name]
	if ok {
		o.modified = at
		m.objects[name] = o
	}
	return ok
}

// Provider returns objstore.MEMORY.
func (m *Memory) Provider() objstore.ObjProvider { return objstore.MEMORY }

// Name returns "memory".
func (m *Memory) Name() string { return "memory" }

// Close does nothing.
func (m *Memory) Close() error { return nil }

// Iter calls f for every name in dir, sorted.
func (m *Memory) Iter(ctx context.Context, dir string, f func(string) error, options ...objstore.IterOption) error {
	return m.IterWithAttributes(ctx, dir, func(a objstore.IterObjectAttributes) error { return f(a.Name) }, options...)
}

// IterWithAttributes calls f for every name in dir, sorted, with the time of the
// last write when asked for; directories have none.
func (m *Memory) IterWithAttributes(ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error, options ...objstore.IterOption) error {
	if err := objstore.ValidateIterOptions(m.SupportedIterOptions(), options...); err != nil {
		return fmt.Errorf("iterate %s: %w", dir, err)
	}
	params := objstore.ApplyIterOptions(options...)
	dir = asDir(dir)
	last := "" // names arrive sorted, so those of one directory are neighbours
	return m.List(ctx, dir, "", func(o Object) error {
		attrs := objstore.IterObjectAttributes{Name: o.Name}
		if params.LastModified {
			attrs.SetLastModified(o.LastModified)
		}
		if i := strings.Index(o.Name[len(dir):], objstore.DirDelim); i >= 0 && !params.Recursive {
			attrs = objstore.IterObjectAttributes{Name: o.Name[:len(dir)+i+1]}
		}
		if o.Name == dir || attrs.Name == last {
			return nil
		}
		last = attrs.Name
		return f(attrs)
	})
}

// SupportedIterOptions returns all options there are.
func (m *Memory) SupportedIterOptions() []objstore.IterOptionType {
	return []objstore.IterOptionType{objstore.Recursive, objstore.UpdatedAt}
}

// List lists the objects that are there when it is called.
func (m *Memory) List(ctx context.Context, prefix, after string, fn func(Object) error) error {
	m.mu.RLock()
	objects := maps.Clone(m.objects)
	m.mu.RUnlock()
	for _, name := range slices.Sorted(maps.Keys(objects)) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
		if !strings.HasPrefix(name, prefix) || name <= after {
			continue
		}
		o := objects[name]
		if err := fn(Object{Name: name, Size: int64(len(o.content)), LastModified: o.modified, ETag: o.etag}); err != nil {
			return err
		}
	}
	return nil
}

// Get returns a reader of an object.
func (m *Memory) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return m.GetRange(ctx, name, 0, -1)
}

// GetRange returns a reader of a part of an object.
func (m *Memory) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	return m.GetRangeIfMatch(ctx, name, "", off, length)
}

// GetRangeIfMatch is GetRange of an object that must have the given ETag, if one is given.
func (m *Memory) GetRangeIfMatch(ctx context.Context, name, etag string, off, length int64) (io.ReadCloser, error) {
	if err := contract.CheckRange(name, off, length); err != nil {
		return nil, err
	}
	o, err := m.object(ctx, "read", name)
	if err != nil {
		return nil, err
	}
	if etag != "" && etag != o.etag {
		return nil, contract.Mark(fmt.Errorf("read %s: it is not the version %s any more", name, etag), ErrChanged)
	}
	content := o.content[min(off, int64(len(o.content))):]
	if length >= 0 {
		content = content[:min(length, int64(len(content)))]
	}
	return sized(io.NopCloser(bytes.NewReader(content)), int64(len(content))), nil
}

// GetVersion returns a copy of an object and its ETag.
func (m *Memory) GetVersion(ctx context.Context, name string) (content []byte, etag string, err error) {
	o, err := m.object(ctx, "read", name)
	return bytes.Clone(o.content), o.etag, err
}

// Exists reports whether there is an object of that name.
func (m *Memory) Exists(ctx context.Context, name string) (bool, error) {
	_, err := m.object(ctx, "look for", name)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Attributes returns size and time of an object.
func (m *Memory) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	o, err := m.object(ctx, "look at", name)
	return objstore.ObjectAttributes{Size: int64(len(o.content)), LastModified: o.modified}, err
}

// Upload stores an object, replacing one of the same name.
func (m *Memory) Upload(ctx context.Context, name string, r io.Reader, _ ...objstore.ObjectUploadOption) error {
	_, err := m.put(ctx, name, r, func(string) error { return nil })
	return err
}

// PutIfAbsent stores an object whose name must be free.
func (m *Memory) PutIfAbsent(ctx context.Context, name string, r io.Reader) (string, error) {
	return m.put(ctx, name, r, mustBeAbsent)
}

// PutIfMatch replaces an object that must still have the given ETag.
func (m *Memory) PutIfMatch(ctx context.Context, name string, content []byte, etag string) (string, error) {
	return m.put(ctx, name, bytes.NewReader(content), mustMatch(etag))
}

// Delete removes an object, if it is there.
func (m *Memory) Delete(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, name)
	return nil
}

// IsObjNotFoundErr reports whether err carries ErrNotFound.
func (m *Memory) IsObjNotFoundErr(err error) bool { return errors.Is(err, ErrNotFound) }

// IsAccessDeniedErr reports whether err carries ErrAccessDenied.
func (m *Memory) IsAccessDeniedErr(err error) bool { return errors.Is(err, ErrAccessDenied) }

func (m *Memory) object(ctx context.Context, verb, name string) (memoryObject, error) {
	if err := ctx.Err(); err != nil {
		return memoryObject{}, fmt.Errorf("%s %s: %w", verb, name, err)
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	o, ok := m.objects[name]
	if !ok {
		return memoryObject{}, fmt.Errorf("%s %s: %w", verb, name, ErrNotFound)
	}
	return o, nil
}

// put stores what r holds if admit lets it, given the ETag of the version that is
// there, or "".
func (m *Memory) put(ctx context.Context, name string, r io.Reader, admit func(etag string) error) (string, error) {
	if name == "" {
		return "", errors.New("upload: the object has no name")
	}
	content, err := io.ReadAll(contextReader{ctx, r})
	if err != nil {
		return "", fmt.Errorf("upload %s: read the content: %w", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := admit(m.objects[name].etag); err != nil {
		return "", fmt.Errorf("upload %s: %w", name, err)
	}
	m.version++
	etag := "v" + strconv.FormatInt(m.version, 10)
	m.objects[name] = memoryObject{content: content, etag: etag, modified: time.Now()}
	return etag, nil
}

// mustBeAbsent admits a put where no version is.
func mustBeAbsent(etag string) error {
	if etag != "" {
		return ErrExists
	}
	return nil
}

// mustMatch admits a put over one version alone.
func mustMatch(want string) func(etag string) error {
	return func(etag string) error {
		if etag != want || etag == "" {
			return ErrChanged
		}
		return nil
	}
}

// contextReader ends with the context, between two reads.
type contextReader struct {
	ctx context.Context //nolint:containedctx // lives no longer than the call that made it
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p) //nolint:wrapcheck // io.EOF must stay io.EOF
}

// sized tells the readers of rc how long it is.
func sized(rc io.ReadCloser, size int64) io.ReadCloser {
	return objstore.ObjectSizerReadCloser{ReadCloser: rc, Size: func() (int64, error) { return size, nil }}
}

// asDir gives a directory its trailing slash; the root has none.
func asDir(dir string) string {
	if dir == "" || strings.HasSuffix(dir, objstore.DirDelim) {
		return dir
	}
	return dir + objstore.DirDelim
}
