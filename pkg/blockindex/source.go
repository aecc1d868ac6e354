package blockindex

import (
	"context"
	"fmt"
	"io"
	"os"
)

// Source is where the bytes of an index lie. It is safe for concurrent use.
type Source interface {
	// ReadAt fills p with the bytes from off on, or returns an error.
	ReadAt(ctx context.Context, p []byte, off int64) error
	// Size is the length of the index in bytes.
	Size() int64
	Close() error
}

// file is a Source on local disk.
type file struct {
	f    *os.File
	size int64
}

func (s *file) Size() int64 { return s.size }

func (s *file) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("read %s: %w", s.f.Name(), err)
	}
	if _, err := s.f.ReadAt(p, off); err != nil && err != io.EOF {
		return fmt.Errorf("read %d bytes at %d: %w", len(p), off, err)
	} else if err != nil {
		return corruptf("%s ends before byte %d", s.f.Name(), off+int64(len(p)))
	}
	return nil
}

func (s *file) Close() error {
	return s.f.Close()
}
