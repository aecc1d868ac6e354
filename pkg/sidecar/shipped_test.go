package sidecar

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// What can be read can be written and read again.
func FuzzShippedState(f *testing.F) {
	f.Add([]byte(`{"version": 1, "uploaded": ["01J8XPPZ6EZJ7QYJ4ZQJ0V4R5T"]}`))
	f.Add([]byte(`{"version":1,"uploaded":null}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		state, err := parseShipped(data)
		if err != nil {
			return
		}
		path := filepath.Join(t.TempDir(), "state")
		if err := state.write(path); err != nil {
			t.Fatal(err)
		}
		got, err := readShipped(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Uploaded)+len(state.Uploaded) > 0 && !reflect.DeepEqual(got.Uploaded, state.Uploaded) {
			t.Errorf("wrote %v, read %v", state.Uploaded, got.Uploaded)
		}
		if _, err := os.Stat(path + ".tmp"); err == nil {
			t.Error("a temporary file stays behind")
		}
	})
}
