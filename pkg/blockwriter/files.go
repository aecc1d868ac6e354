package blockwriter

import (
	"errors"
	"io"
	"os"
	"path/filepath"
)

// Files is where the files of a block go. The index and one chunk segment are
// written at the same time, each from front to end; in the end two goroutines complete them.
type Files interface {
	// Create starts a file, named as block.IndexFile and block.SegmentFile name it.
	Create(name string) (File, error)
}

// File is a file of a block that is being written.
type File interface {
	io.Writer
	// Close completes the file. It is called once, and not after Abort.
	Close() error
	// Abort gives the incomplete file up.
	Abort()
}

// Dir is a local directory, which must exist, as the place of a block.
type Dir string

// Create creates a file and the directories that it lies in.
func (d Dir) Create(name string) (File, error) {
	path := filepath.Join(string(d), filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return localFile{f}, nil
}

type localFile struct{ *os.File }

// Close makes the file durable.
func (f localFile) Close() error { return errors.Join(f.Sync(), f.File.Close()) }

// Abort removes the file.
func (f localFile) Abort() {
	_ = f.File.Close()
	_ = os.Remove(f.Name())
}
