package panics

import (
	"errors"
	"strings"
	"testing"
)

// at is an index out of bad data.
func at(s []int, i int) int { return s[i] }

func TestAPanicIsAnErrorThatNamesItsPlace(t *testing.T) {
	var none *struct{ n int }
	for name, tc := range map[string]struct {
		fn   func() error
		says string
	}{
		"of the runtime":        {func() error { at(nil, 3); return nil }, "panics.at (panics_test.go:"},
		"of a signal":           {func() error { none.n++; return nil }, "panics_test.go:"},
		"by a value":            {func() error { panic("seven") }, "seven"},
		"while another returns": {func() error { defer func() { at(nil, 1) }(); return errors.New("other") }, "panics.at"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := Caught(tc.fn); !errors.Is(err, Err) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got error %v, want an internal one that says %q", err, tc.says)
			}
		})
	}
}

func TestOtherwiseTheErrorIsTheFunctions(t *testing.T) {
	want := errors.New("want")
	if err := Caught(func() error { return want }); err != want { //nolint:errorlint // the very same
		t.Errorf("got %v, want what the function returned", err)
	}
	if err := Caught(func() error { return nil }); err != nil {
		t.Errorf("got %v, want none", err)
	}
}
