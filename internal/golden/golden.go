// Package golden compares what a test got with a file kept beside it, and
// rewrites the file under the -update flag. `make golden` passes that flag to
// every package that imports this one; the diff is then reviewed like code.
//
// It stands beside the floors: tests import it, nothing else does.
package golden

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// A test flag has to be registered before the test binary parses its arguments.
var update = flag.Bool("update", false, "rewrite golden files instead of comparing with them") //nolint:gochecknoglobals // flags of test binaries are global

// Check compares got with the file at path, relative to the test's package.
func Check(tb testing.TB, path, got string) {
	tb.Helper()
	if *update {
		if err := write(path, got); err != nil {
			tb.Errorf("write golden file: %v", err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		tb.Errorf("golden file %s does not exist; `go test -update` writes it", path)
		return
	}
	if err != nil {
		tb.Errorf("read golden file: %v", err)
		return
	}
	if got != string(want) {
		tb.Errorf("differs from %s; `go test -update` accepts the difference\n got: %s\nwant: %s", path, got, want)
	}
}

func write(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o644)
}
