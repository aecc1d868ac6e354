// Package contract holds what a bucket promises beyond objstore's interface:
// the error marks, the entry of a flat listing, and the capabilities.
//
// Its one job is to let the S3 implementation speak these words without
// importing its parent, which opens it. Package bucket re-exports every name;
// nobody outside pkg/bucket imports this package. It stands on the ground floor
// and does no I/O.
package contract

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// The error marks. An error of any bucket operation carries at most one of them
// (ErrThrottled brings ErrTransient along); ask with errors.Is.
var (
	// ErrNotFound says that no object has this name.
	ErrNotFound = errors.New("object not found")
	// ErrAccessDenied says that the store knows us not, or does not let us do this.
	ErrAccessDenied = errors.New("access denied")
	// ErrExists says that a put that must create its object found one, or that
	// another writer is creating it right now.
	ErrExists = errors.New("object exists already")
	// ErrChanged says that a put that must replace a known version, or a read of one, found
	// another version, or that another writer is replacing it right now. A put says it also
	// when there is none.
	ErrChanged = errors.New("object changed meanwhile")
	// ErrTransient says that the same call may succeed later without anybody
	// changing anything: the network, a timeout, an overloaded or broken server.
	ErrTransient = errors.New("try again later")
	// ErrThrottled says that the store asks for fewer requests. It is transient.
	ErrThrottled = fmt.Errorf("request rate too high: %w", ErrTransient)
)

// Mark returns err carrying mark. The text of err stays as it is; a nil error
// stays nil.
func Mark(err, mark error) error {
	if err == nil {
		return nil
	}
	return &markedError{err: err, mark: mark}
}

type markedError struct{ err, mark error }

func (e *markedError) Error() string   { return e.err.Error() }
func (e *markedError) Unwrap() []error { return []error{e.err, e.mark} }

// WithThrottled has fn called for each request of calls under the context that the store
// refused because of its rate and that the bucket's own client makes again. What it gives
// up is an error, ErrThrottled. A call does not return before fn did.
func WithThrottled(ctx context.Context, fn func()) context.Context {
	return context.WithValue(ctx, throttledKey{}, fn)
}

// Throttled calls the function of WithThrottled, if there is one.
func Throttled(ctx context.Context) {
	if fn, ok := ctx.Value(throttledKey{}).(func()); ok {
		fn()
	}
}

type throttledKey struct{}

// Object is one entry of a flat listing.
type Object struct {
	// Name is the whole object name.
	Name string
	// Size is in bytes.
	Size int64
	// LastModified is the store's time of the last write, as coarse as one second.
	LastModified time.Time
	// ETag names the version of the object, without quotes. It equals what
	// Versioned returns for the same version. It is empty where the store has none.
	ETag string
}

// Lister is a bucket that lists flat.
type Lister interface {
	// List calls fn for every object whose name begins with prefix and sorts after
	// the name after (empty: from the start), in ascending byte order of the names.
	// The prefix is a string, not a directory. Objects written or deleted meanwhile
	// may be seen or not. An error of fn ends the listing and is returned as it is.
	List(ctx context.Context, prefix, after string, fn func(Object) error) error
}

// Versioned is a bucket with conditional writes. Of any number of writers racing
// with puts that exclude each other, in one process or many, exactly one wins.
//
// A put whose answer was lost on the way may be repeated underneath and then end
// in ErrExists or ErrChanged although it was this writer who won: who must know
// reads the object and looks for what it wrote.
type Versioned interface {
	// GetVersion reads a small object whole, together with its ETag.
	GetVersion(ctx context.Context, name string) (content []byte, etag string, err error)
	// PutIfAbsent creates an object of any size and returns its ETag, or ErrExists.
	// Memory in use is bounded, whatever the length of r. Readers see the whole
	// object or none.
	PutIfAbsent(ctx context.Context, name string, r io.Reader) (etag string, err error)
	// PutIfMatch replaces the version etag of a small object and returns the ETag
	// of the new version, or ErrChanged.
	PutIfMatch(ctx context.Context, name string, content []byte, etag string) (newETag string, err error)
}

// VersionReader is a bucket that reads parts of one version of an object.
type VersionReader interface {
	// GetRangeIfMatch is GetRange of the version etag, or ErrChanged if the object is
	// another one by now. All that it brings is of that version.
	GetRangeIfMatch(ctx context.Context, name, etag string, off, length int64) (io.ReadCloser, error)
}

// BatchDeleter is a bucket that deletes many objects with few requests.
type BatchDeleter interface {
	// DeleteBatch deletes objects in no particular order; absent ones are no error.
	DeleteBatch(ctx context.Context, names []string) error
}

// PendingUpload is an upload in parts that was begun and is neither complete nor
// given up: one under way, or what is left of one whose process died. It takes
// room, and no listing of objects shows it.
type PendingUpload struct {
	// Name is that of the object that it would become.
	Name string
	// ID tells uploads of one name apart.
	ID string
	// Begun is the store's time of its beginning.
	Begun time.Time
}

// UploadSweeper is a bucket that shows pending uploads.
type UploadSweeper interface {
	// PendingUploads calls fn for every pending upload of an object whose name
	// begins with prefix. An error of fn ends the listing and is returned as it is.
	PendingUploads(ctx context.Context, prefix string, fn func(PendingUpload) error) error
	// AbortUpload gives an upload up and frees its room; one that is complete or
	// given up by now is no error.
	AbortUpload(ctx context.Context, u PendingUpload) error
}

// Checker is a bucket with a quick look at whether it can be used at all.
type Checker interface {
	// Check lists at most one object below dir, without patient retries.
	Check(ctx context.Context, dir string) error
}

// CheckRange refuses a range that GetRange does not know: a negative offset, and
// every length below 1 but -1, which means up to the end.
func CheckRange(name string, off, length int64) error {
	if off < 0 || length < -1 || length == 0 {
		return fmt.Errorf("read %s: range of %d bytes from %d: the offset must not be negative, the length positive or -1", name, length, off)
	}
	return nil
}
