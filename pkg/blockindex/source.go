package blockindex

import "context"

// Source is where the bytes of an index lie, which never change. It is safe for
// concurrent use.
type Source interface {
	// Read fills the ranges, or returns an error. They are wanted all at once: what
	// lies close together is worth one request, and requests are made side by side. Once
	// it has returned, the ranges are the caller's alone.
	Read(ctx context.Context, ranges ...Range) error
	// Forget says that what Read returned for n bytes from off on is wrong.
	Forget(off, n int64)
	// Size is the length of the index in bytes.
	Size() int64
}

// Range is where bytes of an index go.
type Range struct {
	Off  int64
	Into []byte
}
