package bucket

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/bucket/internal/contract"
)

var (
	_ objstore.Bucket        = metered{}
	_ Lister                 = metered{}
	_ contract.BatchDeleter  = metered{}
	_ contract.Checker       = metered{}
	_ contract.UploadSweeper = metered{}
	_ contract.VersionReader = metered{}
	_ Versioned              = meteredVersioned{}
)

// withMetrics returns b with metrics of its operations, and its capabilities.
func withMetrics(b objstore.Bucket, reg prometheus.Registerer) objstore.Bucket {
	m := metered{Bucket: b, metrics: newMetrics(reg, b.Name())}
	if v, ok := b.(Versioned); ok {
		return meteredVersioned{m, v}
	}
	return m
}

type metered struct {
	objstore.Bucket
	metrics *metrics
}

func (m metered) Iter(ctx context.Context, dir string, f func(string) error, options ...objstore.IterOption) error {
	o := begin(m.metrics, opIter)
	f, mine := ownError(f)
	return o.listed(m.Bucket.Iter(ctx, dir, f, options...), mine)
}

func (m metered) IterWithAttributes(ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error, options ...objstore.IterOption) error {
	o := begin(m.metrics, opIter)
	f, mine := ownError(f)
	return o.listed(m.Bucket.IterWithAttributes(ctx, dir, f, options...), mine)
}

func (m metered) List(ctx context.Context, prefix, after string, fn func(Object) error) error {
	o := begin(m.metrics, opList)
	fn, mine := ownError(fn)
	return o.listed(List(ctx, m.Bucket, prefix, after, fn), mine)
}

func (m metered) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	o := begin(m.metrics, opGet)
	rc, err := m.Bucket.Get(ctx, name)
	if err != nil {
		return nil, o.end(err)
	}
	return &meteredReader{ReadCloser: rc, operation: o}, nil
}

func (m metered) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	return m.GetRangeIfMatch(ctx, name, "", off, length)
}

func (m metered) GetRangeIfMatch(ctx context.Context, name, etag string, off, length int64) (io.ReadCloser, error) {
	o := begin(m.metrics, opGetRange)
	rc, err := GetRangeIfMatch(ctx, m.Bucket, Object{Name: name, ETag: etag}, off, length)
	if err != nil {
		return nil, o.end(err)
	}
	return &meteredReader{ReadCloser: rc, operation: o}, nil
}

func (m metered) Exists(ctx context.Context, name string) (bool, error) {
	o := begin(m.metrics, opExists)
	ok, err := m.Bucket.Exists(ctx, name)
	return ok, o.end(err)
}

func (m metered) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	o := begin(m.metrics, opAttributes)
	a, err := m.Bucket.Attributes(ctx, name)
	return a, o.end(err)
}

func (m metered) Upload(ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption) error {
	o := begin(m.metrics, opUpload)
	r, size := counted(r)
	err := m.Bucket.Upload(ctx, name, r, opts...)
	return o.wrote(size(), err)
}

func (m metered) Delete(ctx context.Context, name string) error {
	o := begin(m.metrics, opDelete)
	return o.end(m.Bucket.Delete(ctx, name))
}

func (m metered) DeleteBatch(ctx context.Context, names []string) error {
	o := begin(m.metrics, opDelete)
	return o.end(DeleteAll(ctx, m.Bucket, names))
}

func (m metered) PendingUploads(ctx context.Context, prefix string, fn func(PendingUpload) error) error {
	o := begin(m.metrics, opList)
	fn, mine := ownError(fn)
	return o.listed(PendingUploads(ctx, m.Bucket, prefix, fn), mine)
}

func (m metered) AbortUpload(ctx context.Context, u PendingUpload) error {
	o := begin(m.metrics, opDelete)
	return o.end(AbortUpload(ctx, m.Bucket, u))
}

func (m metered) Check(ctx context.Context, dir string) error {
	return checkDir(ctx, m.Bucket, dir)
}

// meteredVersioned is a metered bucket with conditional writes.
type meteredVersioned struct {
	metered
	versioned Versioned
}

func (m meteredVersioned) GetVersion(ctx context.Context, name string) ([]byte, string, error) {
	o := begin(m.metrics, opGetVersion)
	content, etag, err := m.versioned.GetVersion(ctx, name)
	return content, etag, o.moved(int64(len(content)), err)
}

