package sidecar

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/oklog/ulid/v2"
)

// shippedVersion is that of the state file.
const shippedVersion = 1

// shipped is the content of the state file: the local blocks that the bucket
// has. Thanos' sidecar writes the same file, and Prometheus reads it.
type shipped struct {
	Version  int         `json:"version"`
	Uploaded []ulid.ULID `json:"uploaded"`
}

// parseShipped reads a state file.
func parseShipped(data []byte) (shipped, error) {
	var s shipped
	if err := json.Unmarshal(data, &s); err != nil {
		return shipped{}, fmt.Errorf("parse list of shipped blocks: %w", err)
	}
	if s.Version != shippedVersion {
		return shipped{}, fmt.Errorf("parse list of shipped blocks: version is %d, want %d", s.Version, shippedVersion)
	}
	return s, nil
}

// readShipped reads the state file; one that is not there yet is empty.
func readShipped(path string) (shipped, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return shipped{Version: shippedVersion}, nil
	}
	if err != nil {
		return shipped{}, fmt.Errorf("read list of shipped blocks: %w", err)
	}
	return parseShipped(data)
}

func (s *shipped) has(id ulid.ULID) bool { return slices.Contains(s.Uploaded, id) }

func (s *shipped) add(id ulid.ULID) {
	if !s.has(id) {
		s.Uploaded = append(s.Uploaded, id)
		slices.SortFunc(s.Uploaded, ulid.ULID.Compare)
	}
}

// keep forgets all but the given blocks and reports whether that changed anything.
func (s *shipped) keep(local []ulid.ULID) bool {
	before := len(s.Uploaded)
	s.Uploaded = slices.DeleteFunc(s.Uploaded, func(id ulid.ULID) bool { return !slices.Contains(local, id) })
	return len(s.Uploaded) != before
}

// write replaces the state file. A reader sees the old or the new one, and a
// crash leaves one of them.
func (s *shipped) write(path string) error {
	out := shipped{Version: shippedVersion, Uploaded: s.Uploaded}
	if out.Uploaded == nil {
		out.Uploaded = []ulid.ULID{} // a list, not null
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetIndent("", "\t")
	if err := enc.Encode(out); err != nil {
		return fmt.Errorf("encode list of shipped blocks: %w", err)
	}
	return replaceFile(path, buf.Bytes())
}

// replaceFile writes a file under another name, synced, and renames it.
func replaceFile(path string, data []byte) error {
	temp := path + ".tmp"
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o666) // for Prometheus, which may be another user
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes names in a directory survive a crash.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}