func (m meteredVersioned) PutIfAbsent(ctx context.Context, name string, r io.Reader) (string, error) {
	o := begin(m.metrics, opPutIfAbsent)
	r, size := counted(r)
	etag, err := m.versioned.PutIfAbsent(ctx, name, r)
	return etag, o.wrote(size(), err)
}

func (m meteredVersioned) PutIfMatch(ctx context.Context, name string, content []byte, etag string) (string, error) {
	o := begin(m.metrics, opPutIfMatch)
	etag, err := m.versioned.PutIfMatch(ctx, name, content, etag)
	return etag, o.wrote(int64(len(content)), err)
}

// operation is one call on a bucket while it lasts.
type operation struct {
	metrics *metrics
	name    string
	start   time.Time
}

func begin(m *metrics, name string) operation {
	m.operations.WithLabelValues(name).Inc()
	return operation{metrics: m, name: name, start: time.Now()}
}

// end books the operation and returns its error.
func (o operation) end(err error) error {
	if err == nil {
		o.metrics.duration.WithLabelValues(o.name).Observe(time.Since(o.start).Seconds())
	} else if !expected(err) {
		o.metrics.failures.WithLabelValues(o.name).Inc()
	}
	return err
}

// listed ends a listing; an error of the function that was called per entry is no
// failure of the bucket.
func (o operation) listed(err error, mine *error) error {
	if *mine != nil {
		_ = o.end(nil)
		return err
	}
	return o.end(err)
}

// moved ends an operation on so many bytes.
func (o operation) moved(size int64, err error) error {
	if err == nil {
		o.metrics.transferred.WithLabelValues(o.name).Observe(float64(size))
	}
	return o.end(err)
}

// wrote ends an operation that wrote so many bytes.
func (o operation) wrote(size int64, err error) error {
	if err == nil {
		o.metrics.lastUpload.SetToCurrentTime()
	}
	return o.moved(size, err)
}

// expected says of an error that the bucket did what it should.
func expected(err error) bool {
	return errors.Is(err, ErrNotFound) || errors.Is(err, ErrExists) || errors.Is(err, ErrChanged) || errors.Is(err, errors.ErrUnsupported) || errors.Is(err, context.Canceled)
}

// ownError remembers what f returns last, so that it can be told from an error of
// the bucket.
func ownError[T any](f func(T) error) (func(T) error, *error) {
	var mine error
	return func(v T) error { mine = f(v); return mine }, &mine
}

// meteredReader books a read when it is closed or breaks.
type meteredReader struct {
	io.ReadCloser
	operation operation
	size      int64
	booked    sync.Once
}

func (r *meteredReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.size += int64(n)
	if err != nil && err != io.EOF {
		r.booked.Do(func() { _ = r.operation.end(err) })
	}
	return n, err //nolint:wrapcheck // io.EOF must stay io.EOF
}

func (r *meteredReader) Close() error {
	err := r.ReadCloser.Close()
	r.booked.Do(func() { _ = r.operation.moved(r.size, err) })
	return err
}

// ObjectSize returns the size that the wrapped reader knows.
func (r *meteredReader) ObjectSize() (int64, error) {
	return objstore.TryToGetSize(r.ReadCloser)
}

// counted returns r, and a function that returns how long it was once it is read.
// A reader that can seek is handed on as it is.
func counted(r io.Reader) (io.Reader, func() int64) {
	if s, ok := r.(io.Seeker); ok {
		at, err1 := s.Seek(0, io.SeekCurrent)
		end, err2 := s.Seek(0, io.SeekEnd)
		_, err3 := s.Seek(at, io.SeekStart)
		if errors.Join(err1, err2, err3) == nil {
			return r, func() int64 { return end - at }
		}
	}
	c := &countingReader{Reader: r}
	return c, func() int64 { return c.size }
}

type countingReader struct {
	io.Reader
	size int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.size += int64(n)
	return n, err //nolint:wrapcheck // io.EOF must stay io.EOF
}

// ObjectSize returns the size that the wrapped reader knows.
func (c *countingReader) ObjectSize() (int64, error) {
	return objstore.TryToGetSize(c.Reader)
}
